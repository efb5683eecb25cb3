"""Totals and activity, on both stores: across counters, in any batches, twice, and with poison."""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from flotilla import LogEvent, Offset, Projection, StreamId, Version, ViewStore
from flotilla.embedded import PostgresServer
from flotilla.outbox import START
from flotilla.parked import parked_events
from flotilla.stores.libsql import LibsqlViews
from flotilla.stores.memory import MemoryStore
from flotilla.stores.postgres import PostgresViews
from flotilla_contracts.counter import (
    ActivityPage,
    CounterDecremented,
    CounterEvent,
    CounterIncremented,
    CounterOpened,
    CounterReset,
    TenantTotals,
)
from svc_projector.activity import ActivityFeed, list_activity
from svc_projector.projector import Projector
from svc_projector.totals import TotalsView, get_totals

AT = datetime(2026, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)
POISON = b'{"counter_id": "b", "by": "many", "value": 1}'


ALL = Offset(10**9)


class AllRecorded(MemoryStore):
    """A ledger that has whatever is delivered: what is done when it has not is tested elsewhere."""

    async def last_offset(self) -> Offset:
        return ALL


@pytest.fixture(params=["libsql", "postgres"])
async def views(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer
) -> AsyncIterator[ViewStore]:
    if request.param == "libsql":
        async with LibsqlViews.open(f"libsql://{tmp_path}/views.db", service="projector") as libsql:
            yield libsql
    else:
        service = f"p{uuid4().hex[:12]}"
        async with PostgresViews.open(postgres_server.dsn, service=service) as postgres:
            yield postgres


def log_of(*events: tuple[str, CounterEvent]) -> list[LogEvent]:
    """Return a log of (tenant, event) pairs, a second apart."""
    return [
        LogEvent(
            Offset(n),
            tenant,
            StreamId(f"{tenant}/counter/{event.counter_id}"),
            Version(n),
            event.type,
            event.model_dump_json().encode(),
            AT + timedelta(seconds=n),
        )
        for n, (tenant, event) in enumerate(events, start=1)
    ]


def opened(name: str, tenant: str = "acme") -> tuple[str, CounterEvent]:
    return tenant, CounterOpened(counter_id=name)


def up(name: str, by: int, tenant: str = "acme") -> tuple[str, CounterEvent]:
    return tenant, CounterIncremented(counter_id=name, by=by, value=0)


def down(name: str, by: int, tenant: str = "acme") -> tuple[str, CounterEvent]:
    return tenant, CounterDecremented(counter_id=name, by=by, value=0)


def reset(name: str, was: int, tenant: str = "acme") -> tuple[str, CounterEvent]:
    return tenant, CounterReset(counter_id=name, previous_value=was)


async def project(
    views: ViewStore, projection: Projection, *batches: Sequence[LogEvent]
) -> Projector:
    """Deliver batches to a process that has just started."""
    await views.migrate(projection.name, projection.tables)
    projector = Projector(projection, views, AllRecorded())
    await projector.begin()
    await projector.start()
    projector.recorded = ALL
    for batch in batches:
        await projector.project(batch)
    return projector


STORY = log_of(
    opened("a"),
    up("a", 5),
    up("a", 2),
    opened("b"),
    down("b", 4),
    opened("a", "rival"),
    up("a", 100, "rival"),
    reset("a", 7),
    up("a", 1),
    up("b", 1),
)
TOTALS = TenantTotals(counters=2, value_sum=1 - 4 + 1, events=8)


async def totals(views: ViewStore) -> TenantTotals:
    return await get_totals(views, "acme")


async def test_who_has_no_counters_has_zeros(views: ViewStore) -> None:
    await project(views, TotalsView())

    assert TenantTotals(counters=0, value_sum=0, events=0) == await totals(views)


@pytest.mark.parametrize("seed", range(5))
async def test_totals_are_the_same_however_the_log_is_cut_and_redelivered(
    views: ViewStore, seed: int
) -> None:
    chance, at = random.Random(seed), 0
    batches = []
    while at < len(STORY):
        end = at + chance.randint(1, 5)
        batches.append(STORY[max(0, at - chance.randint(0, 4)) : end])
        at = end
    for batch in batches:
        await project(views, TotalsView(), batch, batch)

    assert TOTALS == await totals(views), f"seed {seed}"
    rival = await get_totals(views, "rival")
    assert TenantTotals(counters=1, value_sum=100, events=2) == rival


async def test_a_foreign_event_changes_no_totals(views: ViewStore) -> None:
    foreign = replace(STORY[0], offset=Offset(11), type="thing.happened.v1", payload=b"?")
    await project(views, TotalsView(), [*STORY, foreign])

    assert TOTALS == await totals(views)


async def test_totals_lack_what_is_parked_and_are_right_once_it_is_retried(
    views: ViewStore,
) -> None:
    """Counter b is poisoned at its second event: its later ones wait, counter a's do not."""
    damaged = [replace(e, payload=POISON) if e.offset == 5 else e for e in STORY]
    await project(views, TotalsView(), damaged)

    assert [5, 10] == [e.event.offset for e in await parked_events(views, limit=10)]
    assert TenantTotals(counters=2, value_sum=1, events=6) == await totals(views)

    async def mend(view: object) -> None:
        sql = 'update projection_parked_event set payload = $1 where "offset" = 5'
        await view.execute_many(sql, [(STORY[4].payload,)])  # type: ignore[attr-defined] # a session

    await views.transact(mend)
    projector = await project(views, TotalsView())
    assert 2 == await projector.parking.retry("acme/counter/b")
    assert TOTALS == await totals(views)


async def activity(
    views: ViewStore, before: int | None = None, limit: int = 100, tenant: str = "acme"
) -> ActivityPage:
    return await list_activity(views, tenant, before=before, limit=limit)


def offsets(page: ActivityPage) -> list[int]:
    return [item.offset for item in page.items]


async def test_activity_is_newest_first_and_of_one_tenant(views: ViewStore) -> None:
    await project(views, ActivityFeed(), STORY[:4], STORY[2:])

    assert [10, 9, 8, 5, 4, 3, 2, 1] == offsets(await activity(views))
    assert [7, 6] == offsets(await activity(views, tenant="rival"))
    newest = (await activity(views, limit=1)).items[0]
    assert ("b", "counter.incremented.v1", STORY[9].recorded_at) == (
        newest.counter_id,
        newest.type,
        newest.recorded_at,
    )


async def test_pages_of_activity_have_everything_once(views: ViewStore) -> None:
    await project(views, ActivityFeed(), STORY)
    pages = [await activity(views, limit=3)]
    while (before := pages[-1].next_before) and len(pages) < 9:
        pages.append(await activity(views, before, limit=3))

    assert [[10, 9, 8], [5, 4, 3], [2, 1]] == [offsets(page) for page in pages]


async def test_a_feed_keeps_its_newest_entries(views: ViewStore) -> None:
    await project(views, ActivityFeed(entries_max=3), *[[e] for e in STORY])

    assert [10, 9, 8] == offsets(await activity(views))
    assert [7, 6] == offsets(await activity(views, tenant="rival"))


async def test_a_feed_forgets_what_is_old_by_the_log_s_own_time(views: ViewStore) -> None:
    await project(views, ActivityFeed(age_max_s=2.0), STORY)

    assert [10, 9, 8] == offsets(await activity(views))
    assert [7, 6] == offsets(await activity(views, tenant="rival")), "nothing newer happened there"


async def test_a_shorter_feed_shrinks_by_bounded_steps(
    views: ViewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svc_projector.activity.PRUNED_MORE_MAX", 0)
    await project(views, ActivityFeed(), STORY[:8])
    later = [replace(STORY[9], offset=Offset(n)) for n in (9, 10)]

    await project(views, ActivityFeed(entries_max=1), later[:1], [])
    assert [9, 8, 5, 4, 3] == offsets(await activity(views))
    await project(views, ActivityFeed(entries_max=1), later[1:])
    assert [10, 9, 8, 5] == offsets(await activity(views))


async def test_an_entry_that_is_retried_is_where_it_belongs(views: ViewStore) -> None:
    class Odd(ActivityFeed):
        poisonous = True

        async def apply(self, view: object, batch: Sequence[LogEvent]) -> None:
            await super().apply(view, batch)  # type: ignore[arg-type] # a session
            if self.poisonous and any(event.offset == 4 for event in batch):
                raise KeyError("on purpose")

    feed = Odd()
    projector = await project(views, feed, STORY)
    assert [9, 8, 3, 2, 1] == offsets(await activity(views))
    Odd.poisonous = False
    assert 3 == await projector.parking.retry("acme/counter/b")

    assert [10, 9, 8, 5, 4, 3, 2, 1] == offsets(await activity(views))


async def test_a_projection_has_a_checkpoint_before_its_first_event(views: ViewStore) -> None:
    for _ in range(2):
        await project(views, TotalsView())
        [(name, log, checkpoint)] = await views.checkpoints()
        assert ("tenant-totals", "counter", START) == (name, log, checkpoint.offset)
    await project(views, TotalsView(), STORY)
    await project(views, TotalsView())
    assert 10 == (await views.checkpoint("tenant-totals", "counter")).offset
