"""The counter view, on both stores: its rows are the fold of the log, its queries tell no tales."""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flotilla import LogEvent, Offset, StreamId, Version, ViewSession, ViewStore
from flotilla.embedded import PostgresServer
from flotilla.stores.libsql import LibsqlViews
from flotilla.stores.memory import MemoryStore
from flotilla.stores.postgres import PostgresViews
from flotilla_contracts.counter import (
    CounterDecremented,
    CounterEvent,
    CounterIncremented,
    CounterOpened,
    CounterPage,
    CounterReset,
)
from svc_projector.counters import CounterView, get_counter, list_counters
from svc_projector.projector import Projector

AT = datetime(2026, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)
_tenants = count(1)


ALL = Offset(10**9)


class AllRecorded(MemoryStore):
    """A ledger that has whatever is delivered: what is done when it has not is tested elsewhere."""

    async def last_offset(self) -> Offset:
        return ALL


@pytest.fixture(params=["libsql", "postgres"])
async def views(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer
) -> AsyncIterator[ViewStore]:
    view = CounterView()
    if request.param == "libsql":
        async with LibsqlViews.open(f"libsql://{tmp_path}/views.db", service="projector") as libsql:
            await libsql.migrate(view.name, view.tables)
            yield libsql
    else:
        service = f"p{uuid4().hex[:12]}"
        async with PostgresViews.open(postgres_server.dsn, service=service) as postgres:
            await postgres.migrate(view.name, view.tables)
            yield postgres


class Log:
    """A log of contract events, folded as it is written."""

    def __init__(self, views: ViewStore) -> None:
        self.views = views
        self.projector = Projector(CounterView(), views, AllRecorded())
        self.versions: dict[StreamId, int] = {}

    async def deliver(self, *events: tuple[str, CounterEvent] | str) -> None:
        """Deliver (tenant, event) pairs as one batch; a bare text is the type of a foreign event."""
        after = await self.projector.start()
        self.projector.recorded = ALL
        batch = [
            self._log_event(Offset(after + n), *(("acme", e) if isinstance(e, str) else e))
            for n, e in enumerate(events, start=1)
        ]
        await self.projector.project(batch)

    def _log_event(self, offset: Offset, tenant: str, event: CounterEvent | str) -> LogEvent:
        name = "foreign" if isinstance(event, str) else event.counter_id
        kind, payload = (
            (event, b'{"anything": []}')
            if isinstance(event, str)
            else (event.type, event.model_dump_json().encode())
        )
        stream = StreamId(f"{tenant}/counter/{name}")
        version = self.versions[stream] = self.versions.get(stream, 0) + 1
        return LogEvent(offset, tenant, stream, Version(version), kind, payload, AT)

    async def again(self, events: Sequence[LogEvent], *, forget: StreamId | None = None) -> None:
        """Fold events again, and before it forget a stream, where the checkpoint is."""
        view = self.projector.projection
        at = await self.views.checkpoint(view.name, view.log)

        async def apply(session: ViewSession) -> None:
            if forget:
                await CounterView().forget(session, forget.split("/")[0], forget)
            await view.apply(session, events)

        await self.views.advance(view.name, view.log, (at.offset, at), apply)

    async def get(self, name: str, tenant: str = "acme") -> tuple[int, int] | None:
        found = await get_counter(self.views, tenant, name)
        assert found is None or found.counter_id == name
        return (found.value, found.version) if found else None


@pytest.fixture
def log(views: ViewStore) -> Log:
    return Log(views)


def opened(name: str, tenant: str = "acme") -> tuple[str, CounterEvent]:
    return tenant, CounterOpened(counter_id=name)


def up(name: str, by: int, to: int, tenant: str = "acme") -> tuple[str, CounterEvent]:
    return tenant, CounterIncremented(counter_id=name, by=by, value=to)


def down(name: str, by: int, to: int, tenant: str = "acme") -> tuple[str, CounterEvent]:
    return tenant, CounterDecremented(counter_id=name, by=by, value=to)


def reset(name: str, was: int, tenant: str = "acme") -> tuple[str, CounterEvent]:
    return tenant, CounterReset(counter_id=name, previous_value=was)


async def test_an_unknown_counter_is_none(log: Log) -> None:
    assert await log.get("c") is None
    assert CounterPage(items=(), next_cursor=None) == await list_counters(
        log.views, "acme", after="", limit=10
    )


async def test_an_opened_counter_is_at_zero(log: Log) -> None:
    await log.deliver(opened("c"))

    assert (0, 1) == await log.get("c")


async def test_values_and_versions_follow_the_events(log: Log) -> None:
    seen = []
    for event in (opened("c"), up("c", 5, 5), down("c", 7, -2), up("c", 1, -1), reset("c", -1)):
        await log.deliver(event)
        seen.append(await log.get("c"))

    assert [(0, 1), (5, 2), (-2, 3), (-1, 4), (0, 5)] == seen


async def test_in_one_batch_the_last_event_of_each_counter_counts(log: Log) -> None:
    await log.deliver(
        opened("a"), opened("b"), up("a", 1, 1), up("b", 9, 9), reset("b", 9), up("a", 1, 2)
    )

    assert ((2, 3), (0, 3)) == (await log.get("a"), await log.get("b"))


@pytest.mark.parametrize("value", [2**53 - 1, -(2**53) + 1])
async def test_the_largest_values_survive(log: Log, value: int) -> None:
    await log.deliver(opened("c"), up("c", 1, value))

    assert (value, 2) == await log.get("c")


async def test_folding_an_old_event_again_puts_nothing_back(log: Log) -> None:
    """What `replayable` promises: any part of the log again, and the view is what it was."""
    told = [opened("c"), up("c", 5, 5), up("c", 2, 7)]
    await log.deliver(*told)
    log.versions.clear()
    events = [log._log_event(Offset(n), *event) for n, event in enumerate(told, start=1)]

    for part in (events[:1], events[:2], events[1:], events):
        await log.again(part)
        assert (7, 3) == await log.get("c")


async def test_a_forgotten_counter_is_folded_again_from_its_events_alone(log: Log) -> None:
    await log.deliver(opened("c"), opened("d"), opened("c", "rival"), up("d", 1, 1))
    log.versions.clear()
    event = log._log_event(Offset(1), *up("c", 3, 3))

    await log.again([event], forget=event.stream)

    assert (3, 1) == await log.get("c")
    assert (1, 2) == await log.get("d")
    assert (0, 1) == await log.get("c", "rival")


async def test_events_of_other_types_are_none_of_its_business(log: Log) -> None:
    await log.deliver("counter.incremented.v9", "thing.happened.v1")
    await log.deliver(opened("c"), "thing.happened.v1", up("c", 2, 2))

    assert (2, 2) == await log.get("c")
    assert await log.get("foreign") is None
    assert 5 == (await log.views.checkpoint("counters", "counter")).offset


async def test_an_event_of_a_type_that_is_not_known_here_moves_the_version_alone(log: Log) -> None:
    """Whoever waits for the version that it brought must not wait for ever."""
    await log.deliver(opened("c"), up("c", 2, 2))
    later = LogEvent(
        Offset(3), "acme", StreamId("acme/counter/c"), Version(3), "counter.named.v1", b"{}", AT
    )

    await log.again([later])
    await log.again([later])

    assert (2, 3) == await log.get("c")


async def test_tenants_do_not_see_each_other(log: Log) -> None:
    await log.deliver(opened("c"), opened("c", "rival"), up("c", 3, 3, "rival"), up("c", 1, 1))
    await log.deliver(opened("only-mine"))

    assert ((1, 2), (3, 2)) == (await log.get("c"), await log.get("c", "rival"))
    assert await log.get("only-mine", "rival") is None
    mine = await list_counters(log.views, "acme", after="", limit=10)
    theirs = await list_counters(log.views, "rival", after="", limit=10)
    assert (["c", "only-mine"], ["c"]) == (ids(mine), ids(theirs))


def ids(page: CounterPage) -> list[str]:
    return [item.counter_id for item in page.items]


NAMES = ["a", "B", "b.1", "A", "_", "-", "a-b", "a_b", "ab", "10", "9", "Z", "z", "..x"]


@pytest.mark.parametrize("limit", [1, 2, len(NAMES) - 1, len(NAMES), len(NAMES) + 1])
async def test_pages_have_every_counter_once_in_order_of_their_ids(log: Log, limit: int) -> None:
    await log.deliver(*(opened(name) for name in NAMES), opened("c", "rival"))

    pages = [await list_counters(log.views, "acme", after="", limit=limit)]
    while (after := pages[-1].next_cursor) and len(pages) <= len(NAMES):
        pages.append(await list_counters(log.views, "acme", after=after, limit=limit))

    assert sorted(NAMES) == [name for page in pages for name in ids(page)]
    assert {limit} >= {len(page.items) for page in pages[:-1]}
    assert -(-len(NAMES) // limit) == len(pages), "an empty page at the end"


async def test_a_page_shows_values_and_versions(log: Log) -> None:
    await log.deliver(opened("a"), up("a", 4, 4), opened("b"))

    page = await list_counters(log.views, "acme", after="", limit=10)

    assert [("a", 4, 2), ("b", 0, 1)] == [(i.counter_id, i.value, i.version) for i in page.items]
    assert CounterPage.model_validate_json(page.model_dump_json()) == page


async def test_a_cursor_that_is_no_counter_starts_after_where_it_would_be(log: Log) -> None:
    await log.deliver(opened("a"), opened("c"))

    assert ["c"] == ids(await list_counters(log.views, "acme", after="b", limit=10))
    assert [] == ids(await list_counters(log.views, "acme", after="c", limit=10))


# Any script in any batches.


Move = tuple[int, str, str, int]
"""Whose counter (0 or 1), which, what is done, by how much."""

moves = st.tuples(
    st.integers(0, 1),
    st.sampled_from(["a", "b", "B"]),
    st.sampled_from(["up", "down", "reset", "foreign"]),
    st.integers(1, 1000),
)


def history(
    tenants: Sequence[str], script: Iterable[Move]
) -> tuple[list[tuple[str, CounterEvent] | str], dict[tuple[str, str], tuple[int, int]]]:
    """Return the events that `script` leads to, and where they leave each counter."""
    events: list[tuple[str, CounterEvent] | str] = []
    stands: dict[tuple[str, str], tuple[int, int]] = {}
    for whose, name, what, by in script:
        tenant = tenants[whose]
        if what == "foreign":
            events.append("thing.happened.v1")
            continue
        if (tenant, name) not in stands:
            events.append(opened(name, tenant))
            stands[tenant, name] = (0, 1)
        value, version = stands[tenant, name]
        match what:
            case "up":
                stands[tenant, name] = (value + by, version + 1)
                events.append(up(name, by, value + by, tenant))
            case "down":
                stands[tenant, name] = (value - by, version + 1)
                events.append(down(name, by, value - by, tenant))
            case _ if value:
                stands[tenant, name] = (0, version + 1)
                events.append(reset(name, value, tenant))
    return events, stands


@given(script=st.lists(moves, max_size=40), cuts=st.lists(st.integers(1, 12), max_size=20))
@settings(
    max_examples=40,
    deadline=None,
    # The view is shared by all examples on purpose: each has tenants of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_after_any_script_in_any_batches_the_view_is_the_fold(
    log: Log, script: list[Move], cuts: list[int]
) -> None:
    tenants = [f"t{next(_tenants)}" for _ in range(2)]
    events, stands = history(tenants, script)

    rest = list(events)
    for cut in [*cuts, len(rest)]:
        await log.deliver(*rest[:cut])
        del rest[:cut]

    for tenant in tenants:
        page = await list_counters(log.views, tenant, after="", limit=10)
        assert {i.counter_id: (i.value, i.version) for i in page.items} == {
            name: stand for (owner, name), stand in stands.items() if owner == tenant
        }
        for item in page.items:
            assert (item.value, item.version) == await log.get(item.counter_id, tenant)
