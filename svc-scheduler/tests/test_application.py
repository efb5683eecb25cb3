"""The service as it runs: asked over a bus, firing by the store's clock, on every store."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from flotilla import (
    Answer,
    Bindings,
    Context,
    GroupCommitter,
    KernelError,
    Request,
    Running,
    SystemClock,
    stream_id,
    uuid7,
)
from flotilla.background import background
from flotilla.buses.local import LocalBus
from flotilla.embedded import PostgresServer
from flotilla.embedded.nats import NatsServer
from flotilla.embedded.postgres_clients import DATABASE
from flotilla.outbox import Offset
from flotilla.stores import ServiceStore, open_store
from flotilla.stores.memory import MemoryStore
from flotilla.testing import eventually
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.scheduler import (
    SCHEDULE_COMMANDS,
    DeclareSchedules,
    GetSchedule,
    OccurrencesReply,
    PreviewOccurrences,
    ScheduleErrorCode,
    ScheduleReply,
)
from svc_scheduler.application import Schedules
from svc_scheduler.declaring import Declarations, of_workflows
from svc_scheduler.domain.schedule import decider
from svc_scheduler.firing import Firing
from svc_scheduler.main import compose, lanes_of

SUBJECTS = {
    kind.__name__.removesuffix("Schedule").lower(): kind.subject for kind in SCHEDULE_COMMANDS
}


@dataclass
class World:
    """The service on a bus, and its store. Every command has a key of its own unless it says one."""

    bus: LocalBus
    store: ServiceStore

    async def ask(self, subject: str, body: dict[str, Any], **context: Any) -> Answer:
        context = {"tenant": "acme", "correlation_id": "c"} | context
        return await self.bus.request(
            Request(subject, json.dumps(body).encode(), Context(**context))
        )

    async def tell(self, verb: str, name: str = "s", **terms: Any) -> ScheduleReply:
        answer = await self.answer(verb, name, **terms)
        return ScheduleReply.model_validate_json(answer.body)

    async def answer(
        self, verb: str, name: str = "s", key: str | None = None, **terms: Any
    ) -> Answer:
        body = {"schedule_id": name} | terms
        return await self.ask(SUBJECTS[verb], body, idempotency_key=key or str(uuid7()))

    async def get(self, name: str = "s") -> ScheduleReply:
        answer = await self.ask(GetSchedule.subject, {"schedule_id": name})
        return ScheduleReply.model_validate_json(answer.body)

    async def declare(self, *schedules: dict[str, Any], owner: str = "workflows") -> Answer:
        body = {"owner": owner, "schedules": list(schedules)}
        return await self.ask(DeclareSchedules.subject, body)

    async def events(self, name: str = "s") -> list[dict[str, Any]]:
        stored = await self.store.read(stream_id("acme", "schedule", name))
        return [{"type": event.type, **json.loads(event.payload)} for event in stored]

    async def fired(self, name: str = "s") -> list[datetime]:
        told = [e for e in await self.events(name) if e["type"] == "schedule.fired.v1"]
        return [datetime.fromisoformat(e["occurrence"]) for e in told]

    async def now(self) -> datetime:
        return (await self.store.claim("schedule", limit=0, lease_s=1)).now


def bindings(url: str, nats_url: str, bus: LocalBus, seed: int = 1) -> Bindings:
    return Bindings(
        stores={"scheduler": url},
        nats_url=nats_url,
        bus=bus,
        clock=SystemClock(),
        ids=uuid7,
        chance=random.Random(seed),
        services=("scheduler",),
        logs=("scheduler",),
    )


@asynccontextmanager
async def in_memory() -> AsyncIterator[World]:
    """Build it by hand, without a list."""
    store, bus = MemoryStore(), LocalBus()
    bound = bindings("memory://", "", bus)
    lanes, wishes = lanes_of(store, GroupCommitter(store), bound, 3)
    schedules = Schedules(decider(), lanes.settle, store, 3600)
    for kind in SCHEDULE_COMMANDS:
        await bus.serve(kind.subject, schedules.command_handler(kind))
    await bus.serve(GetSchedule.subject, schedules.get)
    await bus.serve(DeclareSchedules.subject, Declarations(schedules, wishes.settle).declare)
    await bus.serve(PreviewOccurrences.subject, schedules.preview)
    firing = Firing(schedules.tell, store, bound.clock, poll_max_s=0.05)
    async with background("fire", firing.run, clock=bound.clock, chance=bound.chance):
        yield World(bus, store)


@asynccontextmanager
async def deployed(url: str, nats_url: str) -> AsyncIterator[World]:
    """Compose the service as its `main.py` does."""
    bound = bindings(url, nats_url, bus := LocalBus())
    async with compose(bound), open_store(url, service="scheduler") as store:
        yield World(bus, store)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hear soon of what others made due, and remember states all the time."""
    monkeypatch.setenv("FLOTILLA_SCHEDULER_POLL_MAX_MS", "50")
    monkeypatch.setenv("FLOTILLA_SCHEDULER_SNAPSHOT_EVERY_EVENTS", "3")


async def database(server: PostgresServer) -> str:
    """Return the URL of a database of our own."""
    name = f"s{uuid4().hex[:12]}"
    connection = await asyncpg.connect(server.dsn, timeout=10)
    try:
        await connection.execute(f"create database {name}", timeout=20)
    finally:
        await connection.close(timeout=10)
    return server.dsn.replace(f"@/{DATABASE}?", f"@/{name}?", 1)


@pytest.fixture(params=["memory", "libsql", "postgres"])
async def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    nats_server: NatsServer,
    postgres_server: PostgresServer,
) -> AsyncIterator[World]:
    match request.param:
        case "memory":
            made = in_memory()
        case "libsql":
            made = deployed(f"libsql://{tmp_path}/scheduler.db", nats_server.url)
        case _:
            made = deployed(await database(postgres_server), nats_server.url)
    async with made as found:
        yield found


@pytest.fixture
async def service(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[World]:
    async with deployed(f"libsql://{tmp_path}/scheduler.db", nats_server.url) as found:
        yield found


async def refused(world: World, code: str, verb: str = "create", **terms: Any) -> None:
    before = (await world.store.status()).committed
    with pytest.raises(KernelError) as refusal:
        await world.tell(verb, **terms)
    assert code == refusal.value.code
    assert before == (await world.store.status()).committed


def dense(occurrences: list[datetime], every_s: int) -> bool:
    step = timedelta(seconds=every_s)
    return all(b - a == step for a, b in pairwise(occurrences))


async def test_a_timer_fires_once_with_its_payload_and_not_early(world: World) -> None:
    at = await world.now() + timedelta(seconds=0.3)

    created = await world.tell("create", at=at.isoformat(), payload={"order": "o-1", "paid": True})
    assert ("active", at) == (created.status, created.next)

    async def done() -> bool:
        return (await world.get()).status == "done"

    await eventually(done, what="it fires")
    [event] = [e for e in await world.events() if e["type"] == "schedule.fired.v1"]
    assert {"order": "o-1", "paid": True} == event["payload"]
    assert at == datetime.fromisoformat(event["occurrence"])
    assert event["late_by_s"] >= 0
    stored = await world.store.read(stream_id("acme", "schedule", "s"))
    assert stored[-1].recorded_at >= at


async def test_an_interval_fires_on_and_on_and_is_paused_resumed_and_deleted(world: World) -> None:
    await world.tell("create", every_s=1)

    async def fires() -> bool:
        return (await world.get()).fired >= 2

    await eventually(fires, what="it fires twice")
    assert "paused" == (await world.tell("pause")).status
    at_pause = await world.fired()
    assert dense(at_pause, 1)
    assert "active" == (await world.tell("resume")).status
    assert "deleted" == (await world.tell("delete")).status
    await refused(world, ScheduleErrorCode.NOT_FOUND, "pause")
    with pytest.raises(KernelError, match="no schedule"):
        await world.get()


async def test_a_retry_with_the_same_key_is_one(world: World) -> None:
    await world.tell("create", every_s=3600)
    first = await world.answer("fire", key="k")
    again = await world.answer("fire", key="k")

    assert (first.body, True) == (again.body, again.replayed)
    assert 1 == len(await world.fired())


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"cron": "0 3 * *"}, ScheduleErrorCode.CRON_INVALID),
        ({"cron": "0 3 31 2 *"}, ScheduleErrorCode.NEVER_FIRES),
        ({"cron": "0 3 * * *", "time_zone": "Mars/Base"}, ScheduleErrorCode.ZONE_UNKNOWN),
        ({"at": "2001-01-01T00:00:00Z"}, ScheduleErrorCode.IN_THE_PAST),
        ({}, ScheduleErrorCode.TIMING_INVALID),
        ({"at": "2001-01-01T00:00:00"}, ErrorCode.INVALID_REQUEST),
        ({"every_s": 0}, ErrorCode.INVALID_REQUEST),
        ({"every_s": 5, "grase_s": 1}, ErrorCode.INVALID_REQUEST),
        ({"every_s": 5, "missed": "perhaps"}, ErrorCode.INVALID_REQUEST),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    service: World, terms: dict[str, Any], code: str
) -> None:
    await refused(service, code, **terms)


async def test_occurrences_can_be_looked_at_before_anything_is_created(world: World) -> None:
    body = {"cron": "30 2 * * *", "time_zone": "Europe/Vienna", "limit": 2}
    after = {"after": "2026-03-28T12:00:00+01:00"}
    answer = await world.ask(PreviewOccurrences.subject, body | after)

    found = OccurrencesReply.model_validate_json(answer.body)
    assert ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"] == [
        item.local for item in found.items
    ]


async def test_declared_schedules_are_there_once_and_removed_ones_are_paused(world: World) -> None:
    nightly = {"schedule_id": "nightly", "cron": "0 3 * * *", "time_zone": "Europe/Vienna"}
    hourly = {"schedule_id": "hourly", "every_s": 3600}

    for _ in range(2):
        answer = await world.declare(nightly, hourly)
    assert {"declared": 2, "paused": 0} == json.loads(answer.body)
    assert 1 == len(await world.events("nightly"))

    answer = await world.declare(nightly)
    assert {"declared": 1, "paused": 1} == json.loads(answer.body)
    assert "paused" == (await world.get("hourly")).status
    assert 2 == len(await world.events("hourly"))

    await world.declare(nightly | {"cron": "0 4 * * *"}, hourly)
    assert "0 4 * * *" == (await world.get("nightly")).terms.cron
    assert "active" == (await world.get("hourly")).status


async def test_a_wrong_declaration_changes_nothing(world: World) -> None:
    with pytest.raises(KernelError, match="did you mean"):
        await world.declare(
            {"schedule_id": "a", "every_s": 5},
            {"schedule_id": "b", "cron": "0 3 * * *", "time_zone": "Europe/Viena"},
        )
    assert [] == await world.events("a")


async def relay(store: ServiceStore) -> None:
    """Give every event its offset, as the relay does."""
    entries, last = await store.pending(limit=1000), await store.last_offset()
    await store.record([(e.position, Offset(last + n)) for n, e in enumerate(entries, start=1)])


async def test_two_replicas_on_postgres_fire_each_occurrence_once(
    nats_server: NatsServer, postgres_server: PostgresServer
) -> None:
    """And when one of them stops, the other goes on without a gap."""
    url, names = await database(postgres_server), [f"s{n:02}" for n in range(20)]
    async with AsyncExitStack() as stack:
        one, two = LocalBus(), LocalBus()
        await stack.enter_async_context(compose(bindings(url, nats_server.url, one, 1)))
        dying: Running | None = None
        other = AsyncExitStack()
        dying = await other.enter_async_context(compose(bindings(url, nats_server.url, two, 2)))
        assert "svc-scheduler" == dying.name
        store = await stack.enter_async_context(open_store(url, service="scheduler"))
        worlds = [World(one, store), World(two, store)]
        for n, name in enumerate(names):
            await worlds[n % 2].tell("create", name, every_s=1, missed="all", missed_max=100)

        async def fired(times: int) -> None:
            async def all_have() -> bool:
                counts = [len(await worlds[0].fired(name)) for name in names]
                return min(counts) >= times

            await eventually(all_have, what=f"each fires {times} times", within_s=20)

        await fired(2)
        await other.aclose()
        await fired(4)
        for name in names:
            occurrences = await worlds[0].fired(name)
            assert dense(occurrences, 1), (name, occurrences)


async def test_one_schedule_that_cannot_be_read_does_not_stop_the_others(world: World) -> None:
    from flotilla.store import EMPTY, Append, Unit, Wake  # noqa: PLC0415 - of this test alone
    from flotilla.testing import new_event  # noqa: PLC0415 - of this test alone

    broken = new_event('{"schedule_id": 5}', kind="schedule.created.v1")
    long_ago = Wake(datetime(2001, 1, 1, tzinfo=UTC))
    stream = stream_id("acme", "schedule", "broken")
    await world.store.commit([Unit((Append(stream, EMPTY, (broken,), wake=long_ago),))])

    await world.tell("create", every_s=1)

    async def fires() -> bool:
        return (await world.get()).fired >= 1

    await eventually(fires, what="the other one fires")


async def test_it_says_how_it_is(service: World) -> None:
    answer = await service.ask("qry.scheduler.get-health", {})
    said = json.loads(answer.body)
    assert (True, {"schedules"}) == (said["ready"], set(said["lag"]))


async def test_what_was_due_while_nobody_ran_is_settled_when_somebody_does(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    url = f"libsql://{tmp_path}/scheduler.db"
    async with deployed(url, nats_server.url) as world:
        await world.tell("create", every_s=1, missed="skip", grace_s=0)
    await asyncio.sleep(2.2)  # time that really passes: the store's clock is the machine's
    async with deployed(url, nats_server.url) as world:

        async def settled() -> bool:
            return (await world.get()).missed >= 2

        await eventually(settled, what="what was missed is known")
        events = await world.events()
        assert {"schedule.missed.v1"} <= {event["type"] for event in events}


async def test_workflows_that_have_times_are_declared_when_it_starts(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    """And their schedules are paused when they are gone from the model."""
    times = {"cron": "0 3 * * *", "time_zone": "Europe/Vienna"}
    workflows = {
        "nightly.yaml": {"name": "nightly", "trigger": {"schedule": times}},
        "onboarding.yaml": {"name": "onboarding", "trigger": {"event": "tenant.created.v1"}},
    }
    url, bus = f"libsql://{tmp_path}/scheduler.db", LocalBus()
    for documents, status in ((workflows, "active"), (workflows, "active"), ({}, "paused")):
        bound = replace(bindings(url, nats_server.url, bus), workflows=documents)
        async with compose(bound), open_store(url, service="scheduler") as store:
            name = stream_id("-", "schedule", "workflow.nightly")

            async def declared(status: str = status, bus: LocalBus = bus) -> bool:
                world = World(bus, store)
                body = {"schedule_id": "workflow.nightly"}
                try:
                    answer = await world.ask(GetSchedule.subject, body, tenant="-")
                except KernelError:
                    return False
                return bool(status == json.loads(answer.body)["status"])

            await eventually(declared, what=f"it is {status}")
            count = len(await store.read(name))
        bus = LocalBus()
    assert 2 == count, "created once, paused once"


def test_wrong_times_of_a_workflow_are_told_with_their_file() -> None:
    wrong = {"nightly.yaml": {"name": "nightly", "trigger": {"schedule": {"cron": "0 3 * *"}}}}
    with pytest.raises(KernelError, match=r"nightly\.yaml: .*five"):
        of_workflows(wrong)
