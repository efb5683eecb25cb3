"""All that a service keeps in a libSQL file, to be moved: see `flotilla.stores.moving`."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Self

from flotilla.projection import Row
from flotilla.stores.comparison import Table
from flotilla.stores.libsql.connection import (
    Connection,
    Lane,
    Refused,
    open_database,
    open_read_only,
)
from flotilla.stores.libsql.places import ordered
from flotilla.stores.moving import LEDGER_OF_MIGRATIONS, PAGE_ROWS_MAX, MoveRefused

JOB_LIMIT_S = 600.0
"""How long a count or a check of a whole table may take."""

_TABLES = f"""
select name from sqlite_schema
where type = 'table' and name not like 'sqlite\\_%' escape '\\' and name <> '{LEDGER_OF_MIGRATIONS}'
order by name
"""  # noqa: S608 - our own name
_COMPONENTS = f"select component, max(version) from {LEDGER_OF_MIGRATIONS} group by component"  # noqa: S608 - our own name
_HAS_LEDGER = f"select 1 from sqlite_schema where name = '{LEDGER_OF_MIGRATIONS}'"  # noqa: S608 - our own name


class LibsqlKept:
    """One file in one transaction. Open it with `LibsqlKept.open`."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, write: bool) -> AsyncIterator[Self]:
        """Yield what is in the file: committed at the end of the block if `write`, and no error.

        Raises as `LibsqlStore.open` does; a file that is only read must be there.
        """
        async with open_database(url) if write else open_read_only(url) as database:
            lane = database.writer
            await lane.run(Connection.begin if write else lambda c: c.run("begin"))
            try:
                yield cls(lane)
                if write:
                    await lane.run(Connection.commit, limit_s=JOB_LIMIT_S)
            finally:
                lane.post(Connection.rollback)

    async def components(self) -> Mapping[str, int]:
        """Return the schema version of each component."""
        rows = await self.fetch(_COMPONENTS) if await self.fetch(_HAS_LEDGER) else []
        return {str(component): int(version) for component, version in rows}

    async def tables(self) -> Sequence[Table]:
        """Return all tables, with their keys."""
        return [_table(name, await self._columns(name)) for (name,) in await self.fetch(_TABLES)]

    async def fetch(self, sql: str) -> Sequence[Row]:
        """Return the rows of a query."""
        return await self._run(lambda c: c.rows(sql))

    async def pages(self, table: Table) -> AsyncIterator[Sequence[Row]]:
        """Yield all rows in the order of the key."""
        by_name = replace(table, columns=tuple(sorted(table.columns)))
        pages = await self._run(lambda c: c.pages(ordered("main", by_name), PAGE_ROWS_MAX))
        while page := await self._run(lambda _: next(pages, None)):
            yield page

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows, whose values are in the order of the columns' names."""
        names = sorted(table.columns)
        columns = ", ".join(f'"{name}"' for name in names)
        marks = ", ".join(f"?{n}" for n in range(1, len(names) + 1))
        sql = f'insert into "{table.name}" ({columns}) values ({marks})'  # noqa: S608 - from the catalog

        def job(connection: Connection) -> None:
            for row in rows:
                connection.run(sql, *row)

        try:
            await self._run(job)
        except Refused as error:
            raise MoveRefused(f"{table.name}: a row is not taken: {error}") from error

    async def go_on(self, table: Table) -> None:
        """Do nothing: SQLite remembers the greatest number that was ever written."""

    async def _columns(self, name: object) -> Sequence[Any]:
        return await self.fetch(f'pragma table_info("{name}")')

    async def _run[T](self, job: Callable[[Connection], T]) -> T:
        return await self._lane.run(job, limit_s=JOB_LIMIT_S)


def _table(name: object, rows: Sequence[Any]) -> Table:
    columns = tuple(str(row[1]) for row in rows)
    key = tuple(str(row[1]) for row in sorted(rows, key=lambda row: row[5]) if row[5])
    return Table(str(name), columns, key or tuple(sorted(columns)))
