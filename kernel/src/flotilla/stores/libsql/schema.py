"""Migrations on libSQL: what `flotilla.stores.migrations` plans is applied in one transaction."""

import re
import sqlite3
from collections.abc import Iterator, Sequence

from flotilla.stores.libsql.connection import Connection
from flotilla.stores.migrations import AppliedMigration, Migration, plan, require

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_LEDGER = """
create table if not exists schema_migration (
    component text not null,
    version integer not null,
    name text not null,
    checksum text not null,
    applied_at integer not null, -- microseconds since 1970, UTC
    primary key (component, version)
) strict
"""


def migrate(
    connection: Connection, component: str, available: Sequence[Migration], *, at_us: int
) -> None:
    """Bring `component` up to date. Of several processes one does it; the others wait for it.

    Raises `Corrupt` as `plan` does, `Unavailable` when the lock is not to be had.
    """
    if not plan(component, available, _applied(connection, component)):
        return  # most often, and without the write lock
    with connection.transaction():
        connection.run(_LEDGER)
        for step in plan(component, available, _applied(connection, component)):
            for statement in statements(step.sql):
                connection.run(statement)
            connection.run(
                "insert into schema_migration (component, version, name, checksum, applied_at)"
                " values (?1, ?2, ?3, ?4, ?5)",
                component,
                step.version,
                step.name,
                step.checksum,
                at_us,
            )


def check(connection: Connection, component: str, available: Sequence[Migration]) -> None:
    """Raise as `require` does when this code cannot read `component`. Changes nothing."""
    require(component, available, _applied(connection, component))


def statements(script: str) -> Iterator[str]:
    """Cut a script into its statements: the binding's own `executescript` swallows errors.

    Triggers, strings and comments may contain semicolons; the last statement need not end with one.
    """
    statement = ""
    for part in script.split(";"):
        statement += part
        if not sqlite3.complete_statement(statement + ";"):
            statement += ";"
            continue
        if _COMMENT.sub("", statement).strip():
            yield statement
        statement = ""
    if _COMMENT.sub("", statement).strip("; \t\r\n"):
        raise ValueError(f"this statement does not end: {statement.strip()[:80]!r}")


def _applied(connection: Connection, component: str) -> list[AppliedMigration]:
    if not connection.rows("select 1 from sqlite_schema where name = 'schema_migration'"):
        return []
    rows = connection.rows(
        "select version, checksum from schema_migration where component = ?1", component
    )
    return [AppliedMigration(int(str(version)), str(checksum)) for version, checksum in rows]
