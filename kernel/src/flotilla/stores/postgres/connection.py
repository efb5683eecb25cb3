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
from flotilla.metrics import STORE_CONNECTIONS
from flotilla.stores.migrations import AppliedMigration, Migration, plan, require
from flotilla.stores.postgres.isolation import EVERY_TENANT, OF_NOBODY, OPEN_TABLES, closing

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 15.0
ACQUIRE_TIMEOUT_S = 5.0
SERVER_SETTINGS = {
    "timezone": "UTC",
    "lock_timeout": "2s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "5s",  # a paused process holds its locks no longer
    "jit": "off",
    # Every statement here is made for an index, and is planned once. Left alone, the planner scans
    # tables that nobody has analysed yet, and keeps the plan that it made while they were empty.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    # How many rows a JSON parameter brings is a guess to it, too: joins look rows up, one by one.
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "random_page_cost": "1.1",
}
TRANSACTION_TIMEOUT = "60s"
"""For one that is neither idle nor in a long statement, and never ends. Servers before 17 have none."""
_TRANSACTION_TIMEOUT_SINCE = 17
_MIGRATION_LOCK = 0x666C6F74  # any number, as long as it is always the same: "flot"

_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,  # a primary that was made a standby
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
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
        ended = error.__context__  # "the connection is closed" is true, and not why
        raise _broken(ended if isinstance(ended, _GONE) else error) from error
    except asyncpg.InternalClientError as error:
        raise _broken(error) from error


def _broken(why: BaseException) -> Unavailable:
    """Return what callers are told; the driver does not always know why the server hung up."""
    return Unavailable(f"postgres: the connection broke, the server's log says why: {why}")


class Connections:
    """At most `size_max` connections, opened when needed, replaced when broken.

    They see no tenant's rows unless a statement names tenants, or all of them work for `every_tenant`.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        size_max: int,
        every_tenant: bool = False,
        read_only: bool = False,
    ) -> None:
        self._url = url
        self._open = STORE_CONNECTIONS.labels(schema)
        self._settings = SERVER_SETTINGS | {
            "search_path": schema,
            "application_name": f"flotilla-{schema}",
            "default_transaction_read_only": "on" if read_only else "off",
            **(EVERY_TENANT if every_tenant else {}),
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
        if self._slots.locked():
            try:
                await asyncio.wait_for(self._slots.acquire(), ACQUIRE_TIMEOUT_S)
            except TimeoutError as error:
                raise Unavailable("postgres: all connections are busy; back off") from error
        else:
            await self._slots.acquire()  # at once: no timer for what need not wait
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
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            server_settings=self._settings,
        )
        self._open.inc()
        connection.add_termination_listener(self._ended)
        try:
            await _limit_transactions(connection, TRANSACTION_TIMEOUT)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _ended(self, _connection: asyncpg.Connection) -> None:
        self._open.dec()


async def prepare(
    connections: Connections, component: str, steps: list[Migration], *, schema: str, write: bool
) -> None:
    """Migrate `component`; when that is not wanted, only check that this code can read it."""
    if write:
        await migrate(connections, schema, component, steps)
        return
    async with connections.use() as connection:
        require(component, steps, await _applied(connection, component))


async def migrate(
    connections: Connections, schema: str, component: str, available: list[Migration]
) -> None:
    """Bring `component` in `schema` to the newest of `available`; safe from many processes at once.

    Tables that are not closed yet are closed (`isolation`).
    What is up to date is only looked at, which whoever may read it may do: a schema is migrated by
    its owner, and others work in it.

    Raises:
        Corrupt: see `flotilla.stores.migrations.plan`.
        Unavailable: it has to be migrated, and is not ours to migrate (`schema-not-ours`).

    """
    async with connections.use() as connection:
        is_closed = not await connection.fetch(OPEN_TABLES, OF_NOBODY)
        if is_closed and not plan(component, available, await _applied(connection, component)):
            return
        try:
            await _migrate(connection, schema, component, available)
        except asyncpg.InsufficientPrivilegeError as error:
            raise Unavailable(
                f"{component} in the schema {schema} has to be migrated, and that is not for this"
                f" role to do: start the service that owns it ({error})",
                code="schema-not-ours",
            ) from error


async def _migrate(
    connection: asyncpg.Connection, schema: str, component: str, available: list[Migration]
) -> None:
    async with connection.transaction():
        await connection.execute("set local lock_timeout = '60s'; set local statement_timeout = 0")
        await connection.execute(
            "select set_config(name, '0', true) from pg_settings where name = $1",
            "transaction_timeout",
        )
        await connection.execute("select pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
        # Asking to create what is there takes a right that whoever owns it need not have.
        if not await connection.fetchval("select to_regnamespace($1) is not null", f'"{schema}"'):
            await connection.execute(f'create schema "{schema}"')
        await connection.execute(
            "create table if not exists schema_migration ("
            " component text not null, version integer not null, name text not null,"
            " checksum text not null, applied_at timestamptz not null default now(),"
            " primary key (component, version))"
        )
        applied = await _applied(connection, component)
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
        await close_tables(connection)


async def close_tables(connection: asyncpg.Connection) -> None:
    """Let only those see the rows of this connection's schema who say for whom they work."""
    for name, columns in await connection.fetch(OPEN_TABLES, OF_NOBODY):
        await connection.execute(closing(name, columns))


async def _limit_transactions(connection: asyncpg.Connection, limit: str) -> None:
    if connection.get_server_version().major >= _TRANSACTION_TIMEOUT_SINCE:
        await connection.execute(f"set transaction_timeout = '{limit}'")


async def _applied(connection: asyncpg.Connection, component: str) -> list[AppliedMigration]:
    if not await connection.fetchval("select to_regclass('schema_migration') is not null"):
        return []
    rows = await connection.fetch(
        "select version, checksum from schema_migration where component = $1", component
    )
    return [AppliedMigration(row["version"], row["checksum"]) for row in rows]
