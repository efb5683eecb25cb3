"""Logs with a past: events made by the server itself, so that a run does not wait for them."""

import asyncpg

from flotilla.stores.postgres import PostgresStore
from flotilla.stores.postgres.connection import schema_of
from flotilla.stores.postgres.isolation import EVERY_TENANT

_EVENTS = """
insert into event (stream, version, event_id, type, payload, metadata)
select
    'acme/counter/c' || n % $2, n / $2 + 1, gen_random_uuid(), 'counter.incremented.v1',
    format('{"counter_id":"c%s","by":1,"value":%s}', n % $2, n / $2 + 1)::json,
    '{"correlation":"bench"}'
from generate_series(0, $1::bigint - 1) n
"""
_OUTBOX = """
insert into event_outbox (stream, version, log)
select 'acme/counter/c' || n % $2, n / $2 + 1, $3 from generate_series(0, $1::bigint - 1) n
"""
_LEDGER = 'update event_outbox set "offset" = position'
_LAST = 'select coalesce(max("offset"), 0) from event_outbox where "offset" is not null'
_TRANSACTIONS = "select xact_commit from pg_stat_database where datname = $1"


async def make_backlog(
    dsn: str, log: str, *, events: int, streams: int, published: bool = False
) -> None:
    """Fill the store of `log`: `events` increments, over `streams` counters in turn.

    `published`: they have their offsets, as if a relay had been there.
    """
    async with PostgresStore.open(dsn, service=log):
        pass  # migrated
    connection = await asyncpg.connect(
        dsn, server_settings=EVERY_TENANT | {"search_path": schema_of(log)}
    )
    try:
        await connection.execute(_EVENTS, events, streams)
        await connection.execute(_OUTBOX, events, streams, log)
        if published:
            await connection.execute(_LEDGER)
        await connection.execute("vacuum analyze event, event_outbox")
    finally:
        await connection.close()


class Ledger:
    """How far a log was published, asked cheaply."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @classmethod
    async def at(cls, dsn: str, log: str) -> "Ledger":
        """Connect to the store of `log`."""
        settings = EVERY_TENANT | {"search_path": schema_of(log), "enable_seqscan": "off"}
        return cls(await asyncpg.connect(dsn, server_settings=settings))

    async def last_offset(self) -> int:
        """Return the last offset given."""
        return int(await self._connection.fetchval(_LAST))

    async def transactions(self, database: str) -> int:
        """Return how many transactions (each query is one) a database has seen."""
        await self._connection.execute("select pg_stat_clear_snapshot()")
        return int(await self._connection.fetchval(_TRANSACTIONS, database))

    async def close(self) -> None:
        """End the connection."""
        await self._connection.close()
