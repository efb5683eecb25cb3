"""What counters answer over a bus: on the in-memory store, and as the service is deployed."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from flotilla import (
    Aggregate,
    Answer,
    Bindings,
    Context,
    ContractCodec,
    GroupCommitter,
    Health,
    KernelError,
    Lanes,
    Rejected,
    Request,
    StreamId,
    SystemClock,
    Unavailable,
    Version,
    execute,
    uuid7,
)
from flotilla.buses.local import LocalBus
from flotilla.embedded import NatsServer, run_nats
from flotilla.nats import connected
from flotilla.settings import StartRefused
from flotilla.store import EMPTY, Append, Outcome, Unit
from flotilla.stores import ServiceStore, open_store
from flotilla.stores.libsql import LibsqlStore
from flotilla.stores.memory import MemoryStore
from flotilla.testing import eventually, new_event
from flotilla_contracts.counter import (
    BY_MAX,
    COMMANDS,
    EVENTS,
    PAGE_SIZE_MAX,
    CounterReply,
    DecrementCounter,
    GetCounterHistory,
    HistoryPage,
    IncrementCounter,
    ResetCounter,
)
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.health import HealthReply, health_subject
from flotilla_contracts.wire import doorbell_subject
from svc_counter.application import Counters
from svc_counter.domain.counter import Bounds, Command, Counter, Event, decider
from svc_counter.main import CounterSnapshots, compose

UPPER = 1000
LOWER = -500
UP, DOWN, RESET = (kind.subject for kind in (IncrementCounter, DecrementCounter, ResetCounter))
HISTORY = GetCounterHistory.subject


@dataclass
class World:
    """The service on a bus, and its store. Every command has a key of its own unless it says one."""

    bus: LocalBus
    store: ServiceStore

    async def ask(self, subject: str, body: str, **context: Any) -> Answer:
        context = {"tenant": "acme", "correlation_id": "conversation"} | context
        return await self.bus.request(Request(subject, body.encode(), Context(**context)))

    async def command(
        self, subject: str, name: str = "c", by: int | None = None, **context: Any
    ) -> Answer:
        body: dict[str, object] = {"counter_id": name}
        if by is not None:
            body["by"] = by
        context = {"idempotency_key": str(uuid7())} | context
        return await self.ask(subject, json.dumps(body), **context)

    async def up(self, by: int = 1, name: str = "c", **context: Any) -> Answer:
        return await self.command(UP, name, by, **context)

    async def down(self, by: int = 1, name: str = "c", **context: Any) -> Answer:
        return await self.command(DOWN, name, by, **context)

    async def reset(self, name: str = "c", **context: Any) -> Answer:
        return await self.command(RESET, name, **context)

    async def history(self, name: str = "c", *, tenant: str = "acme", **query: int) -> HistoryPage:
        body = json.dumps({"counter_id": name} | query)
        return HistoryPage.model_validate_json((await self.ask(HISTORY, body, tenant=tenant)).body)

    async def committed(self) -> int:
        return (await self.store.status()).committed


async def in_memory() -> World:
    """Build the handlers by hand."""
    store, bus = MemoryStore(), LocalBus()
    rules = decider(Bounds(LOWER, UPPER))
    aggregate: Aggregate[Command, Counter, Event] = Aggregate(
        rules,
        ContractCodec(EVENTS),
        store,
        GroupCommitter(store).commit,
        SystemClock(),
        uuid7,
        random.Random(1),
        CounterSnapshots(every_events=3),
    )
    counters = Counters(rules, Lanes(partial(execute, aggregate)).settle, store, 3600)
    for kind in COMMANDS:
        await bus.serve(kind.subject, counters.command_handler(kind))
    await bus.serve(HISTORY, counters.history)
    return World(bus, store)


def bindings(folder: Path, nats_url: str, bus: LocalBus) -> Bindings:
    return Bindings(
        stores={"counter": f"libsql://{folder}/counter.db"},
        nats_url=nats_url,
        bus=bus,
        clock=SystemClock(),
        ids=uuid7,
        chance=random.Random(1),
        services=("counter",),
        logs=("counter",),
    )


@asynccontextmanager
async def deployed(folder: Path, nats_url: str) -> AsyncIterator[World]:
    """Compose the service as its `main.py` does."""
    bound = bindings(folder, nats_url, bus := LocalBus())
    async with compose(bound), open_store(bound.stores["counter"], service="counter") as store:
        yield World(bus, store)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test can reach, and snapshots all the time."""
    monkeypatch.setenv("FLOTILLA_COUNTER_UPPER_BOUND", str(UPPER))
    monkeypatch.setenv("FLOTILLA_COUNTER_LOWER_BOUND", str(LOWER))
    monkeypatch.setenv("FLOTILLA_COUNTER_SNAPSHOT_EVERY_EVENTS", "3")


@pytest.fixture(params=["in memory", "deployed"])
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, nats_server: NatsServer
) -> AsyncIterator[World]:
    if request.param == "in memory":
        yield await in_memory()
    else:
        async with deployed(tmp_path, nats_server.url) as world:
            yield world


@pytest.fixture
async def service(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[World]:
    async with deployed(tmp_path, nats_server.url) as world:
        yield world


def stands(answer: Answer) -> tuple[int, int]:
    """Return (value, version) of a command's answer, which says the version twice."""
    reply = CounterReply.model_validate_json(answer.body)
    assert answer.replayed or reply.version == answer.version
    return reply.value, reply.version


# Counting.


async def test_commands_answer_where_the_counter_stands(world: World) -> None:
    answers = [
        await world.up(5),
        await world.down(7),
        await world.up(1),
        await world.reset(),
        await world.reset(),
        await world.down(2),
    ]

    assert [(5, 2), (-2, 3), (-1, 4), (0, 5), (0, 5), (-2, 6)] == [stands(a) for a in answers]
    assert not any(answer.replayed for answer in answers)
    assert {"c"} == {CounterReply.model_validate_json(a.body).counter_id for a in answers}


@pytest.mark.parametrize(
    ("subject", "by", "expected"), [(UP, 3, (3, 2)), (DOWN, 3, (-3, 2)), (RESET, None, (0, 1))]
)
async def test_the_first_use_opens_a_counter(
    world: World, subject: str, by: int | None, expected: tuple[int, int]
) -> None:
    assert expected == stands(await world.command(subject, by=by))
    assert "counter.opened.v1" == (await world.history()).items[0].type


async def test_counters_do_not_count_each_other(world: World) -> None:
    await world.up(1, "a")
    await world.up(2, "b")

    assert (11, 3) == stands(await world.up(10, "a"))


async def test_tenants_have_counters_of_their_own(world: World) -> None:
    await world.up(1)

    assert (5, 2) == stands(await world.up(5, tenant="rival"))
    assert (2, 3) == stands(await world.up(1))
    assert 2 == len((await world.history(tenant="rival")).items)


async def test_a_hundred_at_once_are_all_counted_and_each_gets_its_own_version(
    world: World,
) -> None:
    answers = await asyncio.gather(*(world.up(1) for _ in range(100)))

    assert [(n, n + 1) for n in range(1, 101)] == sorted(stands(a) for a in answers)


async def test_events_carry_the_conversation_that_led_to_them(world: World) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await world.up(1, causation_id="because", traceparent=trace)

    events = await world.store.read(StreamId("acme/counter/c"))

    expected = {"correlation": "conversation", "causation": "because"}
    for event in events:
        assert expected.items() <= event.metadata.items()
        assert trace.split("-")[1] == event.metadata["traceparent"].split("-")[1]


# Once and only once.


async def test_the_same_key_gets_the_same_bytes_and_counts_once(world: World) -> None:
    first = await world.up(5, idempotency_key="k")
    await world.up(1)

    again = await world.up(5, idempotency_key="k")

    assert (first.body, True) == (again.body, again.replayed)
    assert (7, 4) == stands(await world.up(1))


async def test_a_body_that_means_the_same_is_the_same(world: World) -> None:
    first = await world.ask(UP, '{"counter_id": "c", "by": 5}', idempotency_key="k")
    again = await world.ask(UP, '{ "by":5,"counter_id":"\\u0063" }', idempotency_key="k")

    assert (first.body, True) == (again.body, again.replayed)


async def test_what_changed_nothing_is_remembered_too(world: World) -> None:
    first = await world.reset(idempotency_key="k")
    await world.up(5)

    again = await world.reset(idempotency_key="k")

    assert (first.body, True) == (again.body, again.replayed)
    assert (6, 3) == stands(await world.up(1))


async def test_fifty_twins_at_once_count_once(world: World) -> None:
    answers = await asyncio.gather(*(world.up(5, idempotency_key="k") for _ in range(50)))

    assert 1 == len({answer.body for answer in answers})
    assert 49 == sum(answer.replayed for answer in answers)
    assert 2 == await world.committed()


@pytest.mark.parametrize(
    ("subject", "name", "by"),
    [(UP, "c", 6), (UP, "other", 5), (DOWN, "c", 5), (RESET, "c", None)],
    ids=["another step", "another counter", "another command", "a reset"],
)
async def test_a_key_that_was_used_for_something_else_is_refused(
    world: World, subject: str, name: str, by: int | None
) -> None:
    await world.up(5, idempotency_key="k")

    await refused(
        world.command(subject, name, by, idempotency_key="k"), ErrorCode.IDEMPOTENCY_KEY_REUSED
    )

    assert 2 == await world.committed()


async def test_another_tenants_key_is_another_key(world: World) -> None:
    await world.up(5, idempotency_key="k")

    theirs = await world.up(7, "theirs", idempotency_key="k", tenant="rival")

    assert (False, (7, 2)) == (theirs.replayed, stands(theirs))


async def test_a_refused_command_does_not_use_up_its_key(world: World) -> None:
    await refused(world.up(UPPER + 1, idempotency_key="k"), ErrorCode.COUNTER_UPPER_BOUND_PASSED)

    assert (1, 2) == stands(await world.up(1, idempotency_key="k"))


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, ErrorCode.IDEMPOTENCY_KEY_MISSING),
        ("", ErrorCode.IDEMPOTENCY_KEY_MISSING),
        ("k" * 256, ErrorCode.IDEMPOTENCY_KEY_INVALID),
    ],
)
async def test_a_command_without_a_usable_key_is_refused(
    world: World, key: str | None, code: ErrorCode
) -> None:
    await refused(world.up(1, idempotency_key=key), code)

    assert 0 == await world.committed()
    assert (1, 2) == stands(await world.up(1, idempotency_key="k" * 255))


# Depending on a version.


async def test_a_command_may_depend_on_the_version_that_its_sender_saw(world: World) -> None:
    assert (1, 2) == stands(await world.up(1, expected_version=Version(0)))
    assert (2, 3) == stands(await world.up(1, expected_version=Version(2)))

    for wrong in (0, 2, 4):
        await refused(world.up(1, expected_version=Version(wrong)), ErrorCode.VERSION_MISMATCH)

    assert 3 == await world.committed()


async def test_a_replay_is_answered_whatever_version_it_depended_on(world: World) -> None:
    first = await world.up(1, expected_version=Version(0), idempotency_key="k")
    await world.up(1)

    again = await world.up(1, expected_version=Version(0), idempotency_key="k")

    assert (first.body, True) == (again.body, again.replayed)


async def test_of_twenty_who_saw_the_same_version_one_wins(world: World) -> None:
    answers = await asyncio.gather(
        *(world.up(1, expected_version=Version(0)) for _ in range(20)), return_exceptions=True
    )

    lost = [answer for answer in answers if isinstance(answer, KernelError)]
    assert {ErrorCode.VERSION_MISMATCH} == {error.code for error in lost}
    assert 19 == len(lost)


# What is refused.


async def refused(asking: Any, code: str, family: type[KernelError] = Rejected) -> KernelError:
    with pytest.raises(family) as refusal:
        await asking
    assert code == refusal.value.code
    return refusal.value


async def test_bounds_are_kept_and_refusals_say_which(world: World) -> None:
    await world.up(UPPER)
    error = await refused(world.up(1), ErrorCode.COUNTER_UPPER_BOUND_PASSED)
    assert f"{UPPER} + 1 would pass {UPPER}" == str(error)

    await world.down(UPPER - LOWER)
    await refused(world.down(1), ErrorCode.COUNTER_LOWER_BOUND_PASSED)

    assert (LOWER + 1, 4) == stands(await world.up(1))


async def test_a_refused_first_use_leaves_nothing(world: World) -> None:
    await refused(world.up(UPPER + 1), ErrorCode.COUNTER_UPPER_BOUND_PASSED)

    assert 0 == await world.committed()
    await refused(world.ask(HISTORY, '{"counter_id": "c"}'), ErrorCode.COUNTER_NOT_FOUND)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"counter_id": "c"}',
        '{"counter_id": "c", "by": 0}',
        '{"counter_id": "c", "by": -1}',
        f'{{"counter_id": "c", "by": {BY_MAX + 1}}}',
        '{"counter_id": "c", "by": 1.0}',
        '{"counter_id": "c", "by": "1"}',
        '{"counter_id": "c", "by": true}',
        '{"counter_id": "c", "by": NaN}',
        '{"counter_id": "c", "by": 1, "more": 1}',
        '{"counter_id": "", "by": 1}',
        '{"counter_id": "a/b", "by": 1}',
        '{"counter_id": "..", "by": 1}',
        '{"counter_id": "c\\u0000", "by": 1}',
        '{"counter_id": "c\\n", "by": 1}',
        f'{{"counter_id": "{"c" * 65}", "by": 1}}',
    ],
)
async def test_a_body_that_is_no_command_is_refused(world: World, body: str) -> None:
    await refused(world.ask(UP, body, idempotency_key="k"), ErrorCode.INVALID_REQUEST)

    assert 0 == await world.committed()


@pytest.mark.parametrize("tenant", ["", "a/b", "/"])
async def test_a_tenant_that_cannot_be_one_is_refused(world: World, tenant: str) -> None:
    await refused(world.up(1, tenant=tenant), ErrorCode.TENANT_INVALID)
    await refused(
        world.ask(HISTORY, '{"counter_id": "c"}', tenant=tenant), ErrorCode.TENANT_INVALID
    )

    assert 0 == await world.committed()


@pytest.mark.parametrize("tenant", ["größe", "a b", "'; drop table events; --", "🚢", "%2F", "*"])
async def test_a_strange_tenant_is_a_tenant(world: World, tenant: str) -> None:
    await world.up(2, tenant=tenant)

    assert (3, 3) == stands(await world.up(1, tenant=tenant))
    assert 3 == len((await world.history(tenant=tenant)).items)


# History.


async def test_the_history_is_what_was_stored(world: World) -> None:
    await world.up(5)
    await world.down(7)
    await world.reset()

    page = await world.history()

    assert [
        (1, "counter.opened.v1", {"counter_id": "c"}),
        (2, "counter.incremented.v1", {"counter_id": "c", "by": 5, "value": 5}),
        (3, "counter.decremented.v1", {"counter_id": "c", "by": 7, "value": -2}),
        (4, "counter.reset.v1", {"counter_id": "c", "previous_value": -2}),
    ] == [(item.version, item.type, item.data) for item in page.items]
    assert page.next_after is None
    stored = await world.store.read(StreamId("acme/counter/c"))
    assert [e.recorded_at for e in stored] == [item.recorded_at for item in page.items]


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, PAGE_SIZE_MAX])
async def test_the_history_is_read_page_by_page(world: World, limit: int) -> None:
    for _ in range(6):
        await world.up(1)

    pages = [await world.history(limit=limit)]
    while (after := pages[-1].next_after) and len(pages) <= 7:
        pages.append(await world.history(after=after, limit=limit))

    assert list(range(1, 8)) == [item.version for page in pages for item in page.items]
    assert {limit} >= {len(page.items) for page in pages[:-1]}
    assert -(-7 // limit) == len(pages), "an empty page at the end"


@pytest.mark.parametrize("after", [2, 3, 2**53 - 1])
async def test_after_the_end_of_a_history_there_is_nothing(world: World, after: int) -> None:
    await world.up(1)

    assert HistoryPage(items=(), next_after=None) == await world.history(after=after)


async def test_a_counter_that_nobody_used_has_no_history(world: World) -> None:
    await world.up(1, tenant="rival")

    for query in ("", ', "after": 5'):
        body = f'{{"counter_id": "c"{query}}}'
        await refused(world.ask(HISTORY, body), ErrorCode.COUNTER_NOT_FOUND)


@pytest.mark.parametrize(
    "query",
    ['"limit": 0', f'"limit": {PAGE_SIZE_MAX + 1}', '"after": -1', f'"after": {2**53}', '"x": 1'],
)
async def test_a_query_that_is_none_is_refused(world: World, query: str) -> None:
    await world.up(1)

    await refused(world.ask(HISTORY, f'{{"counter_id": "c", {query}}}'), ErrorCode.INVALID_REQUEST)


# As it is deployed.


async def test_what_was_counted_survives_a_restart(tmp_path: Path, nats_server: NatsServer) -> None:
    async with deployed(tmp_path, nats_server.url) as world:
        first = await world.up(5, idempotency_key="k")
        for _ in range(7):
            await world.up(1)

    async with deployed(tmp_path, nats_server.url) as world:
        again = await world.up(5, idempotency_key="k")
        assert (first.body, True) == (again.body, again.replayed)
        assert (13, 10) == stands(await world.up(1))


async def test_two_processes_count_together(tmp_path: Path, nats_server: NatsServer) -> None:
    async with (
        deployed(tmp_path, nats_server.url) as one,
        deployed(tmp_path, nats_server.url) as two,
    ):
        answers = await asyncio.gather(*((one, two)[n % 2].up(1) for n in range(40)))

    assert [(n, n + 1) for n in range(1, 41)] == sorted(stands(a) for a in answers)


async def test_the_bell_rings_when_something_was_committed(
    service: World, nats_server: NatsServer
) -> None:
    rings: list[Msg] = []
    async with connected(nats_server.url, name="test") as connection:
        await listen(connection, rings)

        await service.up(1)

        async def rang() -> bool:
            return bool(rings)

        await eventually(rang, what="the bell rang")
        assert ("bell.counter", b"") == (rings[0].subject, rings[0].data)


async def listen(connection: Client, rings: list[Msg]) -> None:
    async def heard(message: Msg) -> None:
        rings.append(message)

    await connection.subscribe(doorbell_subject("counter"), cb=heard)
    await connection.flush()


async def test_it_says_over_the_bus_how_it_is(service: World) -> None:
    answer = await service.ask(health_subject("counter"), "{}")

    assert HealthReply(service="svc-counter", ready=True) == HealthReply.model_validate_json(
        answer.body
    )


async def test_a_running_service_has_a_name_and_a_health(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    async with compose(bindings(tmp_path, nats_server.url, LocalBus())) as running:
        assert ("svc-counter", Health()) == (running.name, await running.health())


async def test_it_counts_without_a_broker(tmp_path: Path) -> None:
    """A bell that cannot ring costs a poll interval, never a command."""
    async with (
        run_nats(tmp_path / "nats", supervise=False) as server,
        deployed(tmp_path, server.url) as world,
    ):
        await world.up(1)
        await server.kill()

        async with asyncio.timeout(10):
            for _ in range(20):
                await world.up(1)

        assert (22, 23) == stands(await world.up(1))


async def test_the_upper_bound_is_a_setting(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOTILLA_COUNTER_UPPER_BOUND", "3")
    async with deployed(tmp_path, nats_server.url) as world:
        assert (3, 2) == stands(await world.up(3))
        await refused(world.up(1), ErrorCode.COUNTER_UPPER_BOUND_PASSED)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("UPPER_BOUND=-1", "FLOTILLA_COUNTER_UPPER_BOUND: .*greater than or equal to 0"),
        ("UPPER_BOUND=many", "FLOTILLA_COUNTER_UPPER_BOUND: .*integer"),
        (f"UPPER_BOUND={2**53}", "FLOTILLA_COUNTER_UPPER_BOUND: .*less than"),
        ("IDEMPOTENCY_TTL_S=59", "FLOTILLA_COUNTER_IDEMPOTENCY_TTL_S"),
        ("UPER_BOUND=3", "UPER_BOUND: did you mean FLOTILLA_COUNTER_UPPER_BOUND?"),
    ],
)
async def test_a_setting_that_makes_no_sense_refuses_to_start_and_says_which(
    tmp_path: Path,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    says: str,
) -> None:
    name, _, value = setting.partition("=")
    monkeypatch.setenv(f"FLOTILLA_COUNTER_{name}", value)

    with pytest.raises(StartRefused, match=says) as refusal:
        async with compose(bindings(tmp_path, nats_server.url, LocalBus())):
            pass

    assert 1 == len(str(refusal.value).splitlines())


async def test_bounds_that_leave_no_room_refuse_to_start(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOTILLA_COUNTER_UPPER_BOUND", "0")
    monkeypatch.setenv("FLOTILLA_COUNTER_LOWER_BOUND", "0")

    with pytest.raises(StartRefused, match="leave no room to count"):
        async with compose(bindings(tmp_path, nats_server.url, LocalBus())):
            pass


async def test_without_a_broker_it_refuses_to_start_and_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flotilla.nats.CONNECT_TIMEOUT_S", 0.2)

    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        async with compose(bindings(tmp_path, "nats://127.0.0.1:1", LocalBus())):
            pass


async def test_an_event_that_cannot_be_read_is_corrupt_and_wakes_a_human(service: World) -> None:
    event = new_event('{"counter_id": "c"}', kind="counter.incremented.v1")
    await service.store.commit([Unit((Append(StreamId("acme/counter/c"), EMPTY, (event,)),))])

    with pytest.raises(KernelError) as error:
        await service.up(1)

    assert ("corrupt", 1) == (error.value.family, await service.committed())


async def test_an_event_of_a_newer_version_is_told_and_not_decided_on(world: World) -> None:
    """A replica that knows the type can answer: so retry, and nothing is lost or written here."""
    await world.up(5)
    payload = '{ "counter_id":"c","note":"\\u00fc" ,"n":12345678901234567890}'
    event = new_event(payload, kind="counter.annotated.v1")
    await world.store.commit([Unit((Append(StreamId("acme/counter/c"), Version(2), (event,)),))])

    for ask in (partial(world.up, 1), world.reset):
        with pytest.raises(KernelError) as error:
            await ask(idempotency_key="k")
        assert ("unavailable", "event-type-unknown") == (error.value.family, error.value.code)
        assert "deploy the version that knows it" in str(error.value)

    assert 3 == await world.committed()
    assert (7, 2) == stands(await world.up(7, "other", idempotency_key="k2"))
    last = (await world.history()).items[-1]
    assert (3, "counter.annotated.v1", json.loads(payload)) == (last.version, last.type, last.data)
    assert payload == (await world.store.read(StreamId("acme/counter/c")))[-1].payload


async def test_what_was_asked_is_finished_before_it_stops(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
    commit = LibsqlStore.commit

    async def slow(store: LibsqlStore, units: Sequence[Unit]) -> Sequence[Outcome]:
        begun.set()
        await gate.wait()
        return await commit(store, units)

    monkeypatch.setattr(LibsqlStore, "commit", slow)
    bound, ready = bindings(tmp_path, nats_server.url, bus := LocalBus()), asyncio.Event()

    async def live() -> None:
        async with compose(bound):
            ready.set()
            await stop.wait()

    async with open_store(bound.stores["counter"], service="counter") as store:
        world, living = World(bus, store), asyncio.create_task(live())
        await ready.wait()
        asking = [asyncio.create_task(world.up(1)) for _ in range(30)]
        await begun.wait()
        stop.set()
        done, _ = await asyncio.wait([living], timeout=0.5)
        assert not done, "it stopped while somebody waited for an answer"

        gate.set()

        await living
        answers = await asyncio.gather(*asking)
        assert [(n, n + 1) for n in range(1, 31)] == sorted(stands(a) for a in answers)
        assert 31 == await world.committed()
