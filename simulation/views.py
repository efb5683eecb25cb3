"""Read models in memory: an SQLite database without a file, which passes the kernel's suites.

One transaction at a time; whoever waits too long for it is told `Unavailable`. A transaction that was
not committed leaves nothing, and what its process had still on its way is refused.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from flotilla import Checkpoint, Corrupt, Fenced, Offset, Unavailable, ViewSession
from flotilla.clock import from_us, to_us
from flotilla.heartbeat import TABLES as HEARTBEAT_TABLES
from flotilla.outbox import START
from flotilla.parked import TABLES as PARKED_TABLES
from flotilla.projection import LockWait, Row, about_one_tenant

LOCK_WAIT_S = 5.0
_CHECKPOINTS = """
create table projection_checkpoint (
    projection text not null, log text not null, "offset" integer not null, recorded_at_us integer,
    primary key (projection, log)
)
"""
_FIND = (
    'select "offset", recorded_at_us from projection_checkpoint where projection = $1 and log = $2'
)
_MOVE = "insert or replace into projection_checkpoint values ($1, $2, $3, $4)"
_ALL = 'select projection, log, "offset", recorded_at_us from projection_checkpoint order by 1, 2'


class Reach(Protocol):
    """How a statement gets to the database and its answer back."""

    async def __call__[T](self, what: str, do: Callable[[], T], detail: str = "") -> T:
        """Have `do` done there."""
        ...


async def directly[T](what: str, do: Callable[[], T], detail: str = "") -> T:  # noqa: ARG001 - a `Reach`
    """Do it here and now."""
    return do()


class Database:
    """What all processes share."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.turn = asyncio.Lock()
        self.applied: dict[str, list[str]] = {}
        for script in (_CHECKPOINTS, *PARKED_TABLES, *HEARTBEAT_TABLES):
            self.connection.executescript(script)

    def close(self) -> None:
        """Forget everything."""
        self.connection.close()

    def run(self, sql: str, parameters: Sequence[object]) -> list[Row]:
        """Run a statement; parameters are by number: $1, $2."""
        named = {str(n): value for n, value in enumerate(parameters, start=1)}
        return list(self.connection.execute(sql, named).fetchall())


@dataclass(slots=True)
class Session:
    """One transaction. Implements `ViewSession`."""

    database: Database
    reach: Reach
    over: bool = False

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query."""
        return await self.run("view.fetch", lambda: self.database.run(sql, parameters))

    async def execute_many(self, sql: str, rows: Sequence[Row]) -> None:
        """Run a statement for each row."""
        await self.run("view.write", lambda: [self.database.run(sql, row) for row in rows])

    async def run[T](self, what: str, do: Callable[[], T]) -> T:
        """Have something done within this transaction."""

        def within() -> T:
            if self.over:
                raise Unavailable("this transaction is over")
            return do()

        return await self.reach(what, within)


@dataclass(slots=True)
class MemoryViews:
    """Implements `ViewStore`."""

    database: Database
    reach: Reach = directly
    moved: Callable[[], None] = field(default=lambda: None)
    """Called right after each commit."""

    async def migrate(self, projection: str, tables: Sequence[str]) -> None:
        """Apply those of `tables` that are not applied yet."""
        applied = self.database.applied.setdefault(projection, [])
        if applied != list(tables[: len(applied)]):
            raise Corrupt(f"{projection}: a migration was changed")
        async with self._transaction() as session:
            for script in tables[len(applied) :]:
                await session.execute_many(script, [()])
        applied[:] = tables

    async def checkpoint(self, projection: str, log: str) -> Checkpoint:
        """Return how far `projection` is."""
        return _checkpoint(await self.fetch(_FIND, projection, log))

    async def advance(
        self,
        projection: str,
        log: str,
        step: tuple[Offset, Checkpoint],
        apply: Callable[[ViewSession], Awaitable[None]],
    ) -> None:
        """Run `apply` and move the checkpoint, in one transaction."""
        start, end = step
        at_us = to_us(end.recorded_at) if end.recorded_at else None
        async with self._transaction() as session:
            found = _checkpoint(await session.fetch(_FIND, projection, log)).offset
            if found != start:
                raise Fenced(f"{projection}: the checkpoint is at {found}, not at {start}")
            await apply(session)
            await session.execute_many(_MOVE, [(projection, log, end.offset, at_us)])

    async def transact(self, apply: Callable[[ViewSession], Awaitable[None]]) -> None:
        """Run `apply` in one transaction."""
        async with self._transaction() as session:
            await apply(session)

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query."""
        async with self._turn():
            return await Session(self.database, self.reach).fetch(sql, *parameters)

    async def fetch_of(self, tenant: str, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query about one tenant."""
        return await self.fetch(about_one_tenant(sql), tenant, *parameters)

    async def fetch_across(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query about every tenant."""
        return await self.fetch(sql, *parameters)

    async def checkpoints(self) -> Sequence[tuple[str, str, Checkpoint]]:
        """Return every checkpoint, by projection."""
        return [(p, log, _checkpoint([end])) for p, log, *end in await self.fetch(_ALL)]

    async def lock_waits(self) -> Sequence[LockWait]:
        """Return nothing: here nobody can see who waits."""
        return []

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Session]:
        connection = self.database.connection
        async with self._turn():
            connection.execute("begin")
            session = Session(self.database, self.reach)
            try:
                yield session
                await session.run("view.commit", lambda: self._commit(session))
            finally:
                session.over = True
                if connection.in_transaction:
                    connection.execute("rollback")

    def _commit(self, session: Session) -> None:
        session.over = True
        self.database.connection.execute("commit")
        self.moved()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(LOCK_WAIT_S):
                await self.database.turn.acquire()
        except TimeoutError as error:
            raise Unavailable("somebody else has the views locked") from error
        try:
            yield
        finally:
            self.database.turn.release()


def _checkpoint(rows: Sequence[Sequence[Any]]) -> Checkpoint:
    if not rows:
        return Checkpoint(START)
    [(offset, at_us)] = rows
    return Checkpoint(Offset(offset), None if at_us is None else from_us(at_us))
