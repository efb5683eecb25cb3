"""However its partitions are interleaved, a view is what one fold of the log makes of it."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta

import pytest

from flotilla import Checkpoint, LogEvent, Offset, Projection, StreamId, Version, ViewSession
from flotilla.outbox import START
from flotilla.parked import parked_keys
from flotilla.parking import Parking
from flotilla.partition import Repartitioned, marks_of, parts
from flotilla.stores.memory import MemoryStore
from flotilla_contracts.counter import CounterIncremented
from simulation.views import Database, MemoryViews
from svc_projector.counters import CounterView
from svc_projector.projector import Projector

AT = datetime(2026, 5, 17, tzinfo=UTC)
EVENTS = 60


class Delicate(CounterView):
    """The counter view, which cannot fold some events as long as it is `broken`."""

    broken = True

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Write first, refuse then."""
        await CounterView.apply(self, view, batch)
        if self.broken and any(b"poison" in event.payload for event in batch):
            raise ValueError("poison")


class Mended(Delicate):
    """The same, mended."""

    broken = False


def a_log(chance: random.Random) -> list[LogEvent]:
    """Return a log of eight counters, with a poisonous event or two."""
    versions: dict[str, int] = {}
    log = []
    for n in range(1, EVENTS + 1):
        name = chance.choice("abcdefgh")
        versions[name] = versions.get(name, 0) + 1
        note = "poison" if chance.random() < 0.03 else "sound"
        payload = f'{{"counter_id": "{name}", "by": 1, "value": {n}, "note": "{note}"}}'
        stream, at = StreamId(f"acme/counter/{name}"), AT + timedelta(seconds=n)
        kind, version = CounterIncremented.type, Version(versions[name])
        log.append(LogEvent(Offset(n), "acme", stream, version, kind, payload.encode(), at))
    return log


@asynccontextmanager
async def a_view() -> AsyncIterator[MemoryViews]:
    with closing(Database()) as database:
        views = MemoryViews(database)
        await views.migrate(CounterView.name, CounterView.tables)
        yield views


async def folded(views: MemoryViews, part: Projection, log: Sequence[LogEvent], upto: int) -> None:
    """Fold from the checkpoint on, as a process that has just begun does."""
    at = (await views.checkpoint(part.name, part.log)).offset
    parking = Parking(part, views)
    await parking.load()
    if batch := log[at:upto]:
        async for _ in parking.fold(at, batch):
            pass


async def seen(views: MemoryViews) -> tuple[list[object], list[object]]:
    """Return the rows, and what is parked."""
    rows = await views.fetch_across("select * from counter_view order by 1, 2")
    parked = await views.fetch_across(
        'select "offset", key from projection_parked_event order by 1'
    )
    return list(rows), list(parked)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("seed", range(20))
async def test_any_interleaving_of_partitions_is_the_fold_of_the_whole(
    seed: int, count: int
) -> None:
    chance = random.Random(seed)
    log = a_log(chance)
    async with a_view() as whole, a_view() as divided:
        await folded(whole, Delicate(), log, EVENTS)
        behind = list(parts(Delicate(), count))
        while behind:
            part = chance.choice(behind)
            at = (await divided.checkpoint(part.name, part.log)).offset
            await folded(divided, part, log, at + chance.randint(1, 12))
            if at >= EVENTS:
                behind.remove(part)

        assert await seen(whole) == await seen(divided), f"seed {seed}"
        for views, mended in ((whole, [Mended()]), (divided, list(parts(Mended(), count)))):
            for part in mended:
                for key in sorted(await parked_keys(views.fetch_across, part.name, part.log)):
                    await Parking(part, views).retry(key)
        assert await seen(whole) == await seen(divided), f"seed {seed}"
        assert [] == (await seen(divided))[1]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3)])
async def test_a_view_in_other_partitions_is_not_folded_nor_begun(before: int, after: int) -> None:
    """Neither from the start nor by one that was running: the cure is named."""
    log = a_log(random.Random(1))
    async with a_view() as views:
        for part in parts(CounterView(), before):
            await folded(views, part, log, 20)
        told = await seen(views)
        for part in parts(CounterView(), after):
            projector = Projector(part, views, MemoryStore())
            for attempt in (projector.begin, projector.start):
                with pytest.raises(Repartitioned, match=f"--partitions {after}") as refused:
                    await attempt()
                assert refused.value.code == "partitions-changed"
            with pytest.raises(Repartitioned):
                await folded(views, part, log, 20)
        assert told == await seen(views)


async def test_two_that_begin_at_once_with_different_numbers_fold_nothing_both() -> None:
    """Neither saw the other begin; whoever leaves the start does, in that transaction."""
    log = a_log(random.Random(1))
    async with a_view() as views:
        for part in (*parts(CounterView(), 1), *parts(CounterView(), 2)):
            begun = (START, Checkpoint(START))
            await views.advance(part.name, part.log, begun, _nothing)

        for part in (*parts(CounterView(), 1), *parts(CounterView(), 2)):
            with pytest.raises(Repartitioned):
                await folded(views, part, log, 20)

        assert ([], []) == await seen(views)


async def test_marks_know_how_many_parts_there_are_before_all_have_begun() -> None:
    async with a_view() as views:
        first, _second = parts(CounterView(), 2)
        await folded(views, first, a_log(random.Random(1)), 20)

        marks = await marks_of(views, CounterView())

        assert (2, 0, 20) == (marks.count, marks.slowest.offset, marks.fastest.offset)


async def _nothing(_: ViewSession) -> None:
    """Write nothing."""
