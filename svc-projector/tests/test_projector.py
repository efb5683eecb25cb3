"""The loop's core: whatever is delivered, the view is the fold of the ledger up to its checkpoint."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla import (
    Checkpoint,
    Corrupt,
    Fenced,
    LogEvent,
    Offset,
    OutboxEntry,
    StreamId,
    SystemClock,
    Unavailable,
    ViewSession,
    ViewStore,
)
from flotilla.divergence import Diverged
from flotilla.outbox import START
from flotilla.store import Append, Unit
from flotilla.stores.libsql import LibsqlViews
from flotilla.stores.libsql.shadows import LibsqlShadows
from flotilla.stores.memory import MemoryStore
from flotilla.testing import new_event
from svc_projector.projector import Projector

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Journal:
    """Writes every event on the next line: what is skipped, repeated or swapped shows."""

    name = "journal"
    log = "thing"
    staleness_budget_s = 5.0
    tables = ("create table journal (line bigint primary key, payload text not null)",)

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        [(lines,)] = await view.fetch("select count(*) from journal")
        await view.execute_many(
            "insert into journal (line, payload) values ($1, $2)",
            [(lines + n, event.payload.decode()) for n, event in enumerate(batch, start=1)],
        )


class Ledger(MemoryStore):
    """A source: what it has given an offset is published, unless it lost it again."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[int] = set()

    async def grow(self, count: int, *, record: bool = True) -> None:
        """Commit `count` events, over two streams."""
        for _ in range(count):
            n = (await self.status()).committed + 1
            stream = StreamId(f"acme/thing/{n % 2}")
            version = (await self.load(stream)).version
            event = new_event(f'"{n}"', metadata={"traceparent": TRACE})
            await self.commit([Unit((Append(stream, version, (event,)),))])
        if record:
            await self.record_up_to((await self.status()).committed)

    async def record_up_to(self, last: int) -> None:
        await self.record([(n, Offset(n)) for n in range(1, last + 1)])

    async def published(self, *, after: Offset, limit: int) -> Sequence[OutboxEntry]:
        found = await super().published(after=after, limit=10**9)
        return [entry for entry in found if entry.offset not in self.lost][:limit]

    def delivered(self, *offsets: int) -> list[LogEvent]:
        """Return these events as the stream delivers them, recorded or not."""
        events = [self._outbox[offset - 1].event for offset in offsets]
        return [
            LogEvent(
                Offset(offset),
                "acme",
                e.stream,
                e.version,
                e.type,
                e.payload.encode(),
                e.recorded_at,
                event_id=e.event_id,
                correlation=e.event_id,  # of who began a conversation, as the relay writes it
            )
            for offset, e in zip(offsets, events, strict=True)
        ]


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[LibsqlViews]:
    """Open the views in `folder`, as a process of its own would."""
    async with LibsqlViews.open(f"libsql://{folder}/views.db", service="projector") as views:
        await views.migrate(Journal.name, Journal.tables)
        yield views


@pytest.fixture
async def views(tmp_path: Path) -> AsyncIterator[LibsqlViews]:
    async with opened(tmp_path) as views:
        yield views


@pytest.fixture
async def ledger() -> Ledger:
    ledger = Ledger()
    await ledger.grow(12)
    return ledger


async def started(views: ViewStore, ledger: Ledger) -> Projector:
    projector = Projector(Journal(), views, ledger)
    await projector.start()
    return projector


async def journal(views: ViewStore) -> list[int]:
    """Return what was written, line by line, and check that the checkpoint says the same."""
    rows = await views.fetch_across("select line, payload from journal order by line")
    assert list(range(1, len(rows) + 1)) == [line for line, _ in rows]
    assert len(rows) == (await views.checkpoint(Journal.name, Journal.log)).offset
    return [int(payload.strip('"')) for _, payload in rows]


def upto(last: int) -> list[int]:
    return list(range(1, last + 1))


async def test_batches_are_applied_in_order(views: LibsqlViews, ledger: Ledger) -> None:
    projector = await started(views, ledger)

    for batch in ((1, 2, 3), (4,), (5, 6)):
        await projector.project(ledger.delivered(*batch))

    assert upto(6) == await journal(views)
    at = ledger.delivered(6)[0].recorded_at
    assert Checkpoint(Offset(6), at) == projector.checkpoint
    assert projector.checkpoint == await views.checkpoint("journal", "thing")


@pytest.mark.parametrize(
    "again",
    [(1, 2, 3, 4), (4,), (1,), (2, 3), ()],
    ids=["all", "the last", "the first", "the middle", "nothing"],
)
async def test_what_was_applied_is_not_applied_again(
    views: LibsqlViews, ledger: Ledger, again: tuple[int, ...]
) -> None:
    projector = await started(views, ledger)
    await projector.project(ledger.delivered(1, 2, 3, 4))

    await projector.project(ledger.delivered(*again))

    assert upto(4) == await journal(views)


async def test_of_an_overlapping_batch_only_what_is_new_is_applied(
    views: LibsqlViews, ledger: Ledger
) -> None:
    projector = await started(views, ledger)
    await projector.project(ledger.delivered(1, 2, 3, 4))

    await projector.project(ledger.delivered(3, 4, 5, 6))

    assert upto(6) == await journal(views)


async def test_an_event_that_is_twice_in_a_batch_is_applied_once(
    views: LibsqlViews, ledger: Ledger
) -> None:
    projector = await started(views, ledger)

    await projector.project(ledger.delivered(1, 2, 2, 3, 1, 2, 3, 4))

    assert upto(4) == await journal(views)


@pytest.mark.parametrize("left", [4, 6, 12], ids=["fewer", "as many", "more"])
async def test_a_view_of_a_lost_log_passes_over_nothing_that_took_its_offsets(
    views: LibsqlViews, ledger: Ledger, left: int
) -> None:
    """The store was restored from before offset 6, and may have gone on since then."""
    projector = await started(views, ledger)
    await projector.project(ledger.delivered(*upto(6)))
    restored = Ledger()
    await restored.grow(left)
    after = Projector(Journal(), views, restored)

    for _ in range(2):
        with pytest.raises(Diverged, match="`flotilla rebuild journal`"):
            await after.start()

        assert START == after.checkpoint.offset, "nobody is told that this log was read"
        assert upto(6) == await journal(views)


@pytest.mark.parametrize(
    "batch",
    [(5, 6), (1, 2, 5, 6), (2, 4, 5, 9, 12), (12,), (1, 12)],
    ids=["before it", "inside it", "several", "all but the last", "all between"],
)
async def test_a_gap_is_closed_from_the_ledger(
    views: LibsqlViews, ledger: Ledger, batch: tuple[int, ...]
) -> None:
    projector = await started(views, ledger)

    await projector.project(ledger.delivered(*batch))

    assert upto(batch[-1]) == await journal(views)


async def test_a_gap_after_a_checkpoint_is_closed_from_there(
    views: LibsqlViews, ledger: Ledger
) -> None:
    projector = await started(views, ledger)
    await projector.project(ledger.delivered(1, 2, 3))

    await projector.project(ledger.delivered(2, 8, 9))

    assert upto(9) == await journal(views)


async def test_a_long_gap_is_closed_in_bounded_batches(
    views: LibsqlViews, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svc_projector.projector.BATCH_EVENTS_MAX", 4)
    sizes: list[int] = []
    projector = Projector(Journal(), views, ledger, on_applied=lambda b: sizes.append(len(b)))
    await projector.start()

    await projector.project(ledger.delivered(12))

    assert upto(12) == await journal(views)
    assert [4, 4, 3, 1] == sizes


async def test_what_comes_from_the_ledger_is_what_the_stream_would_have_delivered(
    views: LibsqlViews, ledger: Ledger
) -> None:
    seen: list[LogEvent] = []
    projector = Projector(Journal(), views, ledger, on_applied=seen.extend)
    await projector.start()

    await projector.project(ledger.delivered(4))

    assert {TRACE} == {event.traceparent for event in seen[:3]}
    assert ledger.delivered(1, 2, 3) == [replace(e, traceparent=None) for e in seen[:3]]


@pytest.mark.parametrize("lost", [{3}, {4}, {3, 4, 5}, {5}])
async def test_a_gap_that_the_ledger_has_too_is_corrupt_and_nothing_passes_it(
    views: LibsqlViews, ledger: Ledger, lost: set[int]
) -> None:
    projector = await started(views, ledger)
    await projector.project(ledger.delivered(1, 2))
    ledger.lost = lost

    for _ in range(2):
        with pytest.raises(Corrupt, match="offset 3 of thing is neither"):
            await projector.project(ledger.delivered(6, 7))

        assert [1, 2] == await journal(views)
    assert 2 == projector.checkpoint.offset


async def test_a_gap_that_is_not_in_the_ledger_yet_is_no_reason_to_halt(
    views: LibsqlViews,
) -> None:
    """A relay publishes first and records second: between the two, only the stream has it."""
    ledger = Ledger()
    await ledger.grow(5, record=False)
    await ledger.record_up_to(2)
    projector = await started(views, ledger)

    with pytest.raises(Unavailable, match="offset 3 of thing"):
        await projector.project(ledger.delivered(1, 2, 5))

    assert 2 >= len(await journal(views))
    await ledger.record_up_to(5)
    await projector.project(ledger.delivered(1, 2, 5))
    assert upto(5) == await journal(views)


async def test_a_second_instance_is_fenced_and_goes_on_from_the_checkpoint(
    tmp_path: Path, ledger: Ledger
) -> None:
    async with opened(tmp_path) as here, opened(tmp_path) as there:
        first, second = await started(here, ledger), await started(there, ledger)
        await first.project(ledger.delivered(1, 2, 3))

        for _ in range(2):
            with pytest.raises(Fenced):
                await second.project(ledger.delivered(1, 2))
        assert [1, 2, 3] == await journal(there)

        assert 3 == await second.start()
        await second.project(ledger.delivered(1, 2, 3, 4, 5))
        with pytest.raises(Fenced):
            await first.project(ledger.delivered(4))
        assert upto(5) == await journal(here)


@pytest.mark.parametrize("at", [5, 1], ids=["forth, by a rebuild", "back, by a rollback"])
async def test_a_checkpoint_that_somebody_moved_is_noticed_while_the_log_is_silent(
    tmp_path: Path, ledger: Ledger, at: int
) -> None:
    """A silent log delivers empty batches; the projector then begins again from where it is now."""
    async with opened(tmp_path) as views:
        projector = await started(views, ledger)
        await projector.project(ledger.delivered(1, 2, 3))
        await projector.project([])
        places = LibsqlShadows.open(
            f"libsql://{tmp_path}/views.db",
            service="projector",
            projection=Journal(),
            clock=SystemClock(),
        )
        async with places as rebuilt:
            async with rebuilt.shadow() as shadow:
                other = await started(shadow, ledger)
                await other.project(ledger.delivered(*range(1, at + 1)))

            async def nothing(_: ViewSession, since: Checkpoint, __: Checkpoint) -> Checkpoint:
                return since

            await rebuilt.swap(nothing)

        with pytest.raises(Fenced, match=f"is at {at} now"):
            await projector.project([])

        assert at == await projector.start()
        await projector.project(ledger.delivered(6))
        assert upto(6) == await journal(views)


async def test_a_new_instance_resumes_where_the_last_one_was(
    tmp_path: Path, ledger: Ledger
) -> None:
    async with opened(tmp_path) as views:
        await (await started(views, ledger)).project(ledger.delivered(1, 2, 3))

    async with opened(tmp_path) as views:
        projector = Projector(Journal(), views, ledger)
        assert 3 == await projector.start()
        await projector.project(ledger.delivered(3, 4))
        assert upto(4) == await journal(views)


async def test_a_failing_apply_moves_neither_rows_nor_checkpoint(
    views: LibsqlViews, ledger: Ledger
) -> None:
    class Failing(Journal):
        fails = True

        async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
            await super().apply(view, batch)
            if self.fails:
                raise Unavailable("on purpose")

    failing, applied = Failing(), list[LogEvent]()
    projector = Projector(failing, views, ledger, on_applied=applied.extend)
    await projector.start()

    with pytest.raises(Unavailable):
        await projector.project(ledger.delivered(1, 2))

    assert [] == await journal(views)
    assert [] == applied
    assert Checkpoint(START) == projector.checkpoint
    failing.fails = False
    await projector.project(ledger.delivered(1, 2))
    assert [1, 2] == await journal(views)


async def test_whoever_waits_for_the_view_hears_that_it_moved(
    views: LibsqlViews, ledger: Ledger
) -> None:
    projector = await started(views, ledger)

    async def hear() -> Offset:
        async with projector.moved:
            await projector.moved.wait()
            return projector.checkpoint.offset

    waiting = [asyncio.create_task(hear()) for _ in range(3)]
    await asyncio.sleep(0)  # now they wait
    await projector.project([])
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting), "nothing moved, and they were told so"

    await projector.project(ledger.delivered(1, 2))

    async with asyncio.timeout(5):
        assert [2, 2, 2] == await asyncio.gather(*waiting)


# Any schedule of deliveries.


LOG = 20
Step = tuple[str, int, list[int]]
"""What happens, to which of two instances, with which offsets."""

offsets = st.integers(1, LOG)
runs = st.builds(lambda a, b: list(range(min(a, b), max(a, b) + 1)), offsets, offsets)
holey = st.sets(offsets, max_size=LOG).map(sorted)
batches = st.one_of(runs, holey, runs.map(lambda run: sorted(run + run)))
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(0, 1), batches),
        st.tuples(st.just("restart"), st.integers(0, 1), st.just(list[int]())),
        st.tuples(st.just("record"), st.just(0), offsets.map(lambda n: [n])),
    ),
    max_size=25,
)


@given(script=steps)
@settings(max_examples=60, deadline=None)
async def test_any_schedule_of_deliveries_ends_with_the_fold_of_the_ledger(
    tmp_path_factory: pytest.TempPathFactory, script: list[Step]
) -> None:
    ledger = Ledger()
    await ledger.grow(LOG, record=False)
    async with opened(tmp_path_factory.mktemp("views")) as views:
        instances = [await started(views, ledger) for _ in range(2)]
        for kind, i, chosen in script:
            projector = instances[i]
            try:
                match kind:
                    case "record":
                        await ledger.record_up_to(max(chosen[0], await ledger.last_offset()))
                    case "restart":
                        instances[i] = await started(views, ledger)
                    case _:
                        await projector.project(ledger.delivered(*chosen))
            except (Fenced, Unavailable):
                await projector.start()
            written = await journal(views)
            assert upto(len(written)) == written

        await ledger.record_up_to(LOG)
        survivor = instances[0]
        await survivor.start()
        await survivor.project(ledger.delivered(LOG))
        assert upto(LOG) == await journal(views)


async def test_what_is_published_and_not_recorded_yet_waits_for_the_ledger(
    views: LibsqlViews,
) -> None:
    """The broker could still lose it, and its offset could go to another event."""
    ledger, pauses = Ledger(), list[float]()
    await ledger.grow(3, record=False)
    await ledger.record_up_to(2)

    async def relay_records(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 3:
            await ledger.record_up_to(3)

    projector = Projector(Journal(), views, ledger, pause=relay_records)
    await projector.project(ledger.delivered(1, 2, 3))

    assert 3 == len(pauses)
    assert [1, 2, 3] == await journal(views)


async def test_what_never_gets_into_the_ledger_is_never_folded(views: LibsqlViews) -> None:
    """Somebody else published it: it looks like an event, and is none."""
    ledger = Ledger()
    await ledger.grow(2)

    async def no_time(_: float) -> None:
        await asyncio.sleep(0)

    projector = Projector(Journal(), views, ledger, pause=no_time)
    await projector.project(ledger.delivered(1, 2))
    foreign = replace(ledger.delivered(2)[0], offset=Offset(3))
    with pytest.raises(Unavailable, match="not in the ledger"):
        await projector.project([foreign])

    assert [1, 2] == await journal(views)


async def test_what_the_broker_lost_after_it_was_delivered_is_not_folded(
    views: LibsqlViews,
) -> None:
    """Its offset went to another event, which was recorded while this one was waited for."""
    ledger = Ledger()
    await ledger.grow(4)
    projector = await started(views, ledger)
    lost = replace(ledger.delivered(4)[0], offset=Offset(3))

    with pytest.raises(Unavailable, match="has other events there"):
        await projector.project([*ledger.delivered(1, 2), lost])

    assert [] == await journal(views)
    await projector.start()
    await projector.project(ledger.delivered(1, 2, 3, 4))
    assert upto(4) == await journal(views)
