"""Several projectors on one PostgreSQL and one NATS: killed, paused, woken, and views are the fold."""

import asyncio
import json
import random
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from nats.js.client import JetStreamContext

from flotilla import (
    Answer,
    Bindings,
    Context,
    LeaseStore,
    LogEvent,
    Offset,
    Rejected,
    Request,
    SystemClock,
    ViewSession,
    ViewStore,
    uuid7,
)
from flotilla.buses.local import LocalBus
from flotilla.embedded import NatsServer, PostgresServer
from flotilla.heartbeat import heartbeats
from flotilla.nats import connected
from flotilla.outbox import START, as_log_event
from flotilla.store import Append, Committed, NewEvent, StreamId, Unit, tenant_of
from flotilla.stores import ServiceStore, open_leases, open_store, open_views
from flotilla.testing import eventually
from flotilla_contracts import Envelope
from flotilla_contracts.counter import (
    CounterIncremented,
    CounterOpened,
    CounterReply,
    GetCounter,
    TenantTotals,
)
from flotilla_contracts.health import HealthReply, health_subject
from flotilla_contracts.parked import RetriedReply, RetryParked, retry_subject
from flotilla_contracts.wire import event_stream, event_subject, event_subjects, projection_lease
from svc_projector.activity import ActivityFeed, list_activity
from svc_projector.counters import CounterView, list_counters
from svc_projector.main import compose
from svc_projector.totals import TotalsView, get_totals

LOG, STREAM = "counter", event_stream("counter")
NAMES = (CounterView.name, TotalsView.name, ActivityFeed.name)
LIMIT_S = 30.0
"""For a busy machine. How long a take-over takes is shown in kernel/tests/test_lease.py."""
PROGRAM = Path(__file__).with_name("projector_process.py")


@dataclass(frozen=True)
class World:
    """A log with its store, its stream, the views of it, and who owns them."""

    url: str
    nats_url: str
    source: ServiceStore
    views: ViewStore
    leases: LeaseStore
    js: JetStreamContext

    def bindings(self, bus: LocalBus) -> Bindings:
        return Bindings(
            stores={"counter": self.url, "projector": self.url},
            nats_url=self.nats_url,
            bus=bus,
            clock=SystemClock(),
            ids=uuid7,
            chance=random.Random(1),
            services=("counter", "projector"),
            logs=(LOG,),
        )

    async def count(self, name: str, times: int = 1) -> None:
        """Commit that a counter was counted up so many times, publish it, and record it."""
        stream = StreamId(f"acme/counter/{name}")
        version = (await self.source.load(stream)).version
        value = max(0, version - 1)
        happened: list[CounterOpened | CounterIncremented] = [
            CounterIncremented(counter_id=name, by=1, value=value + n) for n in range(1, times + 1)
        ]
        if not version:
            happened.insert(0, CounterOpened(counter_id=name))
        events = tuple(
            NewEvent(str(uuid7()), e.type, e.model_dump_json(), {"correlation": "c"})
            for e in happened
        )
        [outcome] = await self.source.commit([Unit((Append(stream, version, events),))])
        assert Committed() == outcome
        last = await self.source.last_offset()
        waiting = await self.source.pending(limit=1000)
        for offset, entry in enumerate(waiting, start=last + 1):
            e, tenant = entry.event, tenant_of(entry.event.stream)
            envelope = Envelope(
                id=e.event_id,
                source=f"urn:flotilla:service:{LOG}",
                type=e.type,
                time=e.recorded_at,
                tenant=tenant,
                stream=e.stream,
                streamversion=e.version,
                schemaversion=1,
                correlationid="c",
            )
            subject = event_subject(LOG, tenant, e.type)
            ack = await self.js.publish(subject, e.payload.encode(), headers=envelope.to_headers())
            assert offset == ack.seq
        await self.source.record([(e.position, Offset(last + n)) for n, e in enumerate(waiting, 1)])

    async def count_for_ever(self) -> None:
        for n in range(10**9):
            await self.count(f"c{n % 5}", 1 + n % 3)
            await asyncio.sleep(0.01)

    async def owners(self) -> dict[str, tuple[int, int]]:
        """Return (process, token) of the owner of each projection that has one."""
        held = {lease.name: lease for lease in await self.leases.leases() if lease.holder}
        named = {name: held.get(projection_lease(name, LOG)) for name in NAMES}
        return {
            name: (int(str(lease.holder).split(":")[1]), lease.token)
            for name, lease in named.items()
            if lease
        }

    async def all_owned(self, *, but: int = 0) -> dict[str, tuple[int, int]]:
        """Return the owners once every projection has one, and none is process `but`."""

        async def owned() -> dict[str, tuple[int, int]] | None:
            found = await self.owners()
            return found if len(found) == len(NAMES) and but not in dict(found.values()) else None

        return await eventually(owned, within_s=LIMIT_S, what=f"all are owned, not by {but}")

    async def gets_on(self) -> None:
        """Return when every view has moved on by some events."""
        before = await self.checkpoints()

        async def moved() -> bool:
            now = await self.checkpoints()
            return all(now[name] > before[name] + 20 for name in NAMES)

        await eventually(moved, within_s=LIMIT_S, what=f"views get on from {before}")

    async def checkpoints(self) -> dict[str, int]:
        return {name: at.offset for name, _, at in await self.views.checkpoints()}

    async def is_the_fold(self) -> None:
        """Return when views are at the end of the log; assert that they are its fold."""
        last = await self.source.last_offset()

        async def there() -> bool:
            return set((await self.checkpoints()).values()) == {last}

        await eventually(there, within_s=LIMIT_S, what=f"all views are at {last}")
        events: list[LogEvent] = []
        while len(events) < last:
            after = Offset(len(events)) if events else START
            events += [as_log_event(e) for e in await self.source.published(after=after, limit=900)]
        counters: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for event in events:
            counter = counters[event.stream.rsplit("/", 1)[1]]
            counter[0] += json.loads(event.payload).get("by", 0)
            counter[1] += 1
        page = await list_counters(self.views, "acme", after="", limit=100)
        assert {c.counter_id: [c.value, c.version] for c in page.items} == counters
        value_sum = sum(value for value, _ in counters.values())
        totals = TenantTotals(counters=len(counters), value_sum=value_sum, events=last)
        assert totals == await get_totals(self.views, "acme"), "each event counts once"
        feed = await list_activity(self.views, "acme", before=None, limit=900)
        newest = [event.offset for event in reversed(events)][:900]
        assert newest == [entry.offset for entry in feed.items]


@pytest.fixture
async def world(postgres_server: PostgresServer, nats_server: NatsServer) -> AsyncIterator[World]:
    database = f"replicas_{uuid4().hex[:8]}"
    server = await asyncpg.connect(postgres_server.dsn)
    await server.execute(f"create database {database}")
    await server.close()
    url = postgres_server.dsn.replace("/flotilla?", f"/{database}?")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        source = await enter(open_store(url, service="counter"))
        views = await enter(open_views(url, service="projector"))
        leases = await enter(open_leases(url, service="projector"))
        js = (await enter(connected(nats_server.url, name="test"))).jetstream()
        await js.add_stream(name=STREAM, subjects=[event_subjects(LOG)])
        yield World(url, nats_server.url, source, views, leases, js)
        await js.delete_stream(STREAM)


class Replicas:
    """Projector processes of this test; every one ends with it."""

    def __init__(self, world: World) -> None:
        self._arguments = world.nats_url, world.url
        self.running: dict[int, asyncio.subprocess.Process] = {}

    async def start(self) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), *self._arguments, stdout=asyncio.subprocess.DEVNULL
        )
        self.running[process.pid] = process
        return process.pid

    def send(self, pid: int, number: signal.Signals) -> None:
        self.running[pid].send_signal(number)

    async def end(self, pid: int, number: signal.Signals) -> int:
        self.send(pid, number)
        async with asyncio.timeout(10):
            return await self.running.pop(pid).wait()


@pytest.fixture
async def replicas(world: World) -> AsyncIterator[Replicas]:
    found = Replicas(world)
    yield found
    for pid in list(found.running):
        await found.end(pid, signal.SIGKILL)


@asynccontextmanager
async def flowing(world: World) -> AsyncIterator[None]:
    """Let events be committed and published all the time."""
    writer = asyncio.create_task(world.count_for_ever())
    try:
        yield
    finally:
        writer.cancel()
        [ended] = await asyncio.gather(writer, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError), ended


async def test_others_take_over_from_one_that_was_killed(world: World, replicas: Replicas) -> None:
    async with flowing(world):
        for _ in range(2):
            await replicas.start()
        for name in (CounterView.name, TotalsView.name):
            victim, _ = (await world.all_owned())[name]
            await replicas.end(victim, signal.SIGKILL)
            await world.all_owned(but=victim)
            await world.gets_on()
            await replicas.start()
    await world.is_the_fold()


async def test_one_that_was_paused_is_replaced_and_folds_nothing_when_it_wakes(
    world: World, replicas: Replicas
) -> None:
    async with flowing(world):
        for _ in range(2):
            await replicas.start()
        zombie, _ = (await world.all_owned())[TotalsView.name]
        replicas.send(zombie, signal.SIGSTOP)
        before = await world.all_owned(but=zombie)
        await world.gets_on()

        replicas.send(zombie, signal.SIGCONT)

        await world.gets_on()
        assert before == await world.all_owned(), "nothing was taken back"
    await world.is_the_fold()


async def test_one_that_stops_in_order_lets_go_at_once(world: World, replicas: Replicas) -> None:
    async with flowing(world):
        owner = await replicas.start()
        await world.all_owned()
        await world.gets_on()

        assert 0 == await replicas.end(owner, signal.SIGTERM)

        assert {} == await world.owners()
        await replicas.start()
        await world.all_owned(but=owner)
    await world.is_the_fold()


# Whoever stands by: two replicas in one process, so that a request can be sent to that one.


class Standby:
    """The replica that owns nothing, asked over a bus of its own."""

    def __init__(self, bus: LocalBus) -> None:
        self.bus = bus

    async def ask(self, subject: str, body: str, token: str | None = None) -> Answer:
        context = Context("acme", "c", consistency_token=token)
        return await self.bus.request(Request(subject, body.encode(), context))

    async def get(self, name: str, token: str | None = None) -> CounterReply:
        answer = await self.ask(GetCounter.subject, json.dumps({"counter_id": name}), token)
        return CounterReply.model_validate_json(answer.body)

    async def retry(self, key: str) -> int:
        body = RetryParked(projection=CounterView.name, key=key).model_dump_json()
        answer = await self.ask(retry_subject("projector"), body)
        return RetriedReply.model_validate_json(answer.body).events

    async def health(self) -> HealthReply:
        answer = await self.ask(health_subject("projector"), "{}")
        return HealthReply.model_validate_json(answer.body)


@pytest.fixture
async def standby(world: World) -> AsyncIterator[Standby]:
    async with compose(world.bindings(LocalBus())):
        owners = await world.all_owned()
        async with compose(world.bindings(bus := LocalBus())):
            yield Standby(bus)
            assert owners == await world.owners(), "it stood by all the time"


async def test_whoever_stands_by_is_well_and_answers_what_a_token_asks_for(
    world: World, standby: Standby
) -> None:
    waiting = asyncio.create_task(standby.get("c", "acme/counter/c@4"))
    await world.count("c", 3)

    assert 3 == (await waiting).value
    await world.is_the_fold()

    async def well() -> bool:
        return (await standby.health()).ready

    async def all_show_life() -> bool:
        signs = {sign.projection: sign.trouble for sign in await heartbeats(world.views)}
        return signs == dict.fromkeys(NAMES, "")

    await eventually(well, within_s=LIMIT_S, what="it is well")
    await eventually(all_show_life, within_s=LIMIT_S, what="each projection shows life, untroubled")


async def test_a_retry_that_reaches_whoever_stands_by_frees_the_key_for_the_owner(
    world: World, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of the key go on arriving at the owner meanwhile: none is lost, none is twice."""
    sick = True
    fold = CounterView.apply

    async def apply(self: CounterView, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        if sick and any(e.stream.endswith("/c1") and e.version == 2 for e in batch):
            raise KeyError("what this version does not know")
        await fold(self, view, batch)

    monkeypatch.setattr(CounterView, "apply", apply)
    key = "acme/counter/c1"

    async def told() -> bool:
        return "parked.counters" in (await standby.health()).lag

    async with flowing(world):
        await eventually(told, within_s=LIMIT_S, what="it is parked")
        with pytest.raises(Rejected, match="KeyError"):
            await standby.retry(key)

        sick = False
        assert await standby.retry(key) >= 1
        await world.gets_on()

        assert not await told()
    await world.is_the_fold()
