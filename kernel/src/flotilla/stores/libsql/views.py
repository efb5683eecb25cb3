"""Read models in a libSQL file, with their checkpoints in the same transaction."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Self

from flotilla.clock import Clock, SystemClock, from_us, to_us
from flotilla.errors import Unavailable
from flotilla.heartbeat import TABLES as HEARTBEAT_TABLES
from flotilla.outbox import START, Offset
from flotilla.parked import TABLES as PARKED_TABLES
from flotilla.projection import Checkpoint, Fenced, LockWait, Row, ViewSession, about_one_tenant
from flotilla.stores.libsql.connection import (
    LOCK_WAIT_S,
    Connection,
    Database,
    Lane,
    open_database,
    open_read_only,
)
from flotilla.stores.libsql.schema import check, migrate
from flotilla.stores.migrations import Migration, numbered, table_migrations

APPLY_LIMIT_S = 60.0
"""How long one batch may hold the write lock."""

_CHECKPOINTS = Migration(
    1,
    "projection_checkpoint",
    """
create table projection_checkpoint (
    projection text not null,
    log text not null,
    "offset" integer not null,
    recorded_at integer, -- microseconds since 1970, UTC
    primary key (projection, log)
) strict
""",
)
_BEGIN = """
insert into projection_checkpoint (projection, log, "offset", recorded_at) values (?1, ?2, ?3, ?4)
on conflict (projection, log) do update set
    "offset" = excluded."offset", recorded_at = excluded.recorded_at
where projection_checkpoint."offset" = 0
"""
_MOVE = """
update projection_checkpoint set "offset" = ?3, recorded_at = ?4
where projection = ?1 and log = ?2 and "offset" = ?5
"""
_PARAMETER = re.compile(r"\$(\d+)")


class LibsqlSession:
    """A transaction on the views. It is over when `apply` returns."""

    def __init__(self, writer: Lane) -> None:
        self._writer = writer
        self._over = False

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query."""
        _check_parameters(sql, parameters)
        return await self._run(lambda connection: connection.rows(sql, *parameters))

    async def execute_many(self, sql: str, rows: Sequence[Row]) -> None:
        """Run a statement once for each row of parameters."""
        for row in rows:
            _check_parameters(sql, row)

        def job(connection: Connection) -> None:
            for row in rows:  # not `executemany`: that is slower, and holds the GIL throughout
                connection.run(sql, *row)

        await self._run(job)

    def end(self) -> None:
        """Refuse whatever comes later: it would be written outside of the transaction."""
        self._over = True

    async def _run[T](self, job: Callable[[Connection], T]) -> T:
        if self._over:
            raise RuntimeError("this session is over: await everything before apply returns")
        return await self._writer.run(job)


class LibsqlViews:
    """One service's read models in a file. Open it with `LibsqlViews.open`."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._turn = asyncio.Lock()  # a transaction spans several jobs of the writer

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        service: str,  # noqa: ARG003 - the file is the service's own
        clock: Clock | None = None,
        lock_wait_s: float = LOCK_WAIT_S,
        migrate: bool = True,
    ) -> AsyncIterator[Self]:
        """Yield the views of `service`, its checkpoints ready. Raises as `LibsqlStore.open`."""
        if not migrate:
            async with open_read_only(url, lock_wait_s=lock_wait_s) as database:
                await database.read(lambda c: check(c, "views", [_CHECKPOINTS]))
                yield cls(database, clock=clock or SystemClock())
            return
        async with open_database(url, lock_wait_s=lock_wait_s) as database:
            views = cls(database, clock=clock or SystemClock())
            await views._migrate("views", [_CHECKPOINTS])
            await views._migrate("parking", numbered(PARKED_TABLES))
            await views._migrate("heartbeat", numbered(HEARTBEAT_TABLES))
            yield views

    async def migrate(self, projection: str, tables: Sequence[str]) -> None:
        """Apply those of `tables` that are not applied yet."""
        await self._migrate(*table_migrations(projection, tables))

    async def checkpoint(self, projection: str, log: str) -> Checkpoint:
        """Return how far `projection` is in `log`."""
        rows = await self._database.rows(
            'select "offset", recorded_at from projection_checkpoint'
            " where projection = ?1 and log = ?2",
            projection,
            log,
        )
        return _checkpoint(*rows[0]) if rows else Checkpoint(START)

    async def advance(
        self,
        projection: str,
        log: str,
        step: tuple[Offset, Checkpoint],
        apply: Callable[[ViewSession], Awaitable[None]],
    ) -> None:
        """Run `apply` and move the checkpoint, in one transaction; `Fenced` when it is elsewhere.

        Raises `Unavailable`, with nothing written, when `apply` takes longer than `APPLY_LIMIT_S`.
        """
        await self._write(
            lambda connection: _move(connection, projection, log, step), apply, projection
        )

    async def transact(self, apply: Callable[[ViewSession], Awaitable[None]]) -> None:
        """Run `apply` in one transaction that moves no checkpoint."""
        await self._write(Connection.begin, apply, "the views")

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query."""
        _check_parameters(sql, parameters)
        return await self._database.rows(sql, *parameters)

    async def fetch_of(self, tenant: str, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query about one tenant."""
        return await self.fetch(about_one_tenant(sql), tenant, *parameters)

    async def fetch_across(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query about every tenant."""
        return await self.fetch(sql, *parameters)

    async def checkpoints(self) -> Sequence[tuple[str, str, Checkpoint]]:
        """Return every checkpoint, by projection."""
        rows = await self._database.rows(
            'select projection, log, "offset", recorded_at from projection_checkpoint order by 1, 2'
        )
        return [(str(p), str(log), _checkpoint(*end)) for p, log, *end in rows]

    async def lock_waits(self) -> Sequence[LockWait]:
        """Return nothing: SQLite does not tell who has its lock."""
        return []

    async def _write(
        self,
        begin: Callable[[Connection], None],
        apply: Callable[[ViewSession], Awaitable[None]],
        what: str,
    ) -> None:
        writer = self._database.writer
        session = LibsqlSession(writer)
        async with self._turn:
            try:
                await writer.run(begin)
                await _within_limit(apply(session), f"{what}: a batch")
                session.end()
                await writer.run(Connection.commit)
            except BaseException:
                session.end()
                writer.post(Connection.rollback)  # before any later job, also when we are cancelled
                raise

    async def _migrate(self, component: str, steps: Sequence[Migration]) -> None:
        now_us = to_us(self._clock.now())
        async with self._turn:
            await self._database.write(lambda c: migrate(c, component, steps, at_us=now_us))


def _move(
    connection: Connection, projection: str, log: str, step: tuple[Offset, Checkpoint]
) -> None:
    """Begin a transaction, and compare and set the checkpoint first of all."""
    start, end = step
    at_us = to_us(end.recorded_at) if end.recorded_at else None
    connection.begin()
    moved = (
        connection.run(_BEGIN, projection, log, end.offset, at_us)
        if start == START
        else connection.run(_MOVE, projection, log, end.offset, at_us, start)
    )
    if not moved:
        raise Fenced(f"{projection}: the checkpoint in {log} is not at {start} any more")


async def _within_limit(work: Awaitable[None], what: str) -> None:
    try:
        async with asyncio.timeout(APPLY_LIMIT_S) as limit:
            await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise Unavailable(f"{what} was not applied within {APPLY_LIMIT_S} s") from error


def _checkpoint(offset: Any, at_us: Any) -> Checkpoint:
    return Checkpoint(Offset(offset), None if at_us is None else from_us(at_us))


def _check_parameters(sql: str, parameters: Sequence[object]) -> None:
    """Refuse what the binding takes silently: missing parameters as null, extra ones as nothing."""
    if _count_parameters(sql) != len(parameters):
        raise ValueError(f"{len(parameters)} parameters for: {sql}")


@lru_cache(maxsize=256)
def _count_parameters(sql: str) -> int:
    """Return how many parameters a statement takes; SQLite numbers them by first appearance."""
    names = list(dict.fromkeys(int(n) for n in _PARAMETER.findall(sql)))
    if names != list(range(1, len(names) + 1)):
        raise ValueError(f"parameters must first appear in order, $1, $2 …, not {names}: {sql}")
    return len(names)
