"""Data keys on PostgreSQL, in the schema `keys`, or by setting in a database of their own.

What is deleted leaves copies of its row that are cleaned away later: dead rows until a vacuum, the
write-ahead log until its segments are used again, archives and backups until they expire. All of them
are wrapped; `scrub` does what a database lets one do, and says what it cannot.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

import asyncpg

from flotilla.keys import DataKey, Destroyed, Erasure, KeyStatus
from flotilla.stores.migrations import Migration
from flotilla.stores.postgres.connection import Connections, prepare

SCHEMA = "keys"
CONNECTIONS_MAX = 4
COMPONENT, TABLE = (
    "keys",
    Migration(
        1,
        "data_key",
        """
create table data_key (
    tenant text collate "C" not null,
    subject text collate "C" not null, -- empty: the tombstone of the whole tenant
    key_id text collate "C" unique,    -- null: destroyed before there was a key
    master_id text,
    wrapped bytea,                     -- null: destroyed
    created_at timestamptz not null default clock_timestamp(),
    destroyed_at timestamptz,
    primary key (tenant, subject),
    check ((wrapped is null) = (destroyed_at is not null)),
    check ((wrapped is null) = (master_id is null))
)
""",
    ),
)
_COLUMNS = "coalesce(key_id, ''), tenant, subject, master_id, wrapped"
_LOCK = (
    "select pg_advisory_xact_lock(hashtextextended($1, 1802922861))"  # whoever makes or destroys
)
_OF_SUBJECT = f"select {_COLUMNS} from data_key where tenant = $1 and subject = $2"  # noqa: S608 - ours
_BY_ID = f"select {_COLUMNS} from data_key where key_id = $1"  # noqa: S608 - ours
_CREATE = """
insert into data_key (tenant, subject, key_id, master_id, wrapped)
values ($1, $2, $3, $4, $5) on conflict (tenant, subject) do nothing
"""
_ENTOMB = """
insert into data_key as k (tenant, subject, key_id, destroyed_at)
values ($1, $2, $3, clock_timestamp())
on conflict (tenant, subject) do update set key_id = coalesce(k.key_id, excluded.key_id)
"""
_DESTROY = """
with gone as (
    update data_key set wrapped = null, master_id = null, destroyed_at = clock_timestamp()
    where tenant = $1 and ($2::text is null or subject = $2) and wrapped is not null
    returning 1
)
select count(*) from gone
"""
_OTHERS = f"""
select {_COLUMNS} from data_key
where wrapped is not null and master_id <> $1 and key_id > $2 order by key_id limit $3
"""  # noqa: S608 - ours
_REWRAP = """
update data_key set wrapped = $4, master_id = $5
where tenant = $1 and subject = $2 and wrapped = $3 returning true
"""
_STATUS = "select master_id, count(*) from data_key where subject <> '' group by master_id"
REMAINS = (
    "wrapped copies in PostgreSQL's write-ahead log, until segments are used again or archives expire",
    "wrapped copies in backups of the keys, until they expire or the master key of then is destroyed",
)
NOT_VACUUMED = (
    "wrapped copies in dead rows of keys.data_key, until autovacuum: this role may not vacuum it"
)
HELD = (
    "wrapped copies in dead rows of keys.data_key, until autovacuum: a vacuum did not end in time"
)


class PostgresKeys:
    """The key store of a fleet. Open it with `PostgresKeys.open`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, schema: str = SCHEMA, migrate: bool = True
    ) -> AsyncIterator[Self]:
        """Yield the keys in this database, their table ready; without `migrate` only to be read."""
        connections = Connections(
            url,
            schema=schema,
            size_max=CONNECTIONS_MAX,
            every_tenant=True,  # a vault serves all; a key opens nothing but its own tenant's text
            read_only=not migrate,
        )
        try:
            await prepare(connections, COMPONENT, [TABLE], schema=schema, write=migrate)
            yield cls(connections)
        finally:
            await connections.close()

    async def create(self, key: DataKey) -> DataKey:
        """Keep `key`, unless there is one or may be none."""
        async with self._connections.use() as connection, connection.transaction():
            await connection.execute(_LOCK, key.tenant)
            if await connection.fetchrow(_OF_SUBJECT, key.tenant, ""):
                await connection.execute(_ENTOMB, key.tenant, key.subject, None)
            else:
                row = (key.tenant, key.subject, key.key_id, key.master_id, key.wrapped)
                await connection.execute(_CREATE, *row)
            return DataKey(*await connection.fetchrow(_OF_SUBJECT, key.tenant, key.subject))

    async def of_subject(self, tenant: str, subject: str) -> DataKey | None:
        """Return the subject's key or tombstone."""
        async with self._connections.use() as connection:
            row = await connection.fetchrow(_OF_SUBJECT, tenant, subject)
        return DataKey(*row) if row else None

    async def by_id(self, tenant: str, key_id: str) -> DataKey | None:
        """Return the key with this id, or the tombstone of `tenant`."""
        async with self._connections.use() as connection:
            row = await connection.fetchrow(_BY_ID, key_id)
        return DataKey(*row) if row else await self.of_subject(tenant, "")

    async def destroy(self, erasure: Erasure) -> Destroyed:
        """Leave tombstones only."""
        tenant, subject = erasure.tenant, erasure.subject
        async with self._connections.use() as connection, connection.transaction():
            await connection.execute(_LOCK, tenant)
            await connection.execute(_ENTOMB, tenant, subject or "", erasure.key_id)
            keys = await connection.fetchval(_DESTROY, tenant, subject)
        return Destroyed(tenant, subject, keys)

    async def scrub(self) -> tuple[str, ...]:
        """Vacuum away dead rows; say what no statement can reach."""
        async with self._connections.use() as connection:
            may = await connection.fetchval(
                "select pg_has_role(relowner, 'usage') from pg_class"
                " where oid = 'data_key'::regclass"
            )
            if not may:
                return (NOT_VACUUMED, *REMAINS)
            try:
                await connection.execute("vacuum data_key")
            except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):
                return (HELD, *REMAINS)
        return REMAINS

    async def wrapped_by_others(
        self, master_id: str, *, after: str, limit: int
    ) -> Sequence[DataKey]:
        """Return living keys that another master key wraps, by id."""
        async with self._connections.use() as connection:
            return [
                DataKey(*row) for row in await connection.fetch(_OTHERS, master_id, after, limit)
            ]

    async def rewrap(self, old: DataKey, new: DataKey) -> bool:
        """Put `new` in the place of `old`, if it is still there."""
        row = (old.tenant, old.subject, old.wrapped, new.wrapped, new.master_id)
        async with self._connections.use() as connection:
            return bool(await connection.fetchval(_REWRAP, *row))

    async def status(self) -> KeyStatus:
        """Count the keys."""
        async with self._connections.use() as connection:
            counts = {row[0] or "": row[1] for row in await connection.fetch(_STATUS)}
        return KeyStatus(counts.pop("", 0), counts)
