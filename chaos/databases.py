"""The store and the read models as plain rows, past everything that a fault may touch.

Whatever the engine, there is a schema a service: PostgreSQL's own, or a libSQL file that is attached
under the service's name.
"""

import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any, Protocol

import asyncpg

from flotilla.stores.postgres.isolation import EVERY_TENANT

TIMEOUT_S = 10.0


class Database(Protocol):
    """Answers questions."""

    async def rows(self, sql: str, *arguments: object) -> Sequence[Mapping[str, Any]]:
        """Return the rows of a query with parameters `$1`, `$2` …; columns by name."""
        ...


class _Postgres:
    def __init__(self, session: asyncpg.Connection) -> None:
        self._session = session

    async def rows(self, sql: str, *arguments: object) -> Sequence[Mapping[str, Any]]:
        found: list[asyncpg.Record] = await self._session.fetch(sql, *arguments)
        return found


class _Sqlite:
    def __init__(self, files: sqlite3.Connection) -> None:
        self._files = files

    async def rows(self, sql: str, *arguments: object) -> Sequence[Mapping[str, Any]]:
        cursor = self._files.execute(sql, {str(n): a for n, a in enumerate(arguments, start=1)})
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


@asynccontextmanager
async def open_database(stores: Mapping[str, str]) -> AsyncIterator[Database]:
    """Lend a connection to all of `stores`: store URLs by service."""
    url = next(iter(stores.values()))
    if url.startswith("postgresql"):
        session = await asyncpg.connect(
            url, timeout=TIMEOUT_S, command_timeout=TIMEOUT_S, server_settings=EVERY_TENANT
        )
        try:
            yield _Postgres(session)
        finally:
            await session.close()
        return
    with closing(sqlite3.connect(":memory:", timeout=TIMEOUT_S)) as files:
        for service, place in stores.items():
            files.execute(f'attach ? as "{service}"', (place.removeprefix("libsql://"),))
        yield _Sqlite(files)
