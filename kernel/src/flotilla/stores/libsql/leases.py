"""Leases in a libSQL file: the clock that decides is the machine's, which all its processes share."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from flotilla.clock import Clock, SystemClock, to_us
from flotilla.lease import Lease, LeaseStatus
from flotilla.stores.libsql.connection import (
    LOCK_WAIT_S,
    Connection,
    Database,
    open_database,
    open_read_only,
)
from flotilla.stores.libsql.schema import check
from flotilla.stores.libsql.schema import migrate as migrate_schema
from flotilla.stores.migrations import Migration

COMPONENT, TABLE = (
    "lease",
    Migration(
        1,
        "lease",
        """
create table lease (
    name text primary key,
    holder text,
    token integer not null,
    expires_at integer not null -- microseconds since 1970, UTC
) strict
""",
    ),
)
_ACQUIRE = """
insert into lease as l (name, holder, token, expires_at) values (?1, ?2, 1, ?3 + ?4)
on conflict (name) do update
set holder = excluded.holder,
    token = case when l.holder = excluded.holder and l.expires_at > ?3 then l.token else l.token + 1 end,
    expires_at = excluded.expires_at
where l.holder is null or l.holder = excluded.holder or l.expires_at <= ?3
"""
_TOKEN = "select token from lease where name = ?1"  # noqa: S105 - no secret
_FREE = """
select 1 where not exists (
    select 1 from lease where name = ?1 and holder <> ?2 and expires_at > ?3
)
"""
_RELEASE = """
update lease set holder = null, expires_at = ?4 where name = ?1 and holder = ?2 and token = ?3
"""
_SECOND_US = 1_000_000


class LibsqlLeases:
    """One service's leases. Open it with `LibsqlLeases.open`."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        service: str,  # noqa: ARG003 - the file is the service's own
        clock: Clock | None = None,
        lock_wait_s: float = LOCK_WAIT_S,
        migrate: bool = True,
    ) -> AsyncIterator[Self]:
        """Yield the leases of `service`, their table ready; without `migrate` only to be read."""
        clock = clock or SystemClock()
        if not migrate:
            async with open_read_only(url, lock_wait_s=lock_wait_s) as database:
                await database.read(lambda c: check(c, COMPONENT, [TABLE]))
                yield cls(database, clock=clock)
            return
        async with open_database(url, lock_wait_s=lock_wait_s) as database:
            now_us = to_us(clock.now())
            await database.write(lambda c: migrate_schema(c, COMPONENT, [TABLE], at_us=now_us))
            yield cls(database, clock=clock)

    async def acquire(self, name: str, holder: str, *, ttl_s: float) -> Lease | None:
        """Take or renew `name`; None while somebody else has it, found without the write lock."""

        def job(connection: Connection) -> int | None:
            with (
                connection.transaction()
            ):  # the time is read under the lock: it may be long in coming
                now_us = to_us(self._clock.now())
                taken = connection.run(_ACQUIRE, name, holder, now_us, round(ttl_s * _SECOND_US))
                return connection.rows(_TOKEN, name)[0][0] if taken else None

        if not await self._database.rows(_FREE, name, holder, to_us(self._clock.now())):
            return None
        token = await self._database.write(job)
        return None if token is None else Lease(name, holder, token, ttl_s)

    async def release(self, lease: Lease) -> None:
        """Let go, if it is the newest."""

        def job(connection: Connection) -> None:
            with connection.transaction():
                now_us = to_us(self._clock.now())
                connection.run(_RELEASE, lease.name, lease.holder, lease.token, now_us)

        await self._database.write(job)

    async def leases(self) -> Sequence[LeaseStatus]:
        """Return every lease, by name."""
        rows = await self._database.rows(
            "select name, holder, token, expires_at from lease order by name"
        )
        now_us = to_us(self._clock.now())
        return [
            LeaseStatus(
                name, holder if end_us > now_us else None, token, (end_us - now_us) / _SECOND_US
            )
            for name, holder, token, end_us in rows
        ]
