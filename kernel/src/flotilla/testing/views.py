"""What every view store promises, as tests. Subclass with a `views` fixture.

The fixture yields an empty view store in which the table `tally(name, n)` of `TALLY` exists.
"""

import asyncio
from datetime import UTC, datetime

import pytest

from flotilla.outbox import Offset
from flotilla.projection import Checkpoint, Fenced, ViewSession, ViewStore

TALLY = "create table tally (name text primary key, n bigint not null)"
UPSERT = (
    "insert into tally (name, n) values ($1, $2)"
    " on conflict (name) do update set n = tally.n + excluded.n"
)
AT = datetime(2026, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)


def step(start: int, end: int) -> tuple[Offset, Checkpoint]:
    """Return a move of the checkpoint."""
    return Offset(start), Checkpoint(Offset(end), AT)


async def add(view: ViewSession) -> None:
    """Count one and two."""
    await view.execute_many(UPSERT, [("a", 1), ("b", 2)])


async def nothing(_view: ViewSession) -> None:
    """Write nothing."""


class ViewStoreContract:
    """One subclass an adapter; one method a promise."""

    @pytest.fixture
    def views(self) -> ViewStore:
        """Build an empty view store with the table `tally`."""
        raise NotImplementedError

    async def test_a_projection_begins_at_the_start(self, views: ViewStore) -> None:
        """Unknown projections have not folded anything."""
        assert Checkpoint(Offset(0)) == await views.checkpoint("tally", "thing")
        assert [] == list(await views.checkpoints())

    async def test_rows_and_checkpoint_move_together(self, views: ViewStore) -> None:
        """Both are visible afterwards."""
        await views.advance("tally", "thing", step(0, 2), add)
        await views.advance("tally", "thing", step(2, 4), add)

        assert [("a", 2), ("b", 4)] == await self.rows(views)
        assert Checkpoint(Offset(4), AT) == await views.checkpoint("tally", "thing")
        assert [("tally", "thing", Checkpoint(Offset(4), AT))] == list(await views.checkpoints())

    async def test_a_second_delivery_is_fenced_and_changes_nothing(self, views: ViewStore) -> None:
        """The checkpoint is compared and set in the same transaction."""
        await views.advance("tally", "thing", step(0, 2), add)

        for stale in (step(0, 2), step(1, 3), step(5, 6)):
            with pytest.raises(Fenced):
                await views.advance("tally", "thing", stale, add)

        assert [("a", 1), ("b", 2)] == await self.rows(views)
        assert Offset(2) == (await views.checkpoint("tally", "thing")).offset

    async def test_of_two_instances_one_wins(self, views: ViewStore) -> None:
        """Also when they start at the same moment."""
        results = await asyncio.gather(
            *(views.advance("tally", "thing", step(0, 2), add) for _ in range(5)),
            return_exceptions=True,
        )

        assert 4 == sum(isinstance(r, Fenced) for r in results), results
        assert [("a", 1), ("b", 2)] == await self.rows(views)

    async def test_a_failed_apply_moves_nothing(self, views: ViewStore) -> None:
        """Neither rows nor checkpoint; the error comes through, and the next try works."""

        async def fail(view: ViewSession) -> None:
            await add(view)
            raise RuntimeError("on purpose")

        with pytest.raises(RuntimeError, match="on purpose"):
            await views.advance("tally", "thing", step(0, 2), fail)

        assert [] == await self.rows(views)
        await views.advance("tally", "thing", step(0, 2), add)
        assert [("a", 1), ("b", 2)] == await self.rows(views)

    async def test_a_session_reads_its_own_writes(self, views: ViewStore) -> None:
        """And others do not, before it is over."""
        seen: list[object] = []

        async def apply(view: ViewSession) -> None:
            await add(view)
            seen.extend(await view.fetch("select n from tally where name = $1", "b"))

        await views.advance("tally", "thing", step(0, 1), apply)

        assert [(2,)] == seen

    async def test_logs_and_projections_have_checkpoints_of_their_own(
        self, views: ViewStore
    ) -> None:
        """One does not move the other."""
        await views.advance("tally", "thing", step(0, 2), add)

        assert Offset(0) == (await views.checkpoint("tally", "other")).offset
        assert Offset(0) == (await views.checkpoint("other", "thing")).offset

    async def test_a_projection_may_begin_before_there_is_an_event(self, views: ViewStore) -> None:
        """So that one that folds nothing can be told from one that nobody has."""
        for _ in range(2):
            await views.advance("tally", "thing", step(0, 0), nothing)
        assert [("tally", "thing", 0)] == [
            (name, log, at.offset) for name, log, at in await views.checkpoints()
        ]

        await views.advance("tally", "thing", step(0, 2), add)

        assert [("a", 1), ("b", 2)] == await self.rows(views)
        with pytest.raises(Fenced):
            await views.advance("tally", "thing", step(0, 0), nothing)
        assert Offset(2) == (await views.checkpoint("tally", "thing")).offset

    async def test_a_transaction_without_a_checkpoint_is_one_too(self, views: ViewStore) -> None:
        """All of it is written, or nothing; no checkpoint moves."""

        async def fail(view: ViewSession) -> None:
            await add(view)
            raise RuntimeError("on purpose")

        await views.transact(add)
        with pytest.raises(RuntimeError, match="on purpose"):
            await views.transact(fail)

        assert [("a", 1), ("b", 2)] == await self.rows(views)
        assert [] == list(await views.checkpoints())

    async def test_nobody_waits_for_a_lock_when_nobody_has_one(self, views: ViewStore) -> None:
        """Whoever can see locks sees none."""
        assert [] == list(await views.lock_waits())

    async def rows(self, views: ViewStore) -> list[tuple[object, ...]]:
        """Return what is in the view."""
        return [
            tuple(r) for r in await views.fetch_across("select name, n from tally order by name")
        ]
