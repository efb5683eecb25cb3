"""All that a service keeps in a schema on Postgres, to be moved: see `flotilla.stores.moving`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self
from uuid import UUID

import asyncpg

from flotilla.clock import from_us, to_us
from flotilla.errors import Unavailable
from flotilla.projection import Row
from flotilla.stores.comparison import Table
from flotilla.stores.moving import LEDGER_OF_MIGRATIONS, PAGE_ROWS_MAX, MoveRefused
from flotilla.stores.postgres.connection import CONNECT_TIMEOUT_S, schema_of, translated
from flotilla.stores.postgres.isolation import EVERY_TENANT

STATEMENT_LIMIT_S = 600.0
"""How long a count or a check of a whole table may take."""
IN_USE_LOOKS_MAX, IN_USE_LOOK_S = 40, 0.05
"""How often to look whether those who work there have gone: the server notices a moment later."""

_SETTINGS = {
    "timezone": "UTC",
    "application_name": "flotilla-move",
    "lock_timeout": "5s",
    "statement_timeout": f"{STATEMENT_LIMIT_S:.0f}s",
    "idle_in_transaction_session_timeout": f"{STATEMENT_LIMIT_S:.0f}s",
    "jit": "off",
    **EVERY_TENANT,
}
_OTHERS = """
select pid from pg_stat_activity where datname = current_database() and application_name = $1 limit 1
"""
_TABLES = """
select c.relname as name,
    array(select a.attname::text from pg_index i, unnest(i.indkey::int2[]) with ordinality k(attnum, n),
            pg_attribute a
        where i.indrelid = c.oid and i.indisprimary and a.attrelid = c.oid and a.attnum = k.attnum
        order by k.n) as key
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> $2
order by c.relname collate "C"
"""
_COLUMNS = """
select a.attname::text as name, a.atttypid::regtype::text as type,
    pg_get_serial_sequence(quote_ident($1) || '.' || quote_ident($2), a.attname) as sequence
from pg_attribute a
where a.attrelid = (quote_ident($1) || '.' || quote_ident($2))::regclass
    and a.attnum > 0 and not a.attisdropped
order by a.attname collate "C"
"""


def _as_is(value: Any) -> Any:
    return value


_WAYS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "text": (_as_is, _as_is),
    "bigint": (_as_is, _as_is),
    "integer": (_as_is, _as_is),
    "smallint": (_as_is, _as_is),
    "double precision": (_as_is, float),
    "bytea": (bytes, bytes),
    "json": (_as_is, _as_is),
    "uuid": (str, UUID),
    "boolean": (int, bool),
    "timestamp with time zone": (to_us, from_us),
}
"""How a value leaves and comes, by the type of its column; null is null."""


class PostgresKept:
    """One schema in one transaction. Open it with `PostgresKept.open`."""

    def __init__(self, connection: asyncpg.Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self._known: dict[str, list[tuple[str, str, str | None]]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, service: str, write: bool) -> AsyncIterator[Self]:
        """Yield what is in the schema: committed at the end of the block if `write`, and no error.

        Raises `Unavailable` when the server does not answer, or somebody else is at work there
        (`store-in-use`): a fleet, or another move.
        """
        schema = schema_of(service)
        with translated():
            connection = await asyncpg.connect(
                url,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=STATEMENT_LIMIT_S,
                server_settings=_SETTINGS | {"search_path": schema},
            )
        try:
            kept = cls(connection, schema)
            await kept._check_unused()
            isolation = "read_committed" if write else "repeatable_read"
            transaction = connection.transaction(isolation=isolation, readonly=not write)
            with translated():
                await transaction.start()
            if write:
                await kept._lock()
            yield kept
            with translated():
                await transaction.commit()
        finally:
            connection.terminate()

    async def components(self) -> Mapping[str, int]:
        """Return the schema version of each component."""
        there = f'"{self._schema}"."{LEDGER_OF_MIGRATIONS}"'
        if await self._rows("select 1 where to_regclass($1) is null", there):
            return {}
        rows = await self.fetch(f"select component, max(version) from {there} group by component")  # noqa: S608 - our own names
        return {str(component): int(version) for component, version in rows}

    async def tables(self) -> Sequence[Table]:
        """Return all tables, with their keys."""
        found = []
        for name, key in await self._rows(_TABLES, self._schema, LEDGER_OF_MIGRATIONS):
            columns = await self._columns(name)
            for column, kind, _ in columns:
                if kind not in _WAYS:
                    raise MoveRefused(
                        f"{self._schema}.{name}.{column} is {kind}, which cannot be moved: use one of"
                        f" {', '.join(_WAYS)}",
                        code="type-not-movable",
                    )
            names = tuple(column for column, *_ in columns)
            found.append(Table(name, names, tuple(key) or names))
        return found

    async def fetch(self, sql: str) -> Sequence[Row]:
        """Return the rows of a query."""
        return await self._rows(sql)

    async def pages(self, table: Table) -> AsyncIterator[Sequence[Row]]:
        """Yield all rows in the order of the key."""
        columns = await self._columns(table.name)
        texts = {name for name, kind, _ in columns if kind in ("text", "json", "uuid")}
        leave = [_WAYS[kind][0] for _, kind, _ in columns]
        order = ", ".join(
            f'"{name}"::text collate "C"' if name in texts else f'"{name}"' for name in table.key
        )
        chosen = ", ".join(f'"{name}"' for name, *_ in columns)
        sql = f'select {chosen} from "{self._schema}"."{table.name}" order by {order}'  # noqa: S608 - from the catalog
        with translated():
            cursor = await self._connection.cursor(sql)
        while page := await self._page(cursor):
            yield [_each(leave, row) for row in page]

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows, whose values are in the order of the columns' names."""
        columns = await self._columns(table.name)
        come = [_WAYS[kind][1] for _, kind, _ in columns]
        names = ", ".join(f'"{name}"' for name, *_ in columns)
        places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        try:
            with translated():
                # No COPY: it is refused where row-level security holds, as it does for whoever this is.
                await self._connection.executemany(
                    f'insert into "{self._schema}"."{table.name}" ({names})'  # noqa: S608 - from the catalog
                    f" overriding system value values ({places})",
                    [_each(come, row) for row in rows],
                    timeout=STATEMENT_LIMIT_S,
                )
        except (
            asyncpg.DataError,
            asyncpg.IntegrityConstraintViolationError,
            asyncpg.ProgramLimitExceededError,
            asyncpg.InterfaceError,
            ValueError,
            OverflowError,
            TypeError,
        ) as error:
            raise MoveRefused(f"{table.name}: a row is not taken: {error}") from error

    async def go_on(self, table: Table) -> None:
        """Set the identity's sequence to the greatest number that came."""
        for name, _, sequence in await self._columns(table.name):
            if sequence:
                await self.fetch(
                    f"select setval('{sequence}', max(\"{name}\"))"  # noqa: S608 - from the catalog
                    f' from "{self._schema}"."{table.name}" having max("{name}") > 0'
                )

    async def _check_unused(self) -> None:
        for look in range(IN_USE_LOOKS_MAX):
            if look:
                await asyncio.sleep(IN_USE_LOOK_S)
            if not (others := await self._rows(_OTHERS, f"flotilla-{self._schema}")):
                return
        raise Unavailable(
            f"the schema {self._schema} is in use by process {others[0][0]} of the server: stop the"
            " fleet there",
            code="store-in-use",
        )

    async def _lock(self) -> None:
        """Let nobody read or write here until the end of the transaction."""
        for table in await self.tables():
            await self._rows(f'lock table "{self._schema}"."{table.name}" in access exclusive mode')

    async def _rows(self, sql: str, *arguments: object) -> list[Row]:
        with translated():
            return [tuple(row) for row in await self._connection.fetch(sql, *arguments)]

    async def _page(self, cursor: Any) -> Sequence[Any]:
        with translated():
            page: Sequence[Any] = await cursor.fetch(PAGE_ROWS_MAX)
            return page

    async def _columns(self, table: str) -> list[tuple[str, str, str | None]]:
        if table not in self._known:
            rows = await self._rows(_COLUMNS, self._schema, table)
            self._known[table] = [(name, kind, sequence) for name, kind, sequence in rows]
        return self._known[table]


def _each(ways: Sequence[Callable[[Any], Any]], row: Sequence[Any]) -> Row:
    return tuple(
        None if value is None else way(value) for way, value in zip(ways, row, strict=True)
    )
