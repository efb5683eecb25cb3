"""Leases on Postgres, in the schema of the service that they are about. The server's clock decides."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from flotilla.lease import Lease, LeaseStatus
from flotilla.stores.migrations import Migration
from flotilla.stores.postgres.connection import Connections, prepare, schema_of

CONNECTIONS_MAX = 2
"""Of its own: a renewal never waits for those who read and write events."""

COMPONENT, TABLE = (
    "lease",
    Migration(
        1,
        "lease",
        """
create table lease (
    name text collate "C" primary key,
    holder text,
    token bigint not null,
    expires_at timestamptz not null
) with (fillfactor = 50)
""",
    ),
)
_ACQUIRE = """
insert into lease as l (name, holder, token, expires_at)
values ($1, $2, 1, clock_timestamp() + $3 * interval '1 second')
on conflict (name) do update
set holder = excluded.holder,
    token = case
        when l.holder = excluded.holder and l.expires_at > clock_timestamp() then l.token
        else l.token + 1
    end,
    expires_at = clock_timestamp() + $3 * interval '1 second'
where l.holder is null or l.holder = excluded.holder or l.expires_at <= clock_timestamp()
returning token
"""
_RELEASE = """
update lease set holder = null, expires_at = clock_timestamp()
where name = $1 and holder = $2 and token = $3
"""
_LEASES = """
select
    name, case when expires_at > clock_timestamp() then holder end as holder, token,
    extract(epoch from expires_at - clock_timestamp())::float8 as expires_in_s
from lease order by name
"""


class PostgresLeases:
    """One service's leases. Open it with `PostgresLeases.open`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, service: str, migrate: bool = True) -> AsyncIterator[Self]:
        """Yield the leases of `service`, their table ready; without `migrate` only to be read."""
        schema, size_max = schema_of(service), CONNECTIONS_MAX
        connections = Connections(url, schema=schema, size_max=size_max, read_only=not migrate)
        try:
            await prepare(connections, COMPONENT, [TABLE], schema=schema, write=migrate)
            yield cls(connections)
        finally:
            await connections.close()

    async def acquire(self, name: str, holder: str, *, ttl_s: float) -> Lease | None:
        """Take or renew `name`; None while somebody else has it."""
        async with self._connections.use() as connection:
            token = await connection.fetchval(_ACQUIRE, name, holder, ttl_s)
        return None if token is None else Lease(name, holder, token, ttl_s)

    async def release(self, lease: Lease) -> None:
        """Let go, if it is the newest."""
        async with self._connections.use() as connection:
            await connection.execute(_RELEASE, lease.name, lease.holder, lease.token)

    async def leases(self) -> Sequence[LeaseStatus]:
        """Return every lease, by name."""
        async with self._connections.use() as connection:
            return [LeaseStatus(*row) for row in await connection.fetch(_LEASES)]
