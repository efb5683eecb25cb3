"""Data keys in a libSQL file of their own, `keys.db`: never in the file of what they protect.

What is deleted is overwritten (`secure_delete`), and then taken out of the write-ahead log as well.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from flotilla.clock import Clock, SystemClock, to_us
from flotilla.keys import DataKey, Destroyed, Erasure, KeyStatus
from flotilla.projection import Row
from flotilla.stores.libsql.connection import (
    LOCK_WAIT_S,
    Connection,
    Database,
    Locked,
    open_database,
    open_read_only,
)
from flotilla.stores.libsql.schema import check
from flotilla.stores.libsql.schema import migrate as migrate_schema
from flotilla.stores.migrations import Migration

COMPONENT, TABLE = (
    "keys",
    Migration(
        1,
        "data_key",
        """
create table data_key (
    tenant text not null,
    subject text not null, -- empty: the tombstone of the whole tenant
    key_id text unique,    -- null: destroyed before there was a key
    master_id text,
    wrapped blob,          -- null: destroyed
    created_at integer not null, -- microseconds since 1970, UTC
    destroyed_at integer,
    primary key (tenant, subject),
    check ((wrapped is null) = (destroyed_at is not null)),
    check ((wrapped is null) = (master_id is null))
) strict
""",
    ),
)
_COLUMNS = "coalesce(key_id, ''), tenant, subject, master_id, wrapped"
_OF_SUBJECT = f"select {_COLUMNS} from data_key where tenant = ?1 and subject = ?2"  # noqa: S608 - ours
_BY_ID = f"select {_COLUMNS} from data_key where key_id = ?1"  # noqa: S608 - ours
_CREATE = """
insert into data_key (tenant, subject, key_id, master_id, wrapped, created_at)
values (?1, ?2, ?3, ?4, ?5, ?6) on conflict (tenant, subject) do nothing
"""
_ENTOMB = """
insert into data_key as k (tenant, subject, key_id, created_at, destroyed_at)
values (?1, ?2, ?3, ?4, ?4)
on conflict (tenant, subject) do update set key_id = coalesce(k.key_id, excluded.key_id)
"""
_DESTROY = """
update data_key set wrapped = null, master_id = null, destroyed_at = ?3
where tenant = ?1 and (?2 is null or subject = ?2) and wrapped is not null
"""
_OTHERS = f"""
select {_COLUMNS} from data_key
where wrapped is not null and master_id <> ?1 and key_id > ?2 order by key_id limit ?3
"""  # noqa: S608 - ours
_REWRAP = """
update data_key set wrapped = ?4, master_id = ?5
where tenant = ?1 and subject = ?2 and wrapped = ?3
"""
_STATUS = "select master_id, count(*) from data_key where subject <> '' group by master_id"
IN_THE_WAY = (
    "the write-ahead log of keys.db still has them: somebody reads it; done again at the next look"
)


class LibsqlKeys:
    """The key store of a fleet. Open it with `LibsqlKeys.open`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        clock: Clock | None = None,
        lock_wait_s: float = LOCK_WAIT_S,
        migrate: bool = True,
    ) -> AsyncIterator[Self]:
        """Yield the keys in this file, their table ready; without `migrate` only to be read."""
        clock = clock or SystemClock()
        if not migrate:
            async with open_read_only(url, lock_wait_s=lock_wait_s) as database:
                await database.read(lambda c: check(c, COMPONENT, [TABLE]))
                yield cls(database, clock)
            return
        async with open_database(url, lock_wait_s=lock_wait_s) as database:
            now_us = to_us(clock.now())
            await database.write(lambda c: c.rows("pragma secure_delete = on"))
            await database.write(lambda c: migrate_schema(c, COMPONENT, [TABLE], at_us=now_us))
            yield cls(database, clock)

    async def create(self, key: DataKey) -> DataKey:
        """Keep `key`, unless there is one or may be none."""

        def job(connection: Connection) -> DataKey:
            with connection.transaction():
                if connection.rows(_OF_SUBJECT, key.tenant, ""):
                    connection.run(_ENTOMB, key.tenant, key.subject, None, self._now_us())
                else:
                    row = (key.tenant, key.subject, key.key_id, key.master_id, key.wrapped)
                    connection.run(_CREATE, *row, self._now_us())
                return _key(connection.rows(_OF_SUBJECT, key.tenant, key.subject)[0])

        return await self._database.write(job)

    async def of_subject(self, tenant: str, subject: str) -> DataKey | None:
        """Return the subject's key or tombstone."""
        rows = await self._database.rows(_OF_SUBJECT, tenant, subject)
        return _key(rows[0]) if rows else None

    async def by_id(self, tenant: str, key_id: str) -> DataKey | None:
        """Return the key with this id, or the tombstone of `tenant`."""
        rows = await self._database.rows(_BY_ID, key_id)
        return _key(rows[0]) if rows else await self.of_subject(tenant, "")

    async def destroy(self, erasure: Erasure) -> Destroyed:
        """Leave tombstones only."""
        tenant, subject = erasure.tenant, erasure.subject

        def job(connection: Connection) -> int:
            with connection.transaction():
                now_us = self._now_us()
                connection.run(_ENTOMB, tenant, subject or "", erasure.key_id, now_us)
                return connection.run(_DESTROY, tenant, subject, now_us)

        return Destroyed(tenant, subject, await self._database.write(job))

    async def scrub(self) -> tuple[str, ...]:
        """Move the write-ahead log into the file, where what was deleted is overwritten; empty it."""

        def job(connection: Connection) -> bool:
            [(busy, *_)] = connection.rows("pragma wal_checkpoint(truncate)")
            if busy:
                raise Locked("somebody reads keys.db")
            return True

        try:
            await self._database.write(lambda c: c.patiently(lambda: job(c)))
        except Locked:
            return (IN_THE_WAY,)
        return ()

    async def wrapped_by_others(
        self, master_id: str, *, after: str, limit: int
    ) -> Sequence[DataKey]:
        """Return living keys that another master key wraps, by id."""
        return [_key(row) for row in await self._database.rows(_OTHERS, master_id, after, limit)]

    async def rewrap(self, old: DataKey, new: DataKey) -> bool:
        """Put `new` in the place of `old`, if it is still there."""
        row = (old.tenant, old.subject, old.wrapped, new.wrapped, new.master_id)

        def job(connection: Connection) -> int:
            with connection.transaction():
                return connection.run(_REWRAP, *row)

        return bool(await self._database.write(job))

    async def status(self) -> KeyStatus:
        """Count the keys."""
        counts = {str(row[0] or ""): int(str(row[1])) for row in await self._database.rows(_STATUS)}
        return KeyStatus(counts.pop("", 0), counts)

    def _now_us(self) -> int:
        return to_us(self._clock.now())


def _key(row: Row) -> DataKey:
    key_id, tenant, subject, master_id, wrapped = row
    return DataKey(key_id, tenant, subject, master_id, None if wrapped is None else bytes(wrapped))
