"""A view's shadow on libSQL: a file of its own beside the live one, swapped in by copying.

    <file>                        live
    <file>.shadow-<projection>    the same names: the same SQL, on another file
    <file>.old-<projection>       what was live

    swap:  copy live aside ─▶ BEGIN IMMEDIATE ─▶ drop, create, insert … select from the shadow
           ─▶ fold the last events ─▶ checkpoint ─▶ COMMIT

Files cannot be renamed under readers, so the rows are copied, in one transaction of the live file:
readers never wait and see one state or the other; whoever writes to this file waits for the copy. That
is this adapter's limit: about a second for a million rows, and after `LOCK_WAIT_S` the projector
reports `store-locked` and tries again. A process that dies leaves the live view whole, and at most a
copy of it too many.
"""

import fcntl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from flotilla.clock import Clock
from flotilla.partition import Marks, all_at, marks_of
from flotilla.projection import Checkpoint, Projection, Row, ViewStore
from flotilla.shadow import (
    Amend,
    CatchUp,
    Claimed,
    Comparison,
    Difference,
    NoSuchPlace,
    Place,
    Standing,
    Swapped,
)
from flotilla.stores.comparison import PAGE_ROWS_MAX, Table, compare_table, incomparable
from flotilla.stores.libsql import places
from flotilla.stores.libsql.connection import LOCK_WAIT_S, Connection, Lane, path_of
from flotilla.stores.libsql.views import LibsqlSession, LibsqlViews

COPY_LIMIT_S = 600.0
"""How long a copy of a whole view may take."""


@dataclass(frozen=True)
class LibsqlShadows:
    """The places of one projection's view. Open it with `LibsqlShadows.open`."""

    live: LibsqlViews
    _path: str
    _projection: Projection
    _clock: Clock

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, service: str, projection: Projection, clock: Clock
    ) -> AsyncIterator[Self]:
        """Yield the places of `projection` among the views in a file."""
        async with LibsqlViews.open(url, service=service, clock=clock) as views:
            yield cls(views, path_of(url), projection, clock)

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[None]:
        """Hold a lock on a file of its own, which the kernel lets go when the process ends."""
        with Path(f"{self._path}.claim-{self._projection.name}").open("w") as file:  # noqa: ASYNC230 - an empty file
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                name = self._projection.name
                raise Claimed(f"somebody else rebuilds {name} just now: let one end") from error
            yield

    @asynccontextmanager
    async def shadow(self) -> AsyncIterator[ViewStore]:
        """Yield the shadow, with the projection's tables."""
        url = f"libsql://{self._file('shadow')}"
        async with LibsqlViews.open(url, service=self._projection.name, clock=self._clock) as views:
            await views.migrate(self._projection.name, self._projection.tables)
            yield views

    async def standing(self) -> Standing:
        """Return where each place is in the log."""
        found: dict[Place, Checkpoint | None] = {"shadow": None, "old": None}
        for place in found:
            if self._file(place).exists():
                async with self._lane(self._file(place)) as lane:
                    found[place] = (await lane.run(self._marks)).slowest
        live = (await marks_of(self.live, self._projection)).slowest
        return Standing(live, found["shadow"], found["old"])

    async def compare(self, catch_up: CatchUp, *, differences_max: int) -> Comparison:
        """Bring the shadow to where the live view is, and compare both in one snapshot."""
        of = self._projection
        async with self._lane(self._require("shadow"), self._path, "live") as lane:
            await lane.run(partial(Connection.run, sql="begin"))
            wanted = await lane.run(lambda c: places.marks(c, "live", of))
            since = (await lane.run(self._marks)).slowest
            reached = await self._fold(lane, catch_up, since, wanted.slowest)
            await lane.run(lambda c: places.put(c, "main", of, Marks({of.name: reached})))
            ours = await lane.run(lambda c: places.history(c, "live", of))
            theirs = await lane.run(lambda c: places.history(c, "main", of))
            if reason := incomparable(wanted, reached, ours, theirs):
                return Comparison(reached, reason=reason)
            compared, different, shown = [], 0, list[Difference]()
            for table in await lane.run(lambda c: places.tables(c, "main")):
                rows, count, differences = await compare_table(
                    table,
                    _pages(lane, "live", table),
                    _pages(lane, "main", table),
                    differences_max=differences_max - len(shown),
                )
                compared.append(rows)
                different += count
                shown += differences
            await lane.run(Connection.commit)
        return Comparison(reached, tuple(compared), different, tuple(shown))

    async def swap(self, catch_up: CatchUp, *, partitions: int | None = None) -> Swapped:
        """Make the shadow live, in one transaction."""
        self._require("shadow")
        aside = await self._copy_aside("shadow")
        self._forget("old")
        aside.rename(self._file("old"))
        swapped = await self._replace("shadow", catch_up, partitions)
        self._forget("shadow")
        return swapped

    async def roll_back(self) -> Swapped:
        """Exchange live and old, each with its checkpoint."""
        self._require("old")
        aside = await self._copy_aside("old")
        swapped = await self._replace("old", None, None)
        self._forget("old")
        aside.rename(self._file("old"))
        return swapped

    async def forget(self, place: Place) -> bool:
        """Drop a place."""
        return self._forget(place)

    async def amend(self, change: Amend) -> None:
        """Change the live view's rows while nobody else writes to the file."""
        async with self._lane(Path(self._path)) as lane:
            await lane.run(Connection.begin)
            session = LibsqlSession(lane)
            await change(session, await lane.run(self._marks))
            session.end()
            await lane.run(Connection.commit)

    async def _copy_aside(self, like: Place) -> Path:
        """Copy the live view to a file of its own, as of one moment; nobody waits for it."""
        aside = Path(f"{self._path}.aside-{self._projection.name}")
        aside.unlink(missing_ok=True)  # noqa: ASYNC240 - one system call
        async with self._lane(self._file(like)) as lane:
            wanted = await lane.run(lambda c: places.tables(c, "main"))

        def copy(connection: Connection) -> None:
            connection.run("begin")  # not immediate: that would lock the live file, too
            known = {table.name for table in places.tables(connection, "live")}
            places.make_own(connection, "live")
            kept = [table for table in wanted if table.name in known]
            places.replace(connection, "live", self._projection, kept)
            at = places.marks(connection, "live", self._projection)
            places.put(connection, "main", self._projection, at)
            places.take_parked(connection, "live", self._projection)
            connection.commit()

        def settle(connection: Connection) -> None:
            connection.run("detach database live")
            connection.rows("pragma journal_mode = delete")  # all in one file, to be renamed

        async with self._lane(aside, self._path, "live") as lane:
            await lane.run(copy, limit_s=COPY_LIMIT_S)
            await lane.run(settle)
        return aside

    async def _replace(
        self, place: Place, catch_up: CatchUp | None, partitions: int | None
    ) -> Swapped:
        """Replace the live view; a shadow is in so many partitions then, or as many as live was."""
        of, now_s = self._projection, self._clock.monotonic_s
        async with self._lane(Path(self._path), self._file(place), "place") as lane:
            await lane.run(Connection.begin)
            locked_s = now_s()
            was = await lane.run(self._marks)
            begun = new = await lane.run(lambda c: places.marks(c, "place", of))
            wanted = await lane.run(lambda c: places.tables(c, "place"))
            await lane.run(lambda c: places.replace(c, "place", of, wanted), limit_s=COPY_LIMIT_S)
            if catch_up:
                reached = await self._fold(lane, catch_up, new.slowest, was.fastest)
                new = all_at(of, partitions or was.count, reached)
            await lane.run(lambda c: places.put(c, "main", of, new))
            await lane.run(lambda c: places.take_parked(c, "place", of))
            await lane.run(Connection.commit)
            waited_ms = 1e3 * (now_s() - locked_s)
        end = new.slowest
        return Swapped(end, end.offset - begun.slowest.offset, waited_ms, 0.0)

    async def _fold(
        self, lane: Lane, catch_up: CatchUp, since: Checkpoint, to: Checkpoint
    ) -> Checkpoint:
        if since.offset >= to.offset:
            return since
        session = LibsqlSession(lane)
        reached = await catch_up(session, since, to)
        session.end()
        return reached

    def _marks(self, connection: Connection) -> Marks:
        return places.marks(connection, "main", self._projection)

    def _file(self, place: Place) -> Path:
        return Path(f"{self._path}.{place}-{self._projection.name}")

    def _require(self, place: Place) -> Path:
        if not self._file(place).exists():
            raise NoSuchPlace(f"{self._projection.name} has no {place} view")
        return self._file(place)

    def _forget(self, place: Place) -> bool:
        file = self._file(place)
        found = file.exists()
        for end in ("", "-wal", "-shm"):
            Path(f"{file}{end}").unlink(missing_ok=True)
        return found

    @asynccontextmanager
    async def _lane(
        self, file: Path, attached: Path | str | None = None, name: str = ""
    ) -> AsyncIterator[Lane]:
        """Lend a connection of its own to `file`; what it does not commit is taken back."""
        lane = await Lane.open(str(file), lock_wait_s=LOCK_WAIT_S, query_only=False)
        try:
            await lane.run(partial(Connection.run, sql="pragma foreign_keys = off"))
            if attached:
                await lane.run(lambda c: places.attach(c, str(attached), name))
            yield lane
        finally:
            lane.post(Connection.rollback)
            await lane.close()


async def _pages(lane: Lane, place: str, table: Table) -> AsyncIterator[Sequence[Row]]:
    pages = await lane.run(lambda c: c.pages(places.ordered(place, table), PAGE_ROWS_MAX))
    while page := await lane.run(lambda _: next(pages, None)):
        yield page
