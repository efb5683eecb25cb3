"""Flotilla's workflows as they are deployed: instances on PostgreSQL, and one pump at work."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from bench.measure import Ask
from bench.workflow_service import STEPS, Service
from flotilla import Aggregate, GroupCommitter, SystemClock, uuid7
from flotilla.background import background
from flotilla.bus import Answer, Request
from flotilla.store import StreamId
from flotilla.stores.postgres import PostgresStore
from flotilla.workflow.asked import Command, Start
from flotilla.workflow.book import Book
from flotilla.workflow.definition import Definition, definition_from
from flotilla.workflow.instance import decider
from flotilla.workflow.instances import CODEC, Instances, Told, instance_stream
from flotilla.workflow.pump import Pump
from flotilla.workflow.state import Status, wake


def _step(name: str, *needs: str) -> dict[str, Any]:
    order = {"order": "${trigger.order}"}
    return {
        "name": name,
        "call": {"service": "shop", "command": name, "parameters": order},
        "compensation": {"service": "shop", "command": f"un-{name}", "parameters": order},
        "depends_on": list(needs),
    }


def ordering() -> Definition:
    """Return the workflow: three steps in a row."""
    needs = ((), *((name,) for name in STEPS))
    return definition_from(
        {
            "name": "ordering",
            "version": 1,
            "trigger": {"command": {"service": "shop", "command": "order"}},
            "idempotency_key": "${trigger.order}",
            "steps": [_step(name, *before) for name, before in zip(STEPS, needs, strict=False)],
        }
    )


@dataclass(frozen=True, slots=True)
class Watched(Instances):
    """Instances that say when one is over: a caller waits for that."""

    over: dict[StreamId, asyncio.Future[None]] = field(default_factory=dict)

    async def tell(self, stream: StreamId, command: Command) -> Told:
        """Tell, and say so when that was the end."""
        told = await Instances.tell(self, stream, command)
        if told.instance.status is Status.COMPLETED and (waiting := self.over.pop(stream, None)):
            waiting.set_result(None)
        return told


@asynccontextmanager
async def flotilla(dsn: str, service: Service) -> AsyncIterator[Ask]:
    """Yield what runs one workflow to its end."""
    clock, chance = SystemClock(), random.Random(1)  # noqa: S311 - jitter, not secrets
    definition, orders = ordering(), count()

    async def request(asked: Request) -> Answer:
        await service.ask(asked.context.idempotency_key or "")
        return Answer(b'"done"')

    async with PostgresStore.open(dsn, service="workflow") as store:
        commit = GroupCommitter(store, flights_max=store.flights_max).commit
        instances = Watched.of(
            Book(store, uuid7),
            lambda known: Aggregate(
                decider(known), CODEC, store, commit, clock, uuid7, chance, wake=wake
            ),
        )
        await instances.book.publish([definition])
        pump = Pump(instances, store, request, clock)

        async def ask(_: int) -> None:
            order = f"o-{next(orders)}"
            stream = instance_stream("acme", definition.name, order)
            ended = instances.over[stream] = asyncio.get_running_loop().create_future()
            await pump.tell(stream, lambda now: Start(definition, order, {"order": order}, now))
            await ended

        async with background("pump", pump.run, clock=clock, chance=chance):
            yield ask
