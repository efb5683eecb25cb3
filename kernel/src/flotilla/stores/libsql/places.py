"""What can be said and done about a file that holds a view, attached to a connection by a name.

Its own tables are its checkpoint, its schema history and what is parked (`projection_…`,
`schema_migration`); every other one is the view's. What a name is not given for is the file
that the connection was opened for.
"""

from collections.abc import Sequence
from typing import Any

from flotilla.clock import from_us, to_us
from flotilla.outbox import START, Offset
from flotilla.partition import OF_PROJECTION, Marks
from flotilla.projection import Checkpoint, Projection
from flotilla.stores.comparison import Table
from flotilla.stores.libsql.connection import Connection

_OF = OF_PROJECTION.replace("$1", "?1")
_VIEWS = (
    "type = 'table' and name not like 'sqlite\\_%' escape '\\' and name <> 'schema_migration'"
    " and name not like 'projection\\_%' escape '\\'"
)


def attach(connection: Connection, path: str, name: str) -> None:
    """Make the file at `path` known as `name`."""
    connection.run(f"attach database ?1 as {name}", path)


def marks(connection: Connection, place: str, of: Projection) -> Marks:
    """Return how far each part of the view in `place` is: none, if its making was interrupted."""
    if not connection.rows(
        f"select 1 from {place}.sqlite_schema where name = 'projection_checkpoint'"  # noqa: S608 - our own name
    ):
        return Marks({})
    rows: Sequence[Any] = connection.rows(
        f'select projection, "offset", recorded_at from {place}.projection_checkpoint'  # noqa: S608 - our own name
        f" where {_OF} and log = ?2",
        of.name,
        of.log,
    )
    return Marks(
        {
            name: Checkpoint(Offset(offset), None if at_us is None else from_us(at_us))
            for name, offset, at_us in rows
        }
    )


def put(connection: Connection, place: str, of: Projection, to: Marks) -> None:
    """Set the checkpoints of all parts, and forget others. A view that has not begun has none."""
    connection.run(
        f"delete from {place}.projection_checkpoint where {_OF} and log = ?2",  # noqa: S608 - our own name
        of.name,
        of.log,
    )
    for name, at in to.by_name.items() if to.fastest.offset != START else ():
        connection.run(
            f"insert into {place}.projection_checkpoint values (?1, ?2, ?3, ?4)",  # noqa: S608 - our own name
            name,
            of.log,
            at.offset,
            to_us(at.recorded_at) if at.recorded_at else None,
        )


def tables(connection: Connection, place: str) -> list[Table]:
    """Return the view's tables."""
    found = []
    names = connection.rows(f"select name from {place}.sqlite_schema where {_VIEWS} order by name")  # noqa: S608 - our own name
    for (name,) in names:
        rows: Sequence[Any] = connection.rows(f'pragma {place}.table_info("{name}")')
        columns = tuple(str(row[1]) for row in rows)
        key = tuple(str(row[1]) for row in sorted(rows, key=lambda row: row[5]) if row[5])
        found.append(Table(str(name), columns, key or columns))
    return found


def ordered(place: str, table: Table) -> str:
    """Return the query for all rows of a table in the order of its key."""
    columns = ", ".join(f'"{name}"' for name in table.columns)
    order = ", ".join(f'"{name}" collate binary nulls last' for name in table.key)
    return f'select {columns} from {place}."{table.name}" order by {order}'  # noqa: S608 - from the catalog


def history(connection: Connection, place: str, of: Projection) -> list[tuple[int, str]]:
    """Return which of the projection's migrations made the tables in `place`."""
    rows = connection.rows(
        f"select version, checksum from {place}.schema_migration where component = ?1 order by 1",  # noqa: S608 - our own name
        f"projection:{of.name}",
    )
    return [(int(str(version)), str(checksum)) for version, checksum in rows]


def replace(connection: Connection, place: str, of: Projection, like: Sequence[Table]) -> None:
    """Make the view in the connection's own file what it is in `place`: `like` its tables.

    Tables, rows, indexes, triggers and history, in the caller's transaction; its checkpoint is not.
    """
    for table in like:
        connection.run(f'drop table if exists main."{table.name}"')
    for table in like:
        made = connection.rows(
            f"select type, sql from {place}.sqlite_schema where tbl_name = ?1 and sql is not null",  # noqa: S608 - our own name
            table.name,
        )
        for kind, sql in made:
            if kind == "table":
                connection.run(str(sql))
                connection.run(
                    f'insert into main."{table.name}" select * from {place}."{table.name}"'  # noqa: S608 - from the catalog
                )
        for kind, sql in made:
            if kind != "table":
                connection.run(str(sql))
    component = f"projection:{of.name}"
    connection.run("delete from main.schema_migration where component = ?1", component)
    connection.run(
        "insert into main.schema_migration"  # noqa: S608 - our own name
        f" select * from {place}.schema_migration where component = ?1",
        component,
    )


def make_own(connection: Connection, like: str) -> None:
    """Make the own tables of a place in the connection's empty file, with their history."""
    made = connection.rows(
        f"select sql from {like}.sqlite_schema where type = 'table'"  # noqa: S608 - our own name
        " and name in ('schema_migration', 'projection_checkpoint', 'projection_parked_event')"
    )
    for (sql,) in made:
        connection.run(str(sql))
    connection.run(
        "insert into main.schema_migration"  # noqa: S608 - our own name
        f" select * from {like}.schema_migration where component = 'views'"
    )


def take_parked(connection: Connection, place: str, of: Projection) -> None:
    """Make what is parked of the view in the connection's own file what it is in `place`."""
    connection.run(
        f"delete from main.projection_parked_event where {_OF} and log = ?2",  # noqa: S608 - our own name
        of.name,
        of.log,
    )
    connection.run(
        "insert into main.projection_parked_event"  # noqa: S608 - our own name
        f" select * from {place}.projection_parked_event where {_OF} and log = ?2",
        of.name,
        of.log,
    )
