"""The service that every workflow engine asks: it writes one effect a key, durable before it answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

STEPS = ("reserve", "charge", "ship")
CONNECTIONS = 20
INSERT = "insert into effect values ($1) on conflict do nothing"


@dataclass(frozen=True, slots=True)
class Service:
    """Effects by key, each in a transaction of its own."""

    pool: asyncpg.Pool

    async def ask(self, key: str) -> str:
        """Do what `key` stands for, once; return when it is durable."""
        await self.pool.execute(INSERT, key)
        return "done"

    async def count(self) -> int:
        """Return how many effects there are."""
        return int(await self.pool.fetchval("select count(*) from effect"))


@asynccontextmanager
async def service(dsn: str) -> AsyncIterator[Service]:
    """Yield the service on its own table and its own connections."""
    async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        await pool.execute("create table effect (key text primary key)")
        yield Service(pool)
