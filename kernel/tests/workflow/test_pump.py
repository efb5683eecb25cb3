"""Workers on real stores: with others, and with what others published."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flotilla.aggregate import Aggregate
from flotilla.background import background
from flotilla.bus import Answer, Request
from flotilla.clock import SystemClock, uuid7
from flotilla.commit import GroupCommitter
from flotilla.embedded import PostgresServer
from flotilla.errors import Unavailable
from flotilla.outbox import LogEvent, Offset
from flotilla.store import StreamId, Version
from flotilla.stores import ServiceStore, open_store, open_views
from flotilla.testing import eventually
from flotilla.workflow.arrivals import Arrivals, Concern, concerns
from flotilla.workflow.asked import Arrive, Start
from flotilla.workflow.book import Book, VersionChanged
from flotilla.workflow.instance import decider
from flotilla.workflow.instances import CODEC, Instances, instance_stream
from flotilla.workflow.picture import picture
from flotilla.workflow.pump import Pump
from flotilla.workflow.state import Status, wake
from kernel.tests.workflow.plays import IN_A_ROW, OF_EVERYTHING, PAID, does, workflow

MANY = 60
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Shop:
    """A service that remembers what it did, by key, and is sometimes not heard."""

    def __init__(self) -> None:
        self.chance = random.Random(1)
        self.done: dict[str, str] = {}
        self.asked = 0

    async def ask(self, request: Request) -> Answer:
        await asyncio.sleep(0)
        key = request.context.idempotency_key or ""
        self.asked += 1
        self.done.setdefault(key, request.subject)
        if self.chance.random() < 0.1:
            raise Unavailable("no reply, on purpose")
        return Answer(request.body)


def a_pump(store: ServiceStore, shop: Shop) -> Pump:
    commit = GroupCommitter(store, flights_max=store.flights_max).commit
    clock, chance = SystemClock(), random.Random(1)
    instances = Instances.of(
        Book(store, uuid7),
        lambda known: Aggregate(
            decider(known), CODEC, store, commit, clock, uuid7, chance, wake=wake
        ),
    )
    return Pump(instances, store, shop.ask, SystemClock(), lease_s=1, poll_max_s=0.05)


@asynccontextmanager
async def at_work(*pumps: Pump) -> AsyncIterator[None]:
    if not pumps:
        yield
        return
    first, *rest = pumps
    chance = random.Random(1)
    async with (
        background("pump", first.run, clock=SystemClock(), chance=chance),
        at_work(*rest),
    ):
        yield


@pytest.fixture(params=["libsql", "postgres"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer
) -> AsyncIterator[ServiceStore]:
    urls = {"libsql": f"libsql://{tmp_path}/w.db", "postgres": postgres_server.dsn}
    async with open_store(urls[request.param], service=f"w{uuid4().hex[:10]}") as opened:
        yield opened


QUICK = workflow(
    *(does(name, retries={"backoff_first_s": 0.01}) for name in ("reserve", "charge")),
    does("ship", "reserve", "charge", retries={"backoff_first_s": 0.01}),
)


async def test_several_workers_move_many_workflows_and_each_effect_happens_once(
    store: ServiceStore,
) -> None:
    shop = Shop()
    pumps = [a_pump(store, shop) for _ in range(3)]
    await pumps[0].instances.book.publish([QUICK])
    streams = [instance_stream("acme", QUICK.name, f"o-{n}") for n in range(MANY)]

    def start(n: int) -> Any:
        return lambda now: Start(QUICK, f"o-{n}", {"order": f"o-{n}"}, now)

    async with at_work(*pumps):
        for n, stream in enumerate(streams):
            await pumps[n % 2].tell(stream, start(n))

        async def over() -> bool:
            states = [await pumps[2].instances.look(stream) for stream in streams]
            return all(state.status is Status.COMPLETED for state in states)

        await eventually(over, within_s=60, what="all complete")
    assert 3 * MANY == len(shop.done), "one key a step"
    assert shop.asked > len(shop.done), "some were asked for again"


async def test_another_worker_takes_over_what_a_dead_one_left(store: ServiceStore) -> None:
    """Here it never lived: it decided what to ask for, and was gone."""
    shop = Shop()
    stream = instance_stream("acme", QUICK.name, "o-1")
    dead, alive = a_pump(store, shop), a_pump(store, shop)
    await dead.instances.book.publish([QUICK])
    now = (await store.claim("workflow", limit=0, lease_s=1)).now
    long_ago = now.replace(year=now.year - 1)
    await dead.instances.tell(stream, Start(QUICK, "o-1", {"order": "o-1"}, long_ago))
    assert 0 == shop.asked

    async with at_work(alive):

        async def over() -> bool:
            return (await dead.instances.look(stream)).status is Status.COMPLETED

        await eventually(over, within_s=30, what="somebody else goes on")


async def test_definitions_survive_their_files_and_versions_do_not_change(
    store: ServiceStore,
) -> None:
    await Book(store, uuid7).publish([IN_A_ROW, OF_EVERYTHING.model_copy(update={"version": 2})])
    book = Book(store, uuid7)
    await book.refresh()

    assert IN_A_ROW.to_json() == book.by_hash(IN_A_ROW.hash).to_json()
    assert 2 == book.current()["ordering"].version
    await book.publish([IN_A_ROW])
    assert 2 == len(book.versions())
    with pytest.raises(VersionChanged, match="write version 2"):
        await book.publish([workflow(does("other"))])


def event(kind: str, at: int, **data: str) -> LogEvent:
    about = (StreamId(f"acme/invoice/{at}"), Version(1), kind, json.dumps(data).encode())
    return LogEvent(Offset(at), "acme", *about, datetime(2026, 1, 1).astimezone())


ON_EVENT = workflow(
    {"name": "paid", "wait_for": PAID | {"where": {"number": "${trigger.order}"}}},
    trigger={"event": "order.placed.v1"},
)


async def test_whom_an_event_concerns_is_computed_from_it(tmp_path: Path) -> None:
    async with open_store(f"libsql://{tmp_path}/w.db", service="w") as store:
        book = Book(store, uuid7)
        await book.publish([ON_EVENT])

    [starts] = concerns(book, event("order.placed.v1", 1, order="o-1"))
    [arrives] = concerns(book, event("invoice.paid.v1", 2, number="o-1"))
    [unknown] = concerns(book, event("invoice.paid.v1", 3, no="o-1"))

    assert isinstance(starts, Concern)
    assert isinstance(arrives, Concern)
    assert "acme/workflow/ordering:o-1" == starts.stream == arrives.stream
    now = datetime(2026, 1, 1).astimezone()
    assert Start(ON_EVENT, "o-1", {"order": "o-1"}, NOW) == starts.telling(NOW)
    assert Arrive("invoice.paid.v1", "acme/invoice/2@1", {"number": "o-1"}, NOW) == arrives.telling(
        now
    )
    assert isinstance(unknown, str)
    assert "has no 'number', but no" in unknown
    assert [] == list(concerns(book, event("something.else.v1", 4)))


async def test_a_workflow_with_times_starts_when_the_platforms_schedule_of_it_fires(
    tmp_path: Path,
) -> None:
    """Given the planned time; a tenant's schedule of the same name starts nothing."""
    nightly = workflow(
        does("tidy"),
        trigger={"schedule": {"cron": "0 3 * * *", "time_zone": "Europe/Vienna"}},
        idempotency_key="${trigger.at}",
    )
    async with open_store(f"libsql://{tmp_path}/w.db", service="w") as store:
        book = Book(store, uuid7)
        await book.publish([nightly])

    at = "2026-05-17T01:00:00Z"
    fired = event("schedule.fired.v1", 1, schedule_id=nightly.schedule_id, occurrence=at)
    [starts] = concerns(book, replace(fired, tenant="-"))

    assert isinstance(starts, Concern)
    assert f"-/workflow/{nightly.name}:{at}" == starts.stream
    assert Start(nightly, at, {"at": at}, NOW) == starts.telling(NOW)
    assert [] == list(concerns(book, fired)), "of tenant acme"
    other = event("schedule.fired.v1", 2, schedule_id="workflow.other", occurrence=at)
    assert [] == list(concerns(book, replace(other, tenant="-")))


async def test_events_start_workflows_and_let_them_go_on_and_are_heard_once(
    tmp_path: Path, store: ServiceStore
) -> None:
    """The log is the workflows' own: what is published there is read back by its ledger."""
    shop, url = Shop(), f"libsql://{tmp_path}/views.db"
    pump = a_pump(store, shop)
    book = pump.instances.book
    await book.publish([ON_EVENT])
    orders = Ledger(
        [event("order.placed.v1", 1, order="o-1"), event("invoice.paid.v1", 2, number="o-1")]
    )
    async with open_views(url, service="w") as views:
        arrivals = Arrivals(book, pump.tell, {"shop": orders}, views, SystemClock())  # type: ignore[dict-item]
        assert 2 == await arrivals.read_on("shop", orders)  # type: ignore[arg-type]
        assert 0 == await arrivals.read_on("shop", orders)  # type: ignore[arg-type]
        assert 2 == orders.read_up_to

    stream = instance_stream("acme", ON_EVENT.name, "o-1")
    instance = await pump.instances.look(stream)
    assert Status.COMPLETED == instance.status
    history = await store.read(stream)
    for again in orders.listed:
        for concern in concerns(book, again):
            assert isinstance(concern, Concern)
            await pump.tell(concern.stream, concern.telling)
    assert len(history) == len(await store.read(stream))
    assert "completed" in picture(ON_EVENT, instance)


async def test_what_follows_on_a_log_that_was_empty_is_heard_whoever_begins_again(
    tmp_path: Path,
) -> None:
    """A replica that began at the head of an empty log dies before there is an event."""
    async with (
        open_store(f"libsql://{tmp_path}/w.db", service="w") as store,
        open_views(f"libsql://{tmp_path}/views.db", service="w") as views,
    ):
        pump, orders = a_pump(store, Shop()), Ledger([])
        book = pump.instances.book
        await book.publish([ON_EVENT])

        def another() -> Arrivals:
            return Arrivals(book, pump.tell, {"shop": orders}, views, SystemClock())  # type: ignore[dict-item]

        await another().begin()
        orders.listed.append(event("order.placed.v1", 1, order="o-1"))
        await another().begin()
        assert 1 == await another().read_on("shop", orders)  # type: ignore[arg-type]

        stream = instance_stream("acme", ON_EVENT.name, "o-1")
        assert Status.RUNNING == (await pump.instances.look(stream)).status


class Ledger:
    """A log as `Arrivals` reads it."""

    def __init__(self, listed: list[LogEvent]) -> None:
        self.listed = listed
        self.read_up_to = 0

    async def events(self, *, after: Offset, limit: int) -> list[LogEvent]:
        return [e for e in self.listed if e.offset > after][:limit]

    async def last_offset(self) -> Offset:
        return self.listed[-1].offset if self.listed else Offset(0)

    async def read_by(self, _reader: str, offset: Offset) -> None:
        self.read_up_to = offset
