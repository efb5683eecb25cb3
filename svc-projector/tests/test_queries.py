"""What the projector answers over a bus, and how it waits for what a caller has seen elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flotilla import (
    Answer,
    Context,
    LogEvent,
    Offset,
    Rejected,
    Request,
    StreamId,
    Unavailable,
    Version,
)
from flotilla.buses.local import LocalBus
from flotilla.stores.libsql import LibsqlViews
from flotilla.stores.memory import MemoryStore
from flotilla.testing import eventually
from flotilla_contracts.counter import (
    PAGE_SIZE_MAX,
    CounterIncremented,
    CounterPage,
    CounterReply,
    GetCounter,
    ListCounters,
)
from svc_projector import waiting
from svc_projector.counters import CounterView
from svc_projector.projector import Projector
from svc_projector.queries import CounterQueries

AT = datetime(2026, 5, 17, tzinfo=UTC)
WAIT_MAX_S = 0.4


ALL = Offset(10**9)


class AllRecorded(MemoryStore):
    """A ledger that has whatever is delivered: what is done when it has not is tested elsewhere."""

    async def last_offset(self) -> Offset:
        return ALL


@dataclass
class World:
    """A view that a test moves by hand, and the queries on it, on a bus."""

    projector: Projector
    bus: LocalBus

    async def count(self, name: str, *values: int, tenant: str = "acme") -> None:
        """Let a counter's next events say that it stands at these values, one after the other."""
        after = await self.projector.start()
        self.projector.recorded = ALL
        stream = StreamId(f"{tenant}/counter/{name}")
        found = await self.projector.views.fetch_across(
            "select version from counter_view where tenant = $1 and counter_id = $2", tenant, name
        )
        version = found[0][0] if found else 0
        await self.projector.project(
            [
                LogEvent(
                    Offset(after + n),
                    tenant,
                    stream,
                    Version(version + n),
                    CounterIncremented.type,
                    b'{"counter_id": "%s", "by": 1, "value": %d}' % (name.encode(), value),
                    AT,
                )
                for n, value in enumerate(values, start=1)
            ]
        )

    async def ask(self, subject: str, body: str, token: str | None = None, **more: float) -> Answer:
        tenant = "acme"
        context = Context(tenant, "c", consistency_token=token, **more)  # type: ignore[arg-type]
        return await self.bus.request(Request(subject, body.encode(), context))

    async def get(self, name: str, token: str | None = None, **more: float) -> CounterReply:
        answer = await self.ask(GetCounter.subject, f'{{"counter_id": "{name}"}}', token, **more)
        reply = CounterReply.model_validate_json(answer.body)
        assert reply.version == answer.version
        return reply

    async def list(self, body: str = "{}", token: str | None = None) -> CounterPage:
        answer = await self.ask(ListCounters.subject, body, token)
        return CounterPage.model_validate_json(answer.body)

    async def somebody_waits(self) -> None:
        """Return when a query waits for the view to move."""

        async def waits() -> bool:
            return bool(self.projector.moved._waiters)

        await eventually(waits, what="a query waits")


@asynccontextmanager
async def a_world(folder: Path, wait_max_s: float = WAIT_MAX_S) -> AsyncIterator[World]:
    view = CounterView()
    async with LibsqlViews.open(f"libsql://{folder}/views.db", service="projector") as views:
        await views.migrate(view.name, view.tables)
        world = World(Projector(view, views, AllRecorded()), LocalBus())
        handlers = CounterQueries(views, [world.projector], wait_max_s)
        await world.bus.serve(GetCounter.subject, handlers.get)
        await world.bus.serve(ListCounters.subject, handlers.list)
        yield world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as world:
        yield world


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose queries wait longer than any test does."""
    async with a_world(tmp_path, wait_max_s=30) as world:
        yield world


async def test_a_counter_is_found(world: World) -> None:
    await world.count("c", 1, 2, 7)

    assert CounterReply(counter_id="c", value=7, version=3) == await world.get("c")


async def test_a_counter_that_is_not_there_is_not_found(world: World) -> None:
    await world.count("theirs", 1, tenant="rival")

    for name in ("nobody", "theirs"):
        with pytest.raises(Rejected, match=f"no counter {name}") as refused:
            await world.get(name)
        assert "counter-not-found" == refused.value.code


async def test_counters_are_listed_page_by_page(world: World) -> None:
    for name in ("b", "a", "c"):
        await world.count(name, 1)
    await world.count("d", 1, tenant="rival")

    first = await world.list('{"limit": 2}')
    second = await world.list(f'{{"limit": 2, "after": "{first.next_cursor}"}}')

    assert ["a", "b"] == [item.counter_id for item in first.items]
    assert (["c"], None) == ([item.counter_id for item in second.items], second.next_cursor)
    assert CounterPage(items=(first.items + second.items), next_cursor=None) == await world.list()


async def test_an_answer_does_not_wait_without_a_token(world: World) -> None:
    await world.count("c", 1)

    async with asyncio.timeout(WAIT_MAX_S / 2):
        await world.get("c")
        with pytest.raises(Rejected):
            await world.get("nobody")


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        (GetCounter.subject, ""),
        (GetCounter.subject, "{}"),
        (GetCounter.subject, "[]"),
        (GetCounter.subject, '{"counter_id": ""}'),
        (GetCounter.subject, '{"counter_id": "a/b"}'),
        (GetCounter.subject, '{"counter_id": "a\\u0000"}'),
        (GetCounter.subject, '{"counter_id": 1}'),
        (GetCounter.subject, '{"counter_id": "c", "more": 1}'),
        (ListCounters.subject, '{"limit": 0}'),
        (ListCounters.subject, f'{{"limit": {PAGE_SIZE_MAX + 1}}}'),
        (ListCounters.subject, '{"limit": "5"}'),
        (ListCounters.subject, '{"after": "not/one"}'),
    ],
)
async def test_what_is_no_query_is_refused(world: World, subject: str, body: str) -> None:
    with pytest.raises(Rejected) as refused:
        await world.ask(subject, body)

    assert "invalid-request" == refused.value.code


# Read your writes.


async def test_a_token_that_the_view_has_seen_costs_no_wait(world: World) -> None:
    await world.count("c", 1, 2, 3)

    async with asyncio.timeout(WAIT_MAX_S / 2):
        for version in (1, 2, 3):
            assert 3 == (await world.get("c", f"acme/counter/c@{version}")).version
        assert 1 == len((await world.list(token="acme/counter/c@3")).items)


async def test_an_answer_waits_until_the_view_has_seen_the_token(
    patient: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and does not have to look again."""
    monkeypatch.setattr(waiting, "LOOK_AGAIN_S", 3600.0)
    await patient.count("c", 1)
    asking = asyncio.create_task(patient.get("c", "acme/counter/c@3"))
    await patient.somebody_waits()

    await patient.count("c", 2)
    await patient.somebody_waits()
    assert not asking.done(), "version 2 is not what it waits for"
    await patient.count("c", 3, 4)

    async with asyncio.timeout(5):
        assert CounterReply(counter_id="c", value=4, version=4) == await asking


async def test_a_counter_that_is_not_there_yet_is_waited_for(patient: World) -> None:
    asking = asyncio.create_task(patient.get("c", "acme/counter/c@1"))
    await patient.somebody_waits()
    await patient.count("other", 1)

    await patient.count("c", 5)

    async with asyncio.timeout(5):
        assert 5 == (await asking).value


async def test_a_list_waits_too(patient: World) -> None:
    asking = asyncio.create_task(patient.list(token="acme/counter/c@2"))
    await patient.somebody_waits()

    await patient.count("c", 1, 2)

    async with asyncio.timeout(5):
        assert [("c", 2)] == [(item.counter_id, item.version) for item in (await asking).items]


async def test_a_view_that_another_process_moves_is_seen(tmp_path: Path, patient: World) -> None:
    asking = asyncio.create_task(patient.get("c", "acme/counter/c@1"))
    await patient.somebody_waits()

    async with a_world(tmp_path) as other:
        await other.count("c", 1)

    async with asyncio.timeout(5):
        assert 1 == (await asking).version


async def test_fifty_wait_and_are_answered_with_one_move(patient: World) -> None:
    asking = [asyncio.create_task(patient.get("c", "acme/counter/c@1")) for _ in range(50)]
    await patient.somebody_waits()

    await patient.count("c", 1)

    async with asyncio.timeout(10):
        assert [1] * 50 == [reply.version for reply in await asyncio.gather(*asking)]


async def test_waiting_is_bounded(world: World) -> None:
    await world.count("c", 1)
    loop = asyncio.get_running_loop()

    for name, token in (("c", "acme/counter/c@2"), ("d", "acme/counter/d@1")):
        started_s = loop.time()
        with pytest.raises(Unavailable, match="has not seen") as behind:
            await world.get(name, token)
        assert "view-behind" == behind.value.code
        assert WAIT_MAX_S <= loop.time() - started_s < WAIT_MAX_S + 2


async def test_whoever_has_less_time_is_told_in_time_that_the_view_is_behind(
    patient: World,
) -> None:
    """Not that nobody answered: that would be another trouble, and another alarm."""
    with pytest.raises(Unavailable) as behind:
        await patient.get("c", "acme/counter/c@1", timeout_s=0.5)

    assert "view-behind" == behind.value.code


@pytest.mark.parametrize(
    "token",
    [
        "",
        "@",
        "x",
        "acme/counter/c",
        "acme/counter/c@",
        "acme/counter/c@-1",
        "acme/counter/c@1.5",
        "acme/counter/c@x",
        "acme/counter/c@²",
        "acme/counter/c@1 ",
        "acme/counter/c@" + "9" * 5000,
        "acme/counter/@1",
        "acme/counter/c/d@1",
        "acme/counter/c\0@1",
        "acme/counter/c\n@1",
        "acme/counter/c@\u0661",
        "acme/thing/c@1",
        "rival/counter/c@1",
        "/counter/c@1",
        "ACME/counter/c@1",
    ],
)
async def test_a_token_that_is_none_of_this_tenants_is_refused(world: World, token: str) -> None:
    """At once, and even if it would be true."""
    await world.count("c", 1)
    await world.count("c", 1, tenant="rival")

    async with asyncio.timeout(WAIT_MAX_S / 2):
        with pytest.raises(Rejected) as refused:
            await world.get("c", token)
        assert "consistency-token-invalid" == refused.value.code
        with pytest.raises(Rejected) as refused:
            await world.list(token=token)
        assert "consistency-token-invalid" == refused.value.code
