"""Read models on Postgres, with their checkpoints in the same transaction."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Self

import asyncpg

from flotilla.errors import Unavailable
from flotilla.heartbeat import TABLES as HEARTBEAT_TABLES
from flotilla.outbox import START, Offset
from flotilla.parked import TABLES as PARKED_TABLES
from flotilla.projection import (
    Checkpoint,
    Fenced,
    LockWait,
    Row,
    ViewSession,
    about_one_tenant,
)
from flotilla.stores.migrations import Migration, numbered, table_migrations
from flotilla.stores.postgres.connection import (
    Connections,
    migrate,
    prepare,
    schema_of,
    translated,
)
from flotilla.stores.postgres.isolation import of_tenants

CONNECTIONS_MAX = 3
"""For queries about a tenant."""
EVERY_TENANT_CONNECTIONS_MAX = 5
"""For what folds, and for operators."""
_CHECKPOINTS = Migration(
    1,
    "projection_checkpoint",
    """
create table projection_checkpoint (
    projection text not null,
    log text not null,
    "offset" bigint not null,
    recorded_at timestamptz,
    primary key (projection, log)
)
""",
)
_COMPONENTS = {
    "views": [_CHECKPOINTS],
    "parking": numbered(PARKED_TABLES),
    "heartbeat": numbered(HEARTBEAT_TABLES),
}
_BEGIN = """
insert into projection_checkpoint (projection, log, "offset", recorded_at) values ($1, $2, $3, $4)
on conflict (projection, log) do update set
    "offset" = excluded."offset", recorded_at = excluded.recorded_at
where projection_checkpoint."offset" = 0
"""
_MOVE = """
update projection_checkpoint set "offset" = $3, recorded_at = $4
where projection = $1 and log = $2 and "offset" = $5
"""


_LOCK_WAITS = """
select extract(epoch from clock_timestamp() - waiting.query_start)::float8,
       holder.pid, holder.application_name, holder.state, holder.query
from pg_stat_activity waiting
cross join lateral unnest(pg_blocking_pids(waiting.pid)) blocking (pid)
join pg_stat_activity holder on holder.pid = blocking.pid
where waiting.application_name = $1 and waiting.wait_event_type = 'Lock'
order by 1 desc limit 5
"""


@contextmanager
def _translated() -> Iterator[None]:
    """Translate what the driver raises; a transaction that lost to another may be fine next time."""
    with translated():
        try:
            yield
        except asyncpg.TransactionRollbackError as error:  # a deadlock, or not serializable
            raise Unavailable(f"postgres: {error}") from error


class PostgresSession:
    """A transaction on the views. What the server refuses for a while is `Unavailable`."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query."""
        with _translated():
            return [tuple(row) for row in await self._connection.fetch(sql, *parameters)]

    async def execute_many(self, sql: str, rows: Sequence[Row]) -> None:
        """Run a statement once for each row of parameters."""
        with _translated():
            await self._connection.executemany(sql, rows)


class PostgresViews:
    """One service's read models. Open it with `PostgresViews.open`."""

    def __init__(self, connections: Connections, every_tenant: Connections, *, schema: str) -> None:
        self._connections = connections
        self._every_tenant = every_tenant
        self._schema = schema

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, service: str, migrate: bool = True) -> AsyncIterator[Self]:
        """Yield the views of `service`, in a schema of its own, with the checkpoint table ready.

        Without `migrate` they are only to be read, and what is not there is refused.
        """
        schema = schema_of(service)
        connections, every_tenant = (
            Connections(
                url, schema=schema, size_max=most, every_tenant=every, read_only=not migrate
            )
            for most, every in ((CONNECTIONS_MAX, False), (EVERY_TENANT_CONNECTIONS_MAX, True))
        )
        try:
            for component, steps in _COMPONENTS.items():
                await prepare(every_tenant, component, steps, schema=schema, write=migrate)
            yield cls(connections, every_tenant, schema=schema)
        finally:
            await connections.close()
            await every_tenant.close()

    async def migrate(self, projection: str, tables: Sequence[str]) -> None:
        """Apply those of `tables` that are not applied yet."""
        component, steps = table_migrations(projection, tables)
        await migrate(self._every_tenant, self._schema, component, steps)

    async def checkpoint(self, projection: str, log: str) -> Checkpoint:
        """Return how far `projection` is in `log`."""
        rows = await self.fetch(
            'select "offset", recorded_at from projection_checkpoint'
            " where projection = $1 and log = $2",
            projection,
            log,
        )
        return Checkpoint(*rows[0]) if rows else Checkpoint(START)

    async def advance(
        self,
        projection: str,
        log: str,
        step: tuple[Offset, Checkpoint],
        apply: Callable[[ViewSession], Awaitable[None]],
    ) -> None:
        """Run `apply` and move the checkpoint, in one transaction; `Fenced` when it is elsewhere."""
        start, end = step
        async with self._every_tenant.use() as connection, connection.transaction():
            # The compare-and-set comes first: its row lock makes a second instance wait, then lose.
            sql, arguments = (
                (_BEGIN, (projection, log, end.offset, end.recorded_at))
                if start == START
                else (_MOVE, (projection, log, end.offset, end.recorded_at, start))
            )
            if not (await connection.execute(sql, *arguments)).endswith(" 1"):
                raise Fenced(f"{projection}: the checkpoint in {log} is not at {start} any more")
            await apply(PostgresSession(connection))

    async def transact(self, apply: Callable[[ViewSession], Awaitable[None]]) -> None:
        """Run `apply` in one transaction that moves no checkpoint."""
        async with self._every_tenant.use() as connection, connection.transaction():
            await apply(PostgresSession(connection))

    async def fetch_of(self, tenant: str, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query about one tenant."""
        question = of_tenants(about_one_tenant(sql), 1 + len(parameters))
        return await self.fetch(question, tenant, *parameters, [tenant])

    async def fetch_across(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query about every tenant."""
        async with self._every_tenant.use() as connection:
            return await PostgresSession(connection).fetch(sql, *parameters)

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query."""
        async with self._connections.use() as connection:
            return await PostgresSession(connection).fetch(sql, *parameters)

    async def checkpoints(self) -> Sequence[tuple[str, str, Checkpoint]]:
        """Return every checkpoint, by projection."""
        rows = await self.fetch(
            'select projection, log, "offset", recorded_at from projection_checkpoint order by 1, 2'
        )
        return [(str(p), str(log), Checkpoint(o, at)) for p, log, o, at in rows]

    async def lock_waits(self) -> Sequence[LockWait]:
        """Return which of our connections wait for a lock, the longest first, and for whom."""
        return [
            LockWait(float(waits_s or 0), f"process {pid} ({name or 'unnamed'}, {state}): {query}")
            for waits_s, pid, name, state, query in await self.fetch(
                _LOCK_WAITS, f"flotilla-{self._schema}"
            )
        ]
