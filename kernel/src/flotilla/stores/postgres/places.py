"""What can be said and done about a schema that holds a view: checkpoint, tables, moving them.

A place's own tables are its checkpoint, its schema history and what is parked (`projection_…`,
`schema_migration`); every other one is the view's. They stay where they are when the view's are moved.
"""

from collections.abc import AsyncIterator, Sequence

import asyncpg

from flotilla.errors import Rejected
from flotilla.outbox import START
from flotilla.partition import OF_PROJECTION, Marks
from flotilla.projection import Checkpoint, Row
from flotilla.stores.comparison import PAGE_ROWS_MAX, Table
from flotilla.stores.postgres.isolation import closing

OWN_TABLES = ("schema_migration", "projection_checkpoint", "projection_parked_event")
_TABLES = """
select c.relname as name, c.relkind::text as kind,
    array(select a.attname::text from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum) as columns,
    array(select a.attname::text
        from pg_index i, unnest(i.indkey::int2[]) with ordinality k(attnum, n), pg_attribute a
        where i.indrelid = c.oid and i.indisprimary and a.attrelid = c.oid and a.attnum = k.attnum
        order by k.n) as key,
    array(select a.attname::text from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and a.attcollation <> 0) as texts
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
    and c.relname <> 'schema_migration' and c.relname not like 'projection\\_%'
order by c.relname collate "C"
"""
_HISTORY = """
select version, checksum from "{schema}".schema_migration where component = $1 order by version
"""


class Connected:
    """One connection, asked about the view of `projection` in one schema or another."""

    def __init__(self, connection: asyncpg.Connection, projection: str, log: str) -> None:
        self.connection = connection
        self._of = (projection, log)
        self._component = f"projection:{projection}"

    async def marks(self, schema: str, *, locked: bool = False) -> Marks | None:
        """Return how far each part of the view in `schema` is; None when there is no such place."""
        place = f'"{schema}".projection_checkpoint'
        if await self.connection.fetchval("select to_regclass($1) is null", place):
            return None
        rows = await self.connection.fetch(
            f'select projection, "offset", recorded_at from {place}'  # noqa: S608 - our own name
            f" where {OF_PROJECTION} and log = $2 order by 1{' for update' if locked else ''}",
            *self._of,
        )
        return Marks({name: Checkpoint(*at) for name, *at in rows})

    async def checkpoint(self, schema: str) -> Checkpoint | None:
        """Return how far all of the view in `schema` is; None when there is no such place."""
        marks = await self.marks(schema)
        return None if marks is None else marks.slowest

    async def lock(self, schema: str) -> Marks:
        """Return how far each part is: nobody else moves them before this transaction ends."""
        place = f'"{schema}".projection_checkpoint'
        await self.connection.execute(
            f'insert into {place} (projection, log, "offset") select $1, $2, 0'  # noqa: S608 - our own name
            f" where not exists (select 1 from {place} where {OF_PROJECTION} and log = $2)"
            " on conflict do nothing",
            *self._of,
        )
        return await self.marks(schema, locked=True) or Marks({})

    async def put(self, schema: str, marks: Marks) -> None:
        """Set the checkpoints of all parts, and forget others. A view that has not begun has none."""
        place = f'"{schema}".projection_checkpoint'
        begun = marks.by_name if marks.fastest.offset != START else {}
        await self.connection.execute(
            f"delete from {place} where {OF_PROJECTION} and log = $2"  # noqa: S608 - our own name
            " and projection <> all($3::text[])",
            *self._of,
            list(begun),
        )
        await self.connection.executemany(
            f'insert into {place} (projection, log, "offset", recorded_at)'  # noqa: S608 - our own name
            " values ($1, $2, $3, $4) on conflict (projection, log) do update"
            ' set "offset" = excluded."offset", recorded_at = excluded.recorded_at',
            [(name, self._of[1], at.offset, at.recorded_at) for name, at in begun.items()],
        )

    async def tables(self, schema: str) -> list[tuple[Table, str]]:
        """Return the view's tables, and what to order each by.

        Raises `Rejected` for what cannot be moved between schemas without its readers noticing.
        """
        found = []
        for name, kind, columns, key, texts in await self.connection.fetch(_TABLES, schema):
            if kind not in "rp":
                raise Rejected(
                    f"{name} is no table: a projection that can be rebuilt makes tables and indexes",
                    code="projection-not-rebuildable",
                )
            table = Table(name, tuple(columns), tuple(key or columns))
            order = ", ".join(f'"{c}" collate "C"' if c in texts else f'"{c}"' for c in table.key)
            found.append((table, order))
        return found

    async def history(self, schema: str) -> list[tuple[int, str]]:
        """Return which of the projection's migrations made the tables in `schema`."""
        rows = await self.connection.fetch(_HISTORY.format(schema=schema), self._component)
        return [(version, checksum) for version, checksum in rows]

    async def pages(self, schema: str, table: Table, order: str) -> AsyncIterator[Sequence[Row]]:
        """Yield all rows in the order of the key; inside a transaction only."""
        columns = ", ".join(f'"{c}"' for c in table.columns)
        sql = f'select {columns} from "{schema}"."{table.name}" order by {order}'  # noqa: S608 - from the catalog
        cursor = await self.connection.cursor(sql)
        while page := await cursor.fetch(PAGE_ROWS_MAX):
            yield [tuple(row) for row in page]

    async def make_place(self, schema: str, like: str) -> None:
        """Make a schema with the own tables of `like`, and what they say of this projection."""
        run = self.connection.execute
        await run(f'create schema "{schema}"')
        for name in OWN_TABLES:
            await run(f'create table "{schema}"."{name}" (like "{like}"."{name}" including all)')
        await run(
            closing(f'"{schema}".projection_parked_event', ["tenant"])
        )  # `like` leaves it open
        await self._copy_history(schema, like, "views")
        await self._copy_history(schema, like, self._component)

    async def take_history(self, schema: str, source: str) -> None:
        """Replace what `schema` says of the projection's migrations by what `source` says."""
        await self.connection.execute(
            f'delete from "{schema}".schema_migration where component = $1',  # noqa: S608 - our own name
            self._component,
        )
        await self._copy_history(schema, source, self._component)

    async def exchange_parked(self, live: str, source: str, aside: str) -> None:
        """Let what is parked go with the view that it is missing from."""
        for table, target in ((live, aside), (source, live)):
            await self.connection.execute(
                f'with gone as (delete from "{table}".projection_parked_event'  # noqa: S608 - our own names
                f" where {OF_PROJECTION} and log = $2 returning *)"
                f' insert into "{target}".projection_parked_event select * from gone',
                *self._of,
            )

    async def move(self, tables: Sequence[Table], source: str, target: str) -> None:
        """Move tables to another schema, with their indexes and sequences, where they exist."""
        for table in tables:
            await self.connection.execute(
                f'alter table if exists "{source}"."{table.name}" set schema "{target}"'
            )

    async def lock_tables(self, tables: Sequence[Table], schema: str) -> None:
        """Wait until nobody reads these tables, and let nobody."""
        for table in tables:
            name = f'"{schema}"."{table.name}"'
            if await self.connection.fetchval("select to_regclass($1) is not null", name):
                await self.connection.execute(f"lock table {name} in access exclusive mode")

    async def _copy_history(self, schema: str, source: str, component: str) -> None:
        await self.connection.execute(
            f'insert into "{schema}".schema_migration'  # noqa: S608 - our own names
            f' select * from "{source}".schema_migration where component = $1',
            component,
        )
