"""Composition root: the one place where this service's concrete things meet."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from pydantic import TypeAdapter

from flotilla import (
    Aggregate,
    Bindings,
    ContractCodec,
    Decision,
    Done,
    GroupCommitter,
    Health,
    Lanes,
    Running,
    StreamId,
    execute,
)
from flotilla.background import Background, background
from flotilla.doorbell import Doorbell
from flotilla.health import serve_health
from flotilla.nats import connected
from flotilla.observe import ObservedStore, observed
from flotilla.stores import open_store
from flotilla.telemetry import span
from flotilla_contracts.counter import COMMANDS, EVENTS, SERVICE, GetCounterHistory
from flotilla_contracts.health import health_subject
from flotilla_contracts.wire import doorbell_subject
from svc_counter.application import Counters
from svc_counter.domain.counter import Bounds, Command, Counter, Event, decider
from svc_counter.settings import Settings

NAME = "svc-counter"
CLEAN_UP_EVERY_S = 60.0
_STATE = TypeAdapter(Counter)


@dataclass(frozen=True, slots=True)
class CounterSnapshots:
    """How a counter is remembered. Raise `schema` when `Counter` changes."""

    every_events: int
    schema: int = 1

    def dump(self, state: Counter) -> str:
        """Return the state as JSON."""
        return _STATE.dump_json(state).decode()

    def load(self, text: str) -> Counter:
        """Return the state that `dump` wrote."""
        return _STATE.validate_json(text)


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Run the service while the block runs."""
    settings = Settings.read()
    async with (
        open_store(bindings.stores[SERVICE], service=SERVICE) as store,
        connected(bindings.nats_url, name=NAME) as nats,
    ):
        bell = Doorbell(nats, doorbell_subject(SERVICE))
        committer = GroupCommitter(
            ObservedStore(store), on_commit=lambda _: bell.ring(), flights_max=store.flights_max
        )
        rules = decider(Bounds(settings.lower_bound, settings.upper_bound))
        aggregate: Aggregate[Command, Counter, Event] = Aggregate(
            rules,
            ContractCodec(EVENTS),
            store,
            committer.commit,
            bindings.clock,
            bindings.ids,
            bindings.chance,
            CounterSnapshots(settings.snapshot_every_events),
        )
        lanes = Lanes(partial(execute, aggregate))

        async def settle(stream: StreamId, decision: Decision[Counter, Event]) -> Done:
            with span("commit", stream=stream):
                return await lanes.settle(stream, decision)

        counters = Counters(rules, settle, store, settings.idempotency_ttl_s)
        for command in COMMANDS:
            await bindings.bus.serve(command.subject, observed(counters.command_handler(command)))
        await bindings.bus.serve(GetCounterHistory.subject, observed(counters.history))

        async def health() -> Health:
            await store.status()
            return Health()

        async def clean_up(_: Background) -> None:
            await store.forget_expired()
            await bindings.clock.sleep(CLEAN_UP_EVERY_S)

        clock, chance = bindings.clock, bindings.chance
        try:
            async with background("counter.clean-up", clean_up, clock=clock, chance=chance):
                await serve_health(bindings.bus, health_subject(SERVICE), NAME, health)
                yield Running(NAME, health)
        finally:
            await lanes.drain()  # what was accepted is committed before the store closes
