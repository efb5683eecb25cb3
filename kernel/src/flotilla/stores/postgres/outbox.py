"""The outbox and its ledger on Postgres: what waits for an offset, and what has one."""

from collections.abc import Sequence

import asyncpg

from flotilla.errors import Corrupt
from flotilla.lease import Lease
from flotilla.outbox import (
    START,
    LogEvent,
    LogReader,
    LogStatus,
    Offset,
    OutboxEntry,
    lease_lost,
    pruned,
)
from flotilla.store import StreamId, Version
from flotilla.stores.postgres.connection import Connections, read_sql
from flotilla.stores.postgres.rows import entry, log_event

TORN_TRIES_MAX = 10
"""Each try is lost to somebody who committed, so somebody always makes progress."""
OVERTAKEN = {"FT001", "23505", "40001", "40P01"}
"""Somebody was faster: torn, unique violation, serialisation failure, deadlock. Nothing was written."""

_PENDING, _PUBLISHED, _FIND = map(read_sql, ("pending", "published", "find"))
_RECORD, _STATUS, _EVENTS = map(read_sql, ("record", "status", "events"))
_PRUNE = read_sql("prune")
_LAST_OFFSET = """
select max("offset") from event_outbox where log = $1 and "offset" is not null
"""

_FIRST_OFFSET = """
select min("offset") from event_outbox where log = $1 and "offset" is not null
"""
_READ_BY = """
insert into log_reader (log, reader, "offset", seen_at) values ($1, $2, $3, now())
on conflict (log, reader) do update set "offset" = excluded."offset", seen_at = excluded.seen_at
"""
_FORGET_READER = "delete from log_reader where log = $1 and reader = $2 returning 1"
_READERS = """
select reader, "offset", extract(epoch from now() - seen_at)::float8 as seen_s
from log_reader where log = $1 order by reader
"""


class PostgresOutbox:
    """One service's committed events, as the relay and whoever reads the log see them."""

    def __init__(self, connections: Connections, *, log: str) -> None:
        self._connections = connections
        self._log = log

    async def pending(self, *, limit: int, but: Sequence[int] = ()) -> Sequence[OutboxEntry]:
        """Return up to `limit` entries without an offset, by position, but not those of `but`."""
        return [entry(row) for row in await self._fetch(_PENDING, self._log, limit, but)]

    async def published(self, *, after: Offset, limit: int) -> Sequence[OutboxEntry]:
        """Return up to `limit` entries with an offset greater than `after`, by offset."""
        found = [entry(row) for row in await self._fetch(_PUBLISHED, self._log, after, limit)]
        if found and (first := found[0].offset or START) > after + 1:
            raise pruned(after, first)
        return found

    async def first_offset(self) -> Offset:
        """Return the first offset that is kept."""
        return Offset((await self._fetch(_FIRST_OFFSET, self._log))[0][0] or START)

    async def read_by(self, reader: str, offset: Offset) -> None:
        """Note how far `reader` is."""
        await self._fetch(_READ_BY, self._log, reader, offset)

    async def readers(self) -> Sequence[LogReader]:
        """Return everybody who said how far it is."""
        return [LogReader(*row) for row in await self._fetch(_READERS, self._log)]

    async def forget_reader(self, reader: str) -> bool:
        """Forget `reader`; return whether it was known."""
        return bool(await self._fetch(_FORGET_READER, self._log, reader))

    async def prune(self, *, older_than_s: float, limit: int) -> int:
        """Forget the oldest ledger entries that everybody has read."""
        return int((await self._fetch(_PRUNE, self._log, older_than_s, limit))[0][0])

    async def events(self, *, after: Offset, limit: int) -> Sequence[LogEvent]:
        """Return up to `limit` published events after `after`, as the log delivers them."""
        found = list(map(log_event, await self._fetch(_EVENTS, self._log, after, limit)))
        if found and found[0].offset > after + 1:
            raise pruned(after, found[0].offset)
        return found

    async def find(self, events: Sequence[tuple[StreamId, Version]]) -> Sequence[OutboxEntry]:
        """Return the entries of these events."""
        streams, versions = [s for s, _ in events], [v for _, v in events]
        return [entry(row) for row in await self._fetch(_FIND, self._log, streams, versions)]

    async def record(
        self, offsets: Sequence[tuple[int, Offset]], *, lease: Lease | None = None
    ) -> None:
        """Give offsets to positions, all or none, while `lease` is the newest."""
        pairs = [p for p, _ in offsets], [o for _, o in offsets]
        fence = (lease.name, lease.token) if lease else (None, None)
        for _ in range(TORN_TRIES_MAX):
            try:
                [(is_allowed, _none)] = await self._fetch(_RECORD, *pairs, *fence)
            except asyncpg.PostgresError as error:
                if error.sqlstate not in OVERTAKEN:
                    raise
                contradiction = error  # or somebody records the same at this moment: look again
            else:
                if lease and not is_allowed:
                    raise lease_lost(lease)
                return
        raise Corrupt(
            f"{self._log}: offsets {offsets[:3]}… contradict the ledger"
        ) from contradiction

    async def last_offset(self) -> Offset:
        """Return the last offset given."""
        return Offset((await self._fetch(_LAST_OFFSET, self._log))[0][0] or START)

    async def status(self) -> LogStatus:
        """Return where the log stands."""
        [row] = await self._fetch(_STATUS, self._log)
        last, waiting = row["last_offset"] or START, row["waiting"]
        return LogStatus(last + waiting, Offset(last), waiting, max(0.0, row["oldest_waiting_s"]))

    async def _fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        async with self._connections.use() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
            return rows
