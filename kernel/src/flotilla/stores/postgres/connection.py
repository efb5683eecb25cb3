"""Connections that we own: no reset between uses, statements stay prepared, time-outs always set.

A pool's reset and re-prepare costs a third of the throughput; nothing here leaves state behind on a
connection, so nothing has to be reset.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import resources

import asyncpg

from flotilla.errors import Corrupt, Unavailable
from flotilla.stores.migrations import AppliedMigration, Migration, plan

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 15.0
ACQUIRE_TIMEOUT_S = 5.0
SERVER_SETTINGS = {
    "timezone": "UTC",
    "lock_timeout": "2s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "5s",
    "jit": "off",
    # Every statement here is made for an index, and is planned once. Left alone, the planner scans
    # tables that nobody has analysed yet, and keeps the plan that it made while they were empty.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "random_page_cost": "1.1",
}
_MIGRATION_LOCK = 0x666C6F74  # any number, as long as it is always the same: "flot"

_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,  # a primary that was made a standby
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,  # a deadlock, or not serializable: the next try may be fine
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


def read_sql(name: str) -> str:
    """Return the text of `<name>.sql` beside this module."""
    return resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def schema_of(service: str) -> str:
    """Return the schema that a service owns: `svc-counter`'s `counter` is `counter`."""
    return service.replace("-", "_")


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the driver raises into our families; data errors and bugs pass through."""
    try:
        yield
    except _GONE as error:
        raise Unavailable(f"postgres: {error}") from error
    except (asyncpg.DataCorruptedError, asyncpg.IndexCorruptedError) as error:
        raise Corrupt(f"postgres: {error}") from error
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"postgres does not answer: {error or 'time-out'}") from error
    except asyncpg.InterfaceError as error:
        if isinstance(error, ValueError):
            raise  # a value that the driver cannot encode: that is data, not the connection
        raise Unavailable(f"postgres: {error}") from error
    except asyncpg.InternalClientError as error:
        raise Unavailable(f"postgres: {error}") from error


class Connections:
    """At most `size_max` connections, opened when needed, replaced when broken."""

    def __init__(self, url: str, *, schema: str, size_max: int) -> None:
        self._url = url
        self._settings = SERVER_SETTINGS | {
            "search_path": schema,
            "application_name": f"flotilla-{schema}",
        }
        self._idle: list[asyncpg.Connection] = []
        self._slots = asyncio.Semaphore(size_max)
        self._closed = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection to one user.

        Raises `Unavailable` when none comes free in time or the server does not answer. A connection
        that was left in a transaction, or that failed, is not lent again.
        """
        try:
            async with asyncio.timeout(ACQUIRE_TIMEOUT_S):
                await self._slots.acquire()
        except TimeoutError as error:
            raise Unavailable("postgres: all connections are busy; back off") from error
        try:
            with translated():
                if self._closed:
                    raise Unavailable("postgres: the store is closed")
                connection = await self._checked_out()
                reusable = False
                try:
                    yield connection
                    reusable = True
                except asyncpg.PostgresError:
                    reusable = True
                    raise
                finally:
                    if self._closed or not reusable or connection.is_in_transaction():
                        connection.terminate()
                    elif not connection.is_closed():
                        self._idle.append(connection)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """End the idle connections; those in use end when they come back."""
        self._closed = True
        while self._idle:
            connection = self._idle.pop()
            try:
                await connection.close(timeout=2.0)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    async def _checked_out(self) -> asyncpg.Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            server_settings=self._settings,
        )


async def migrate(
    connections: Connections, schema: str, component: str, available: list[Migration]
) -> None:
    """Bring `component` in `schema` to the newest of `available`; safe from many processes at once.

    Raises:
        Corrupt: see `flotilla.stores.migrations.plan`.

    """
    async with connections.use() as connection, connection.transaction():
        await connection.execute("set local lock_timeout = '60s'; set local statement_timeout = 0")
        await connection.execute("select pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
        await connection.execute(f'create schema if not exists "{schema}"')
        await connection.execute(
            "create table if not exists schema_migration ("
            " component text not null, version integer not null, name text not null,"
            " checksum text not null, applied_at timestamptz not null default now(),"
            " primary key (component, version))"
        )
        rows = await connection.fetch(
            "select version, checksum from schema_migration where component = $1", component
        )
        applied = [AppliedMigration(row["version"], row["checksum"]) for row in rows]
        for step in plan(component, available, applied):
            await connection.execute(step.sql)
            await connection.execute(
                "insert into schema_migration (component, version, name, checksum)"
                " values ($1, $2, $3, $4)",
                component,
                step.version,
                step.name,
                step.checksum,
            )
