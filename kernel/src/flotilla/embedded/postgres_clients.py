"""Who the clients of an embedded PostgreSQL are: a role that is no superuser, and owns the database.

Row-level security does not hold for superusers, so nobody works as one. What a superuser made is taken
over at each start.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import asyncpg

SUPERUSER = DATABASE = "flotilla"
USER = "fleet"
"""Whom clients are: it owns the database and all in it, and row-level security holds for it."""
PORT = 5432
"""Only part of the socket's name."""

_CONNECT_TIMEOUT_S = 2.0
CREATE_TIMEOUT_S = 60.0

_USER = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{USER}') THEN
        CREATE ROLE {USER} LOGIN CREATEDB NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS;
    END IF;
END $$
"""
_TAKE_OVER = f"""
DO $$ DECLARE item record; BEGIN
    IF (SELECT datdba FROM pg_database WHERE datname = '{DATABASE}') <> '{USER}'::regrole THEN
        ALTER DATABASE {DATABASE} OWNER TO {USER};
    END IF;
    FOR item IN SELECT 'SCHEMA ' || quote_ident(nspname) AS name FROM pg_namespace
        WHERE nspowner = '{SUPERUSER}'::regrole AND oid >= 16384
    UNION ALL SELECT (CASE relkind WHEN 'v' THEN 'VIEW ' ELSE 'TABLE ' END) || oid::regclass
        FROM pg_class WHERE relowner = '{SUPERUSER}'::regrole AND oid >= 16384
            AND relkind IN ('r', 'p', 'v') AND relnamespace >= 16384
    UNION ALL SELECT 'ROUTINE ' || oid::regprocedure
        FROM pg_proc WHERE proowner = '{SUPERUSER}'::regrole AND oid >= 16384
            AND pronamespace >= 16384
    LOOP EXECUTE format('ALTER %s OWNER TO {USER}', item.name); END LOOP;
END $$
"""  # noqa: S608 - our own names
"""What a superuser made: an older release, or a restore."""


def dsn_of(sockets: Path, user: str, database: str = DATABASE) -> str:
    """Return where `user` finds a database."""
    # The port is named because a PGPORT in the environment would otherwise win.
    return f"postgresql://{user}@/{database}?host={quote(str(sockets))}&port={PORT}"


async def is_ready(sockets: Path) -> bool:
    """Connect, and see to it that our database and its user are there."""
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with _connected(dsn_of(sockets, SUPERUSER, "postgres")) as connection:
            await connection.execute(_USER)
            found = await connection.fetchval(
                "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", DATABASE
            )
            if not found:
                await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {USER}")
        async with _connected(dsn_of(sockets, SUPERUSER)) as connection:
            await connection.execute(_TAKE_OVER)
        return True
    return False


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        dsn, timeout=_CONNECT_TIMEOUT_S, command_timeout=CREATE_TIMEOUT_S
    )
    try:
        yield connection
    finally:
        await connection.close(timeout=_CONNECT_TIMEOUT_S)
