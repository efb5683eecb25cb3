"""The Postgres adapters keep the contracts, on a real server."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from flotilla.embedded import PostgresServer
from flotilla.stores.postgres import PostgresStore, PostgresViews
from flotilla.testing import EventStoreContract, OutboxContract, ParkingContract, ViewStoreContract
from flotilla.testing.views import TALLY


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
    async def store(self, postgres_server: PostgresServer) -> AsyncIterator[PostgresStore]:
        async for store in opened(postgres_server):
            yield store


class TestPostgresViews(ViewStoreContract):
    @pytest.fixture
    async def views(self, postgres_server: PostgresServer) -> AsyncIterator[PostgresViews]:
        async with PostgresViews.open(postgres_server.dsn, service=a_service()) as views:
            await views.migrate("tally", [TALLY])
            yield views


class TestPostgresParking(ParkingContract):
    @pytest.fixture
    async def views(self, postgres_server: PostgresServer) -> AsyncIterator[PostgresViews]:
        async with PostgresViews.open(postgres_server.dsn, service=a_service()) as views:
            yield views
