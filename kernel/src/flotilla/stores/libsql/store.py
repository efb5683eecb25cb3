"""The event store and its outbox in a libSQL file."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from flotilla.clock import Clock, SystemClock, from_us, to_us
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
from flotilla.projection import Row
from flotilla.store import (
    EMPTY,
    ClaimKey,
    Loaded,
    Outcome,
    RecordedEvent,
    Snapshot,
    StreamId,
    Unit,
    Version,
)
from flotilla.stores.libsql.batch import commit_batch
from flotilla.stores.libsql.connection import (
    LOCK_WAIT_S,
    Connection,
    Database,
    Refused,
    open_database,
    open_read_only,
    read_sql,
)
from flotilla.stores.libsql.due import DUE_TABLE, LibsqlDue
from flotilla.stores.libsql.leases import COMPONENT as LEASE
from flotilla.stores.libsql.leases import TABLE as LEASE_TABLE
from flotilla.stores.libsql.rows import claims_json, entry, log_event, recorded, reply
from flotilla.stores.libsql.schema import check
from flotilla.stores.libsql.schema import migrate as migrate_schema
from flotilla.stores.migrations import read_migrations
from flotilla.stores.storable import is_storable, of_tenant

COMPONENT = "event_store"
FORGET_ROWS_MAX = 500
"""How many records one transaction deletes, so that commits get their turn between two."""

_AGGREGATE = (
    "select version, snapshot, snapshot_schema, snapshot_version from aggregate where stream = ?1"
)
_TAIL, _REPLIES, _FORGET = map(read_sql, ("tail", "replies", "forget_expired"))
_PENDING, _PUBLISHED, _FIND = map(read_sql, ("pending", "published", "find"))
_OFFSETS, _RECORD, _EVENTS = map(read_sql, ("offsets", "record", "events"))
_PRUNE = read_sql("prune")
_NEWEST = "select 1 from lease where name = ?1 and token = ?2"
_FIRST_OFFSET = """
select coalesce(min("offset"), 0) from event_outbox where log = ?1 and "offset" is not null
"""
_READ_BY = """
insert into log_reader (log, reader, "offset", seen_at) values (?1, ?2, ?3, ?4)
on conflict (log, reader) do update set "offset" = excluded."offset", seen_at = excluded.seen_at
"""
_READERS = 'select reader, "offset", seen_at from log_reader where log = ?1 order by reader'
_FORGET_READER = "delete from log_reader where log = ?1 and reader = ?2"
_SECOND_US = 1_000_000
_LAST_OFFSET, _WAITING = map(read_sql, ("last_offset", "waiting"))


class LibsqlStore(LibsqlDue):
    """One service's events in a file. Open it with `LibsqlStore.open`."""

    flights_max: int = 1  # one writer a file: a second flush would only wait for the first

    def __init__(self, database: Database, *, log: str, clock: Clock) -> None:
        self._database = database
        self._log = log
        self._clock = clock

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        service: str,
        clock: Clock | None = None,
        lock_wait_s: float = LOCK_WAIT_S,
        migrate: bool = True,
    ) -> AsyncIterator[Self]:
        """Yield the store of `service` at `libsql:///absolute/path.db`, migrated; or only to be read.

        `lock_wait_s` is how long it waits for other processes that write.

        Raises:
            ValueError: the URL is none of a file.
            Unavailable: the file cannot be opened, or others hold its lock; without `migrate`, it is
                not there or older than this code.
            Corrupt: it is damaged, or of a newer version.

        """
        clock, steps = clock or SystemClock(), read_migrations(__package__)
        if not migrate:
            async with open_read_only(url, lock_wait_s=lock_wait_s) as database:
                await database.read(lambda c: check(c, COMPONENT, steps))
                await database.read(lambda c: check(c, "due", [DUE_TABLE]))
                yield cls(database, log=service, clock=clock)
            return
        async with open_database(url, lock_wait_s=lock_wait_s) as database:
            now_us = to_us(clock.now())
            await database.write(lambda c: migrate_schema(c, COMPONENT, steps, at_us=now_us))
            await database.write(lambda c: migrate_schema(c, LEASE, [LEASE_TABLE], at_us=now_us))
            await database.write(lambda c: migrate_schema(c, "due", [DUE_TABLE], at_us=now_us))
            yield cls(database, log=service, clock=clock)

    async def load(
        self,
        stream: StreamId,
        *,
        snapshot_schema: int | None = None,
        claims: Sequence[ClaimKey] = (),
    ) -> Loaded:
        """Return the stream, from its snapshot on, and the replies that `claims` stand for."""
        if not is_storable(stream):
            return Loaded(EMPTY)
        now_us = to_us(self._clock.now())
        own = of_tenant(stream, claims)

        def job(connection: Connection) -> tuple[list[Row], list[Row], list[Row]]:
            with connection.moment():
                aggregate = connection.rows(_AGGREGATE, stream)
                start = aggregate[0][3] if _usable(aggregate, snapshot_schema) else EMPTY
                tail = connection.rows(_TAIL, stream, start, -1) if aggregate else []
                replies = connection.rows(_REPLIES, claims_json(own), now_us) if own else []
                return aggregate, tail, replies

        aggregate, tail, replies = await self._database.read(job)
        return _loaded(stream, aggregate, tail, replies, snapshot_schema)

    async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        """Commit each unit as if they came one after the other, in one transaction."""
        if not units:
            return []
        return await self._database.write(
            lambda c: commit_batch(c, units, log=self._log, clock=self._clock)
        )

    async def read(
        self, stream: StreamId, *, after: Version = EMPTY, limit: int = 1000
    ) -> Sequence[RecordedEvent]:
        """Return up to `limit` events with versions greater than `after`."""
        if not is_storable(stream):
            return []
        return [recorded(r) for r in await self._database.rows(_TAIL, stream, after, limit)]

    async def forget_expired(self, *, limit: int = 10_000) -> int:
        """Delete up to `limit` expired idempotency records, in small transactions."""
        now_us = to_us(self._clock.now())
        forgotten = 0
        while forgotten < limit:
            rows_max = min(FORGET_ROWS_MAX, limit - forgotten)

            def job(connection: Connection, rows_max: int = rows_max) -> int:
                with connection.transaction():
                    return connection.run(_FORGET, now_us, rows_max)

            deleted = await self._database.write(job)
            forgotten += deleted
            if deleted < rows_max:
                break
        return forgotten

    async def pending(self, *, limit: int, but: Sequence[int] = ()) -> Sequence[OutboxEntry]:
        """Return up to `limit` entries without an offset, by position, but not those of `but`."""
        out = json.dumps(list(but))
        return [entry(r) for r in await self._database.rows(_PENDING, self._log, limit, out)]

    async def record(
        self, offsets: Sequence[tuple[int, Offset]], *, lease: Lease | None = None
    ) -> None:
        """Give offsets to positions, all or none, while `lease` is the newest."""
        if offsets:
            await self._database.write(lambda c: _record(c, offsets, self._log, lease))

    async def last_offset(self) -> Offset:
        """Return the last offset given."""
        [(offset,)] = await self._database.rows(_LAST_OFFSET, self._log)
        return Offset(int(str(offset)))

    async def published(self, *, after: Offset, limit: int) -> Sequence[OutboxEntry]:
        """Return up to `limit` entries with an offset greater than `after`, by offset."""
        rows = await self._database.rows(_PUBLISHED, self._log, after, limit)
        found = [entry(row) for row in rows]
        if found and (first := found[0].offset or START) > after + 1:
            raise pruned(after, first)
        return found

    async def first_offset(self) -> Offset:
        """Return the first offset that is kept."""
        [(offset,)] = await self._database.rows(_FIRST_OFFSET, self._log)
        return Offset(offset)

    async def read_by(self, reader: str, offset: Offset) -> None:
        """Note how far `reader` is."""
        now_us = to_us(self._clock.now())

        def job(connection: Connection) -> None:
            with connection.transaction():
                connection.run(_READ_BY, self._log, reader, offset, now_us)

        await self._database.write(job)

    async def readers(self) -> Sequence[LogReader]:
        """Return everybody who said how far it is."""
        now_us = to_us(self._clock.now())
        rows = await self._database.rows(_READERS, self._log)
        return [LogReader(r, Offset(o), (now_us - at_us) / _SECOND_US) for r, o, at_us in rows]

    async def forget_reader(self, reader: str) -> bool:
        """Forget `reader`; return whether it was known."""

        def job(connection: Connection) -> int:
            with connection.transaction():
                return connection.run(_FORGET_READER, self._log, reader)

        return bool(await self._database.write(job))

    async def prune(self, *, older_than_s: float, limit: int) -> int:
        """Forget the oldest ledger entries that everybody has read."""
        before_us = to_us(self._clock.now()) - round(older_than_s * _SECOND_US)

        def job(connection: Connection) -> int:
            with connection.transaction():
                return connection.run(_PRUNE, self._log, before_us, limit)

        return await self._database.write(job)

    async def events(self, *, after: Offset, limit: int) -> Sequence[LogEvent]:
        """Return up to `limit` published events after `after`, as the log delivers them."""
        rows = await self._database.rows(_EVENTS, self._log, after, limit)
        found = [log_event(row) for row in rows]
        if found and found[0].offset > after + 1:
            raise pruned(after, found[0].offset)
        return found

    async def find(self, events: Sequence[tuple[StreamId, Version]]) -> Sequence[OutboxEntry]:
        """Return the entries of these events."""
        rows = await self._database.rows(_FIND, json.dumps(list(events)), self._log)
        return [entry(r) for r in rows]

    async def status(self) -> LogStatus:
        """Return where the log stands: offsets are dense, so the last one counts all before it."""

        def job(connection: Connection) -> tuple[int, int, int | None]:
            with connection.moment():
                [(last,)] = connection.rows(_LAST_OFFSET, self._log)
                [(waiting, oldest_us)] = connection.rows(_WAITING, self._log)
                return last, waiting, oldest_us

        last, waiting, oldest_us = await self._database.read(job)
        age_s = (
            0.0 if oldest_us is None else (self._clock.now() - from_us(oldest_us)).total_seconds()
        )
        return LogStatus(last + waiting, Offset(last), waiting, max(0.0, age_s))


def _usable(aggregate: Sequence[Row], snapshot_schema: int | None) -> bool:
    return bool(aggregate) and aggregate[0][1] is not None and aggregate[0][2] == snapshot_schema


def _loaded(
    stream: StreamId,
    aggregate: Sequence[Row],
    tail: Sequence[Row],
    replies: Sequence[Row],
    snapshot_schema: int | None,
) -> Loaded:
    version, snapshot = EMPTY, None
    for head, state, schema, at in aggregate:
        version = Version(head)
        if _usable(aggregate, snapshot_schema):
            snapshot = Snapshot(Version(at), schema, state)
    start = snapshot.version if snapshot else EMPTY
    if [row[1] for row in tail] != list(range(start + 1, version + 1)):
        raise Corrupt(f"{stream} is at version {version}, but not all of its events are there")
    return Loaded(version, snapshot, tuple(map(recorded, tail)), dict(map(reply, replies)))


def _record(
    connection: Connection, offsets: Sequence[tuple[int, Offset]], log: str, lease: Lease | None
) -> None:
    """Give offsets in one transaction; `Corrupt` when one contradicts what is known."""
    given = json.dumps([list(pair) for pair in offsets])
    with connection.transaction():
        if lease and not connection.rows(_NEWEST, lease.name, lease.token):
            raise lease_lost(lease)
        known: dict[Any, Any] = dict(connection.rows(_OFFSETS, given, log))
        for position, offset in offsets:
            if position not in known:
                raise Corrupt(f"{log}: no outbox entry has position {position}")
            if known[position] not in (None, offset):
                raise Corrupt(
                    f"{log}: position {position} has offset {known[position]}, not {offset}"
                )
            known[position] = offset
        try:
            connection.run(_RECORD, given)
        except Refused as error:
            raise Corrupt(f"{log}: one of {len(offsets)} offsets is another's: {error}") from error
