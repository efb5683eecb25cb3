"""The Postgres adapters keep the contracts, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from flotilla.embedded import PostgresServer
from flotilla.errors import Unavailable
from flotilla.parking import is_poison
from flotilla.projection import ViewSession
from flotilla.store import Unit
from flotilla.stores.postgres import PostgresLeases, PostgresStore, PostgresViews
from flotilla.stores.postgres.connection import read_sql, schema_of
from flotilla.stores.postgres.isolation import EVERY_TENANT
from flotilla.testing import (
    DueStoreContract,
    EventStoreContract,
    LeaseStoreContract,
    OutboxContract,
    ParkingContract,
    ViewStoreContract,
)
from flotilla.testing.store import A, append
from flotilla.testing.views import TALLY, UPSERT, add
from flotilla.testing.worlds import eventually


def a_service() -> str:
    """Each test has a schema of its own on the shared server."""
    return f"s{uuid4().hex[:12]}"


async def opened(server: PostgresServer) -> AsyncIterator[PostgresStore]:
    async with PostgresStore.open(server.dsn, service=a_service()) as store:
        yield store


class TestPostgresStore(EventStoreContract):
    @pytest.fixture
    async def store(self, postgres_server: PostgresServer) -> AsyncIterator[PostgresStore]:
        async for store in opened(postgres_server):
            yield store


class TestPostgresOutbox(OutboxContract):
    @pytest.fixture
    def service(self) -> str:
        return a_service()

    @pytest.fixture
    async def store(
        self, postgres_server: PostgresServer, service: str
    ) -> AsyncIterator[PostgresStore]:
        async with PostgresStore.open(postgres_server.dsn, service=service) as store:
            yield store

    @pytest.fixture
    async def leases(
        self, postgres_server: PostgresServer, service: str
    ) -> AsyncIterator[PostgresLeases]:
        async with PostgresLeases.open(postgres_server.dsn, service=service) as leases:
            yield leases

    async def test_nobody_takes_the_lease_while_offsets_are_recorded_under_it(
        self,
        postgres_server: PostgresServer,
        service: str,
        store: PostgresStore,
        leases: PostgresLeases,
    ) -> None:
        """Or the next leader would go on from a ledger that lacks what is being written."""
        lease = await leases.acquire("relay:thing", "a", ttl_s=60)
        assert lease
        await leases.release(lease)
        await store.commit([Unit((append(A, 0, '"1"'),))])
        [entry] = await store.pending(limit=1)
        connection = await asyncpg.connect(postgres_server.dsn, server_settings=EVERY_TENANT)
        try:
            async with connection.transaction():
                await connection.execute(f'set local search_path = "{schema_of(service)}"')
                sql = read_sql("record")
                await connection.fetch(sql, [entry.position], [1], lease.name, lease.token)
                taking = asyncio.create_task(leases.acquire(lease.name, "b", ttl_s=60))
                await eventually(lambda: _waits_for_a_lock(connection), what="acquire waits")
                assert not taking.done()
        finally:
            await connection.close()
        taken = await taking
        assert taken
        assert lease.token < taken.token
        assert 1 == await store.last_offset()


async def _waits_for_a_lock(connection: asyncpg.Connection) -> bool:
    """Return whether somebody waits for what this connection holds."""
    return bool(
        await connection.fetchval(
            "select count(*) from pg_locks"
            " where not granted and transactionid = pg_current_xact_id()::xid"
        )
    )


class TestPostgresViews(ViewStoreContract):
    @pytest.fixture
    async def views(self, postgres_server: PostgresServer) -> AsyncIterator[PostgresViews]:
        async with PostgresViews.open(postgres_server.dsn, service=a_service()) as views:
            await views.migrate("tally", [TALLY])
            yield views


class TestPostgresDue(DueStoreContract):
    @pytest.fixture
    async def store(self, postgres_server: PostgresServer) -> AsyncIterator[PostgresStore]:
        async for store in opened(postgres_server):
            yield store

    async def test_a_claim_does_not_walk_what_is_still_to_come(self, store: PostgresStore) -> None:
        async with store._connections.use() as connection:
            await connection.execute(
                "insert into due select 'acme/process/' || n, 'process', at, at from ("
                " select n, now() + n * interval '1 minute' as at from generate_series(1, 20000) n"
                ") as later"
            )
            await connection.execute(f"prepare once as {read_sql('claim')}")
            plan = await connection.fetch(
                "explain (analyze, buffers, costs off) execute once('process', 64, 10)"
            )
            await connection.execute("deallocate once")
        lines = [row[0] for row in plan]
        assert not [line for line in lines if "Rows Removed by Filter" in line], lines
        assert 20 > int(lines[1].split("hit=")[1].split()[0]), lines


class TestPostgresLeases(LeaseStoreContract):
    @pytest.fixture
    async def store(self, postgres_server: PostgresServer) -> AsyncIterator[PostgresLeases]:
        async with PostgresLeases.open(postgres_server.dsn, service=a_service()) as leases:
            yield leases


class TestPostgresParking(ParkingContract):
    @pytest.fixture
    async def views(self, postgres_server: PostgresServer) -> AsyncIterator[PostgresViews]:
        async with PostgresViews.open(postgres_server.dsn, service=a_service()) as views:
            yield views


async def test_who_waits_for_a_lock_is_told_with_its_holder(
    postgres_server: PostgresServer,
) -> None:
    locked, leave = asyncio.Event(), asyncio.Event()

    async def hold(view: ViewSession) -> None:
        await add(view)
        locked.set()
        await leave.wait()

    async with PostgresViews.open(postgres_server.dsn, service=a_service()) as views:
        await views.migrate("tally", [TALLY])
        await views.transact(add)
        holding = asyncio.create_task(views.transact(hold))
        await locked.wait()
        waiting = asyncio.create_task(views.transact(add))

        [found] = await eventually(views.lock_waits, what="somebody waits")
        leave.set()
        await asyncio.gather(holding, waiting)

        assert "insert into tally" in found.holder
        assert "idle in transaction" in found.holder


async def test_a_deadlock_is_no_poison(postgres_server: PostgresServer) -> None:
    """One of two is chosen by the server, and may try again."""
    both = asyncio.Barrier(2)

    async def cross(first: str, second: str) -> None:
        async def apply(view: ViewSession) -> None:
            await view.execute_many(UPSERT, [(first, 1)])
            await both.wait()
            await view.execute_many(UPSERT, [(second, 1)])

        await views.transact(apply)

    async with PostgresViews.open(postgres_server.dsn, service=a_service()) as views:
        await views.migrate("tally", [TALLY])
        await views.transact(add)
        ends = await asyncio.gather(cross("a", "b"), cross("b", "a"), return_exceptions=True)

    [victim] = [end for end in ends if end is not None]
    assert isinstance(victim, Unavailable), repr(victim)
    assert not is_poison(victim)
