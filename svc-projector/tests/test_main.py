"""The projector as it is deployed: a broker, the log's store, its own views, a bus."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from flotilla import (
    Answer,
    Bindings,
    Context,
    Health,
    Lag,
    LogEvent,
    Offset,
    OutboxEntry,
    Rejected,
    Request,
    SystemClock,
    Unavailable,
    ViewSession,
    uuid7,
)
from flotilla.auditing import Audit
from flotilla.background import Background
from flotilla.buses.local import LocalBus
from flotilla.embedded import NatsServer, run_nats
from flotilla.heartbeat import heartbeats
from flotilla.nats import connected
from flotilla.settings import StartRefused
from flotilla.store import (
    Append,
    Committed,
    NewEvent,
    RecordedEvent,
    StreamId,
    Unit,
    Version,
    tenant_of,
)
from flotilla.stores import ServiceStore, open_store
from flotilla.stores.libsql import LibsqlViews
from flotilla.stores.memory import MemoryStore
from flotilla.testing import ManualClock, eventually, new_event
from flotilla_contracts import Envelope
from flotilla_contracts.counter import (
    ActivityPage,
    CounterIncremented,
    CounterOpened,
    CounterPage,
    CounterReply,
    GetCounter,
    GetTenantTotals,
    ListActivity,
    ListCounters,
    TenantTotals,
)
from flotilla_contracts.health import HealthReply, LagReply, health_subject
from flotilla_contracts.message import Event
from flotilla_contracts.parked import RetriedReply, RetryParked, retry_subject
from flotilla_contracts.tenant_events import (
    TenantActivated,
    TenantCreated,
)
from flotilla_contracts.tenant_views import GetAuditHead, ListTenants, TenantPage
from flotilla_contracts.wire import event_stream, event_subject, event_subjects
from svc_projector.audit import AuditView
from svc_projector.counters import CounterView
from svc_projector.main import compose
from svc_projector.projector import Projector
from svc_projector.read_models import read_stream
from svc_projector.running import RunningProjection, health_of

LOG = "counter"
STREAM = event_stream(LOG)
LIMIT_S = 20.0


CREATED = TenantCreated(tenant_id="acme", name="Acme", plan="free", actor_id="ann")
ACTIVATED = TenantActivated(actor_id="system")


def cloud_event(log: str, event: RecordedEvent) -> tuple[str, bytes, dict[str, str]]:
    """Return subject, payload and headers of an event, as the relay publishes it."""
    tenant = tenant_of(event.stream)
    envelope = Envelope(
        id=event.event_id,
        source=f"urn:flotilla:service:{log}",
        type=event.type,
        time=event.recorded_at,
        tenant=tenant,
        stream=event.stream,
        streamversion=event.version,
        schemaversion=1,
        correlationid=event.metadata.get("correlation", event.event_id),
        causationid=event.metadata.get("causation"),
    )
    subject = event_subject(log, tenant, event.type)
    return subject, event.payload.encode(), envelope.to_headers()


@dataclass(frozen=True)
class Log:
    """Another log, written and relayed by hand."""

    store: ServiceStore
    js: JetStreamContext
    name: str

    async def append(self, stream: StreamId, version: int, event: Event) -> None:
        new = NewEvent(str(uuid7()), event.type, event.model_dump_json(), {"causation": "r 1"})
        unit = Unit((Append(stream, Version(version), (new,)),))
        assert [Committed()] == await self.store.commit([unit])
        [waiting] = await self.store.pending(limit=10)
        subject, payload, headers = cloud_event(self.name, waiting.event)
        ack = await self.js.publish(subject, payload, headers=headers)
        await self.store.record([(waiting.position, Offset(ack.seq))])


class World:
    """A source with its log, written by hand: the events, their offsets, and their messages."""

    def __init__(self, source: ServiceStore, connection: Client, folder: Path, url: str) -> None:
        self.source = source
        self.connection = connection
        self.js = connection.jetstream()
        self.bus = LocalBus()
        self.bindings = Bindings(
            stores={
                "counter": f"libsql://{folder}/counter.db",
                "projector": f"libsql://{folder}/projector.db",
            },
            nats_url=url,
            bus=self.bus,
            clock=SystemClock(),
            ids=uuid7,
            chance=random.Random(1),
            services=("counter", "projector"),
            logs=(LOG,),
        )
        self._values: dict[StreamId, int] = {}

    async def create_stream(self, first: int = 1) -> None:
        await self.js.add_stream(name=STREAM, subjects=[event_subjects(LOG)], first_seq=first)

    async def count(self, name: str, times: int = 1, *, tenant: str = "acme") -> None:
        """Commit: a counter is opened, and counted up by one so many times."""
        stream = StreamId(f"{tenant}/counter/{name}")
        value = self._values.get(stream, 0)
        version = (await self.source.load(stream)).version
        events = [] if version else [self._event(CounterOpened(counter_id=name))]
        for n in range(1, times + 1):
            events.append(self._event(CounterIncremented(counter_id=name, by=1, value=value + n)))
        self._values[stream] = value + times
        [outcome] = await self.source.commit([Unit((Append(stream, version, tuple(events)),))])
        assert Committed() == outcome

    @staticmethod
    def _event(event: CounterOpened | CounterIncremented) -> NewEvent:
        return NewEvent(str(uuid7()), event.type, event.model_dump_json(), {"correlation": "c"})

    async def record(self) -> list[OutboxEntry]:
        """Give offsets to what waits, and return it."""
        last, waiting = await self.source.last_offset(), await self.source.pending(limit=1000)
        await self.source.record(
            [(entry.position, Offset(last + n)) for n, entry in enumerate(waiting, start=1)]
        )
        return list(await self.source.published(after=last, limit=1000))

    async def relay(self) -> None:
        """Publish what waits, and record it."""
        for entry in await self.record():
            await self.publish(entry)

    async def publish(self, entry: OutboxEntry) -> None:
        subject, payload, headers = cloud_event(LOG, entry.event)
        ack = await self.js.publish(subject, payload, headers=headers)
        assert entry.offset == ack.seq

    async def get(
        self, name: str, token: str | None = None, *, tenant: str = "acme"
    ) -> CounterReply:
        context = Context(tenant, "c", consistency_token=token)
        body = json.dumps({"counter_id": name}).encode()
        answer = await self.bus.request(Request(GetCounter.subject, body, context))
        return CounterReply.model_validate_json(answer.body)

    def value(self, name: str) -> int:
        return self._values[StreamId(f"acme/counter/{name}")]

    async def ask(self, subject: str, body: bytes = b"{}") -> Answer:
        return await self.bus.request(Request(subject, body, Context("acme", "c")))

    async def retry(self, key: str, projection: str = "counters") -> int:
        body = RetryParked(projection=projection, key=key).model_dump_json().encode()
        answer = await self.ask(retry_subject("projector"), body)
        return RetriedReply.model_validate_json(answer.body).events

    async def health(self) -> HealthReply:
        request = Request(health_subject("projector"), b"{}", Context("-", "c"))
        return HealthReply.model_validate_json((await self.bus.request(request)).body)

    async def stands(self, name: str, value: int, *, tenant: str = "acme") -> None:
        """Return when a counter is answered with `value`."""

        async def there() -> bool:
            try:
                return (await self.get(name, tenant=tenant)).value == value
            except Rejected:
                return False

        await eventually(there, within_s=LIMIT_S, what=f"{name} is {value}")

    async def well(self) -> HealthReply:
        """Return its health once nothing is missing and nothing is behind."""

        async def fine() -> HealthReply | None:
            found = await self.health()
            behind = [lag for lag in found.lag.values() if lag.events]
            return found if found.ready and not behind else None

        return await eventually(fine, within_s=LIMIT_S, what="it is well")


@asynccontextmanager
async def a_world(folder: Path, server: NatsServer) -> AsyncIterator[World]:
    url = f"libsql://{folder}/counter.db"
    async with (
        open_store(url, service="counter") as source,
        connected(server.url, name="test") as connection,
    ):
        yield World(source, connection, folder, server.url)


@pytest.fixture
async def world(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[World]:
    async with a_world(tmp_path, nats_server) as world:
        yield world
        await world.js.delete_stream(STREAM)


async def test_events_on_the_stream_appear_in_answers(world: World) -> None:
    await world.create_stream()
    await world.count("before", 3)
    await world.relay()

    async with compose(world.bindings) as running:
        await world.stands("before", 3)
        await world.count("after", 2)
        await world.count("after", 7, tenant="rival")
        await world.relay()

        assert 2 == (await world.get("after", "acme/counter/after@3")).value
        await world.stands("after", 7, tenant="rival")
        answer = await world.bus.request(Request(ListCounters.subject, b"{}", Context("acme", "c")))
        page = CounterPage.model_validate_json(answer.body)
        assert [("after", 2, 3), ("before", 3, 4)] == [
            (item.counter_id, item.value, item.version) for item in page.items
        ]
        assert "svc-projector" == running.name
        await world.well()
        names = ("counters", "tenant-totals", "activity")
        none_behind = {f"projection.{name}": Lag(0, 0.0) for name in names}
        assert Health((), none_behind) == await running.health()


async def test_two_logs_are_folded_side_by_side(world: World) -> None:
    """Each read model follows its own, and the stream's copy of the audited one proves the view."""
    stores = {**world.bindings.stores, "tenant": world.bindings.stores["counter"] + ".tenant"}
    bindings = replace(world.bindings, stores=stores, logs=(LOG, "tenant"))
    async with open_store(stores["tenant"], service="tenant") as store:
        tenants = Log(store, world.js, "tenant")
        await world.create_stream()
        await world.js.add_stream(name=event_stream("tenant"), subjects=[event_subjects("tenant")])
        stream = StreamId("acme/tenant/acme")
        for n, event in enumerate((CREATED, ACTIVATED)):
            await tenants.append(stream, n, event)
        await world.count("c", 2)
        await world.relay()
        async with compose(bindings):
            await world.stands("c", 2)
            context = Context("acme", "c", consistency_token="acme/tenant/acme@2")
            asked = Request(ListTenants.subject, b"{}", context)
            answer = await world.bus.request(asked)
            [entry] = TenantPage.model_validate_json(answer.body).items
            assert ("active", 2) == (entry.status, entry.version)
            await world.bus.request(replace(asked, subject=GetAuditHead.subject))
            assert 7 == len((await world.health()).lag)
        view = AuditView()
        async with LibsqlViews.open(stores["projector"], service="projector") as views:
            parts = (view, view, views, store, read_stream(world.bindings.nats_url, "tenant"))
            verified = await Audit(*parts, place="stream").run()
            assert (None, 2) == (verified.difference, verified.entries)
    await world.js.delete_stream(event_stream("tenant"))


async def test_it_goes_on_where_it_was(world: World) -> None:
    await world.create_stream()
    await world.count("c", 3)
    await world.relay()
    async with compose(world.bindings):
        await world.stands("c", 3)
    await world.count("c", 4)
    await world.relay()

    async with compose(world.bindings):
        await world.stands("c", 7)
        assert 8 == (await world.get("c")).version


async def test_it_starts_before_there_is_a_stream(world: World) -> None:
    """And is well again once there is one."""
    async with compose(world.bindings):

        async def troubled() -> bool:
            return any("EVT_COUNTER" in text for text in (await world.health()).missing)

        await eventually(troubled, what="it says what is missing")
        await world.create_stream()
        await world.count("c", 1)
        await world.relay()

        await world.stands("c", 1)
        await world.well()


async def test_what_the_stream_has_no_more_is_read_from_the_store(world: World) -> None:
    await world.count("old", 4)
    entries = await world.record()
    await world.create_stream(first=4)
    for entry in entries[3:]:
        await world.publish(entry)

    async with compose(world.bindings):
        await world.stands("old", 4)
        await world.well()


async def test_health_says_how_far_it_is_behind(world: World) -> None:
    """Measured against what is committed, published or not."""
    await world.create_stream()
    await world.count("c", 2)
    await world.relay()
    async with compose(world.bindings):
        await world.stands("c", 2)
        assert ("svc-projector", True) == ((found := await world.well()).service, found.ready)

        await world.count("c", 5)

        behind = (await world.health()).lag["projection.counters"]
        assert 5 == behind.events
        await world.relay()
        await world.well()


async def test_something_foreign_on_the_stream_stops_it_and_it_says_so(world: World) -> None:
    await world.create_stream()
    await world.count("c", 1)
    await world.relay()

    async with compose(world.bindings):
        await world.stands("c", 1)
        await world.js.publish(event_subject(LOG, "acme", "counter.opened.v1"), b"{}")

        async def halted() -> HealthReply | None:
            found = await world.health()
            return found if any("halted" in text for text in found.missing) else None

        found = await eventually(halted, within_s=LIMIT_S)
        assert not found.ready
        assert "message 3" in found.missing[0]
        assert 1 == (await world.get("c")).value, "what it knows it still answers"


async def test_poison_is_parked_and_a_retry_over_the_bus_frees_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole life of it: neighbours flow, health tells, a restart forgets nothing, a retry cures."""
    sick = True
    fold = CounterView.apply

    async def apply(self: CounterView, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        if sick and any(e.stream.endswith("/bad") and e.version == 2 for e in batch):
            raise KeyError("what this version does not know")
        await fold(self, view, batch)

    monkeypatch.setattr(CounterView, "apply", apply)
    await world.create_stream()
    await world.count("bad", 2)
    await world.count("good", 2)
    await world.relay()
    for _ in range(2):
        async with compose(world.bindings):
            await world.count("good", 1)
            await world.relay()
            await world.stands("good", world.value("good"))
            await world.stands("bad", 0)

            async def told() -> LagReply | None:
                return (await world.health()).lag.get("parked.counters")

            assert 2 == (await eventually(told, what="it says what is parked")).events
            assert (await world.health()).ready, "one bad event takes nobody's reads away"
            with pytest.raises(Rejected, match="offset 2: KeyError"):
                await world.retry("acme/counter/bad")

    async with compose(world.bindings):
        await world.stands("good", 4)
        sick = False
        assert 2 == await world.retry("acme/counter/bad")
        await world.stands("bad", 2)
        await world.count("bad", 1)
        await world.relay()
        await world.stands("bad", 3)
        found = await world.well()
        assert "parked.counters" not in found.lag
        for projection, key in (("counters", "acme/counter/bad"), ("nobody", "x")):
            with pytest.raises(Rejected):
                await world.retry(key, projection)


async def test_totals_and_activity_are_answered_and_every_projection_leaves_a_sign_of_life(
    world: World,
) -> None:
    await world.create_stream()
    await world.count("c", 3)
    await world.relay()
    async with compose(world.bindings):
        await world.well()
        body = (await world.ask(GetTenantTotals.subject)).body
        assert TenantTotals(counters=1, value_sum=3, events=4) == (
            TenantTotals.model_validate_json(body)
        )
        page = ActivityPage.model_validate_json((await world.ask(ListActivity.subject)).body)
        assert [4, 3, 2, 1] == [item.offset for item in page.items]
        with pytest.raises(Rejected, match="limit"):
            await world.ask(ListActivity.subject, b'{"limit": 0}')

        url = world.bindings.stores["projector"]
        async with LibsqlViews.open(url, service="projector") as views:

            async def alive() -> bool:
                return len(await heartbeats(views)) == 3

            await eventually(alive, within_s=LIMIT_S, what="three signs of life")
            assert {"": 3} == dict(Counter(sign.trouble for sign in await heartbeats(views)))


async def test_it_survives_a_killed_broker(tmp_path: Path) -> None:
    async with run_nats(tmp_path / "nats") as server, a_world(tmp_path, server) as world:
        await world.create_stream()
        await world.count("c", 3)
        await world.relay()
        async with compose(world.bindings):
            await world.stands("c", 3)
            for round_ in (1, 2):
                await server.kill()
                await world.count("c", 1)

                async def troubled() -> bool:
                    return not (await world.health()).ready

                await eventually(troubled, within_s=LIMIT_S, what="the outage shows")
                assert 2 + round_ == (await world.get("c")).value, "what it knows it still answers"
                await server.start()

                async def relayed() -> bool:
                    try:
                        async with asyncio.timeout(5):
                            await world.js.stream_info(STREAM)
                    except Exception:  # noqa: BLE001 - whatever a broker that starts is down with
                        return False
                    return True

                await eventually(relayed, within_s=LIMIT_S)
                await world.relay()
                await world.stands("c", 3 + round_)
                await world.well()


async def test_a_setting_that_makes_no_sense_refuses_to_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create_stream()
    monkeypatch.setenv("FLOTILLA_PROJECTOR_WAIT_MAX_S", "-1")

    with pytest.raises(StartRefused, match="FLOTILLA_PROJECTOR_WAIT_MAX_S"):
        async with compose(world.bindings):
            pass


async def test_without_a_broker_it_refuses_to_start_and_says_where_it_looked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create_stream()
    monkeypatch.setattr("flotilla.nats.CONNECT_TIMEOUT_S", 0.2)

    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        async with compose(replace(world.bindings, nats_url="nats://127.0.0.1:1")):
            pass


# How old a view is.


class Ages:
    """A view that has applied `applied` of the events, by a clock that is moved by hand."""

    def __init__(self, views: LibsqlViews) -> None:
        self.clock = ManualClock()
        self.source = MemoryStore(self.clock)
        self.projector = Projector(CounterView(), views, self.source)

    async def commit(self, *, publish: bool = True) -> None:
        n = (await self.source.status()).committed + 1
        event = new_event(f'{{"counter_id":"{n}"}}', kind=CounterOpened.type)
        append = Append(
            StreamId(f"acme/counter/{n}"), (await self.source.load(StreamId("-"))).version, (event,)
        )
        await self.source.commit([Unit((append,))])
        if publish:
            await self.source.record([(n, Offset(n))])

    async def catch_up(self) -> None:
        await self.projector.start()
        await self.projector._close_gap(Offset(await self.source.last_offset() + 1))

    async def health(self) -> Health:
        running = RunningProjection(self.projector, Background("projection"), "lease", set())
        return await health_of([running], self.projector.views, [], self.clock)


@pytest.fixture
async def ages(tmp_path: Path) -> AsyncIterator[Ages]:
    view = CounterView()
    async with LibsqlViews.open(f"libsql://{tmp_path}/views.db", service="projector") as views:
        await views.migrate(view.name, view.tables)
        yield Ages(views)


async def test_a_view_that_has_everything_is_not_old(ages: Ages) -> None:
    assert {"projection.counters": Lag(0, 0.0)} == (await ages.health()).lag
    await ages.commit()
    await ages.catch_up()
    ages.clock.advance(3600)

    assert Health((), {"projection.counters": Lag(0, 0.0)}) == await ages.health()


@pytest.mark.parametrize("publish", [True, False])
async def test_a_view_is_as_old_as_the_oldest_event_it_lacks(ages: Ages, publish: bool) -> None:
    """Not as the last one it has: the first event after a quiet night is no emergency."""
    await ages.commit()
    await ages.catch_up()
    ages.clock.advance(3600)

    await ages.commit(publish=publish)
    ages.clock.advance(2)
    await ages.commit(publish=publish)

    assert Health((), {"projection.counters": Lag(2, 2.0)}) == await ages.health()


@pytest.mark.parametrize("publish", [True, False])
async def test_a_view_that_never_began_is_late_too(ages: Ages, publish: bool) -> None:
    await ages.commit(publish=publish)
    ages.clock.advance(60)

    found = await ages.health()

    assert {"projection.counters": Lag(1, 60.0)} == found.lag
    assert ("counters is 60.0 s behind; 5.0 allowed",) == found.missing
