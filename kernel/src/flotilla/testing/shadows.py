"""What every shadow store promises, as tests. Subclass with a `places` fixture.

The fixture yields the places of `Tally`, whose live view is migrated and empty.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from flotilla.outbox import LogEvent, Offset
from flotilla.partition import Marks, parts
from flotilla.projection import Checkpoint, Fenced, Projection, Row, ViewSession, ViewStore
from flotilla.shadow import Claimed, NoSuchPlace, ShadowStore, Standing, TooFarBehind
from flotilla.testing.views import AT, TALLY, UPSERT

LOG = "thing"
Apply = Callable[[ViewSession], Awaitable[None]]


class Tally:
    """Counts names. It has an index and a second table: both have to come along."""

    name = "tally"
    log = LOG
    staleness_budget_s = 5.0
    tables = (
        TALLY,
        (
            "create table heard (tenant text not null, at bigint not null, primary key (tenant, at));"
            " create index heard_at on heard (at)"
        ),
    )

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Count the payload of each event."""
        await view.execute_many(UPSERT, [(event.payload.decode(), 1) for event in batch])


def counts(*names: str) -> Apply:
    """Return what counts these names."""

    async def apply(view: ViewSession) -> None:
        await view.execute_many(UPSERT, [(name, 1) for name in names])

    return apply


def up_to(offset: int) -> Checkpoint:
    """Return a checkpoint."""
    return Checkpoint(Offset(offset), AT if offset else None)


async def nothing_to_catch_up(_: ViewSession, at: Checkpoint, to: Checkpoint) -> Checkpoint:
    """Fail the test: the shadow was not behind."""
    raise AssertionError(f"asked to fold from {at.offset} to {to.offset}")


class ShadowStoreContract:
    """One subclass an adapter; one method a promise."""

    @pytest.fixture
    def places(self) -> ShadowStore:
        """Build the places of `Tally`, with an empty live view."""
        raise NotImplementedError

    async def test_at_first_there_is_only_the_live_view(self, places: ShadowStore) -> None:
        """And what there is not cannot be swapped, compared, rolled back to or forgotten."""
        assert Standing(up_to(0), None, None) == await places.standing()
        for attempt in (
            places.swap(nothing_to_catch_up),
            places.compare(nothing_to_catch_up, differences_max=9),
            places.roll_back(),
        ):
            with pytest.raises(NoSuchPlace):
                await attempt
        assert not await places.forget("shadow")
        assert not await places.forget("old")
        assert Standing(up_to(0), None, None) == await places.standing()

    async def test_only_one_claims_the_places(self, places: ShadowStore) -> None:
        """The second is refused at once; when the first has ended, however, it may."""
        async with places.claim():
            with pytest.raises(Claimed):
                await places.claim().__aenter__()

        async def fail() -> None:
            async with places.claim():
                raise RuntimeError("on purpose")

        with pytest.raises(RuntimeError, match="on purpose"):
            await fail()
        async with places.claim():
            await self.fold(places.live, 0, 1, "a")

    async def test_the_shadow_is_a_view_of_its_own(self, places: ShadowStore) -> None:
        """Rows, checkpoint and fence: the live view sees nothing of it, nor it of the live one."""
        await self.fold(places.live, 0, 2, "a", "b")

        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 1, "x")
            with pytest.raises(Fenced):
                await self.fold(shadow, 0, 1, "y")
            assert [("x", 1)] == await self.rows(shadow)

        assert [("a", 1), ("b", 1)] == await self.rows(places.live)
        assert Standing(up_to(2), up_to(1), None) == await places.standing()

    async def test_a_shadow_is_gone_on_with(self, places: ShadowStore) -> None:
        """It is as it was left: that is what makes a rebuild resumable."""
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 1, "x")

        async with places.shadow() as shadow:
            assert up_to(1) == await shadow.checkpoint("tally", LOG)
            await self.fold(shadow, 1, 2, "x")
            assert [("x", 2)] == await self.rows(shadow)

    async def test_a_forgotten_shadow_is_begun_anew(self, places: ShadowStore) -> None:
        """Cancelled: the live view was never touched."""
        await self.fold(places.live, 0, 1, "a")
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 1, "x")

        assert await places.forget("shadow")

        assert Standing(up_to(1), None, None) == await places.standing()
        async with places.shadow() as shadow:
            assert [] == await self.rows(shadow)
        assert [("a", 1)] == await self.rows(places.live)

    async def test_a_swap_makes_the_shadow_live_and_keeps_the_old(
        self, places: ShadowStore
    ) -> None:
        """With the last events folded in; the projector goes on from the same checkpoint."""
        await self.fold(places.live, 0, 3, "wrong")
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 2, "a", "b")

        swapped = await places.swap(self.catch_up("c"))

        assert (up_to(3), 1) == (swapped.checkpoint, swapped.events)
        assert [("a", 1), ("b", 1), ("c", 1)] == await self.rows(places.live)
        assert Standing(up_to(3), None, up_to(3)) == await places.standing()
        await self.fold(places.live, 3, 4, "c")
        assert [("a", 1), ("b", 1), ("c", 2)] == await self.rows(places.live)

    async def test_a_shadow_that_is_ahead_moves_the_checkpoint_on(
        self, places: ShadowStore
    ) -> None:
        """A projector that stood still is fenced, and goes on from there."""
        await self.fold(places.live, 0, 1, "a")
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 5, "a", "b")

        await places.swap(nothing_to_catch_up)

        assert Standing(up_to(5), None, up_to(1)) == await places.standing()
        with pytest.raises(Fenced):
            await self.fold(places.live, 1, 2, "b")
        await self.fold(places.live, 5, 6, "b")

    async def test_a_view_that_never_began_can_be_swapped_in(self, places: ShadowStore) -> None:
        """And going back to nothing is to begin at the start."""
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 5, "a")

        await places.swap(nothing_to_catch_up)
        assert Standing(up_to(5), None, up_to(0)) == await places.standing()

        await places.roll_back()
        assert Standing(up_to(0), None, up_to(5)) == await places.standing()
        await self.fold(places.live, 0, 1, "z")
        assert [("z", 1)] == await self.rows(places.live)

    async def test_a_swap_that_fails_changes_nothing(self, places: ShadowStore) -> None:
        """The error comes through; the live view goes on, and the shadow can be gone on with."""
        await self.fold(places.live, 0, 3, "live")
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 2, "a")

        async def fail(view: ViewSession, at: Checkpoint, to: Checkpoint) -> Checkpoint:
            await self.catch_up("c")(view, at, to)
            raise TooFarBehind("on purpose")

        with pytest.raises(TooFarBehind, match="on purpose"):
            await places.swap(fail)

        assert [("live", 1)] == await self.rows(places.live)
        standing = await places.standing()
        assert (up_to(3), up_to(2)) == (standing.live, standing.shadow)
        await self.fold(places.live, 3, 4, "live")
        await places.swap(self.catch_up("c", "c"))
        assert [("a", 1), ("c", 2)] == await self.rows(places.live)

    async def test_rolling_back_brings_rows_and_checkpoint_back(self, places: ShadowStore) -> None:
        """Where the old view was; whoever projects folds the rest. Back and forth, if need be."""
        await self.fold(places.live, 0, 2, "old")
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 2, "new")
        await places.swap(nothing_to_catch_up)
        await self.fold(places.live, 2, 4, "new")

        assert up_to(2) == (await places.roll_back()).checkpoint

        assert [("old", 1)] == await self.rows(places.live)
        assert Standing(up_to(2), None, up_to(4)) == await places.standing()
        with pytest.raises(Fenced):
            await self.fold(places.live, 4, 5, "new")
        await self.fold(places.live, 2, 5, "old")

        await places.roll_back()
        assert [("new", 2)] == await self.rows(places.live)
        assert Standing(up_to(4), None, up_to(5)) == await places.standing()

    async def test_partitions_are_held_compared_and_swapped_together(
        self, places: ShadowStore
    ) -> None:
        """At the fastest one's offset, all of them: none goes on where it was."""
        first, second = parts(Tally(), 2)
        await self.fold(places.live, 0, 3, "a", part=first)
        await self.fold(places.live, 0, 2, "b", part=second)
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 2, "a", "b")
        assert (up_to(2), up_to(2)) == ((s := await places.standing()).live, s.shadow)
        found = await places.compare(nothing_to_catch_up, differences_max=9)
        assert found.reason == "its partitions stand at offsets 2 to 3: try again"

        await places.swap(self.catch_up("c"))

        assert [(first.name, 3), (second.name, 3)] == await self.marks(places.live)
        for part in (first, second):
            with pytest.raises(Fenced):
                await self.fold(places.live, 2, 4, "b", part=part)
            await self.fold(places.live, 3, 4, "c", part=part)

        await places.roll_back()
        assert [(first.name, 3), (second.name, 2)] == await self.marks(places.live)
        assert [("a", 1), ("b", 1)] == await self.rows(places.live)

    async def test_a_partition_that_has_not_begun_is_put_where_the_others_are(
        self, places: ShadowStore
    ) -> None:
        """Or it would begin at the start, on top of what the shadow had folded of it."""
        first, second = parts(Tally(), 2)
        await self.fold(places.live, 0, 1, "a", part=first)
        assert up_to(0) == (await places.standing()).live
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 1, "a", "b")

        await places.swap(nothing_to_catch_up)

        assert [(first.name, 1), (second.name, 1)] == await self.marks(places.live)

    @pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (2, 1)])
    async def test_a_swap_may_change_the_number_of_partitions(
        self, places: ShadowStore, before: int, after: int
    ) -> None:
        """Whoever folds by the number of before finds its checkpoint gone; a rollback brings it back."""
        for part in parts(Tally(), before):
            await self.fold(places.live, 0, 2, part.name, part=part)
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 2, "a")

        await places.swap(nothing_to_catch_up, partitions=after)

        assert [(p.name, 2) for p in parts(Tally(), after)] == await self.marks(places.live)
        for part in parts(Tally(), before):
            with pytest.raises(Fenced):
                await self.fold(places.live, 2, 3, "b", part=part)
        await places.roll_back()
        assert [(p.name, 2) for p in parts(Tally(), before)] == await self.marks(places.live)

    async def test_amending_holds_all_partitions_still(self, places: ShadowStore) -> None:
        """And says where each of them is."""
        first, second = parts(Tally(), 2)
        await self.fold(places.live, 0, 3, "a", part=first)
        await self.fold(places.live, 0, 2, "b", part=second)
        begun, seen = asyncio.Event(), list[Marks]()

        async def change(view: ViewSession, marks: Marks) -> None:
            begun.set()
            seen.append(marks)
            await view.execute_many("delete from tally where name = $1", [("a",)])

        async def project() -> None:
            await begun.wait()
            await self.fold(places.live, 2, 3, "a", part=second)

        await asyncio.gather(places.amend(change), project())

        assert [{first.name: up_to(3), second.name: up_to(2)}] == [m.by_name for m in seen]
        assert [("a", 1), ("b", 1)] == await self.rows(places.live)

    async def test_the_next_swap_replaces_the_old_view(self, places: ShadowStore) -> None:
        """Only one is kept, and it can be dropped."""
        for n in (1, 2, 3):
            async with places.shadow() as shadow:
                await self.fold(shadow, 0, n, *"abc"[:n])
            await places.swap(nothing_to_catch_up)

        assert Standing(up_to(3), None, up_to(2)) == await places.standing()
        assert await places.forget("old")
        assert Standing(up_to(3), None, None) == await places.standing()
        assert [("a", 1), ("b", 1), ("c", 1)] == await self.rows(places.live)

    async def test_the_live_view_is_migrated_after_swaps_as_before(
        self, places: ShadowStore
    ) -> None:
        """The schema's history went along: starting the service again finds nothing to do."""
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 1, "a")
        await places.swap(nothing_to_catch_up)
        await places.live.migrate(Tally.name, Tally.tables)
        await places.roll_back()
        await places.live.migrate(Tally.name, Tally.tables)

    async def test_equal_views_compare_as_the_same(self, places: ShadowStore) -> None:
        """At one checkpoint, to which the shadow is brought; hashes and counts say so."""
        await self.fold(places.live, 0, 3, "a", "b", "c")
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 2, "b", "a")

        found = await places.compare(self.catch_up("c"), differences_max=9)

        assert found.same
        assert up_to(3) == found.checkpoint == (await places.standing()).shadow
        assert {("heard", 0, 0), ("tally", 3, 3)} == {
            (table.table, table.live_rows, table.shadow_rows) for table in found.tables
        }
        assert all(table.live_hash == table.shadow_hash for table in found.tables)

    async def test_a_comparison_names_the_rows_that_differ(self, places: ShadowStore) -> None:
        """Changed, missing and too many: with key and both values, bounded, all of them counted."""
        await self.fold(places.live, 0, 2, "b", "c", "c", "e", "é")
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 2, "a", "b", "c", "é")

        found = await places.compare(nothing_to_catch_up, differences_max=2)

        assert (3, False, None) == (found.different, found.same, found.reason)
        assert [
            ("tally", ("a",), None, ("a", 1)),
            ("tally", ("c",), ("c", 2), ("c", 1)),
        ] == [(d.table, d.key, d.live, d.shadow) for d in found.differences]
        full = await places.compare(nothing_to_catch_up, differences_max=9)
        assert [("e",)] == [d.key for d in full.differences if d.shadow is None]

    async def test_a_comparison_reads_pages_without_end(self, places: ShadowStore) -> None:
        """More rows than fit into one page, in the order of bytes and not of a locale."""
        names = [f"{letter}{n}" for n in range(4000) for letter in "Zaé"]
        await self.fold(places.live, 0, 1, *names)
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 1, *reversed(names[:-1]))

        found = await places.compare(nothing_to_catch_up, differences_max=9)

        assert [((names[-1],), None)] == [(d.key, d.shadow) for d in found.differences]

    async def test_views_at_different_offsets_are_not_compared(self, places: ShadowStore) -> None:
        """Or differences would be reported that are none. It says why."""
        async with places.shadow() as shadow:
            await self.fold(shadow, 0, 5, "a")
        found = await places.compare(nothing_to_catch_up, differences_max=9)
        assert (False, "the live view has not begun") == (found.same, found.reason)

        await self.fold(places.live, 0, 1, "a")
        found = await places.compare(nothing_to_catch_up, differences_max=9)
        assert found.reason == "the live view is at 1, behind the shadow at 5"

    async def test_amending_holds_the_checkpoint_still(self, places: ShadowStore) -> None:
        """Rows change in one transaction; a batch that comes meanwhile is applied after it."""
        await self.fold(places.live, 0, 2, "a")
        begun, seen = asyncio.Event(), list[Checkpoint]()

        async def change(view: ViewSession, marks: Marks) -> None:
            begun.set()
            seen.append(marks.slowest)
            await view.execute_many("delete from tally where name = $1", [("a",)])
            await counts("b")(view)

        async def project() -> None:
            await begun.wait()
            await self.fold(places.live, 2, 3, "b")

        await asyncio.gather(places.amend(change), project())

        assert [up_to(2)] == seen
        assert [("b", 2)] == await self.rows(places.live)
        assert up_to(3) == (await places.standing()).live

    async def test_an_amendment_that_fails_changes_nothing(self, places: ShadowStore) -> None:
        """And holds nobody up afterwards."""
        await self.fold(places.live, 0, 2, "a")

        async def fail(view: ViewSession, _: Marks) -> None:
            await counts("a")(view)
            raise RuntimeError("on purpose")

        with pytest.raises(RuntimeError, match="on purpose"):
            await places.amend(fail)

        assert [("a", 1)] == await self.rows(places.live)
        await self.fold(places.live, 2, 3, "a")

    async def test_readers_see_one_view_or_the_other(self, places: ShadowStore) -> None:
        """Never an empty one, a partial one, or an error; also through statements kept prepared."""
        await self.fold(places.live, 0, 1, *[f"n{n}" for n in range(500)])
        seen, over = list[Row](), asyncio.Event()

        async def read() -> None:
            while not over.is_set():
                [row] = await places.live.fetch_across("select count(*), sum(n) from tally")
                seen.append((int(row[0]), int(row[1])))

        readers = [asyncio.create_task(read()) for _ in range(3)]
        try:
            for n in (2, 3):
                async with places.shadow() as shadow:
                    await self.fold(shadow, 0, n, *[f"n{n % 500}" for n in range(500 * n)])
                await places.swap(nothing_to_catch_up)
            await places.roll_back()
        finally:
            over.set()
        await asyncio.gather(*readers)

        assert {(500, 500), (500, 1000), (500, 1500)} >= set(seen)
        assert [(500, 1000)] == await self.rows(places.live, "select count(*), sum(n) from tally")

    async def fold(
        self, views: ViewStore, start: int, end: int, *names: str, part: Projection | None = None
    ) -> None:
        """Count names, and move the checkpoint, or that of a part."""
        name = part.name if part else "tally"
        await views.advance(name, LOG, (Offset(start), up_to(end)), counts(*names))

    async def marks(self, views: ViewStore) -> list[tuple[str, int]]:
        """Return where each part is."""
        return [(name, at.offset) for name, _, at in await views.checkpoints()]

    def catch_up(
        self, *names: str
    ) -> Callable[[ViewSession, Checkpoint, Checkpoint], Awaitable[Checkpoint]]:
        """Return what folds the rest by counting these names."""

        async def apply(view: ViewSession, _: Checkpoint, to: Checkpoint) -> Checkpoint:
            await counts(*names)(view)
            return to

        return apply

    async def rows(
        self, views: ViewStore, sql: str = "select name, n from tally order by name"
    ) -> list[tuple[object, ...]]:
        """Return what is in the view."""
        return [tuple(row) for row in await views.fetch_across(sql)]
