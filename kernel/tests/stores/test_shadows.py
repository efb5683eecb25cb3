"""Shadow stores keep their contract: beside Postgres's schemas, and beside libSQL's files."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from flotilla.clock import SystemClock
from flotilla.embedded import PostgresServer
from flotilla.shadow import ShadowStore
from flotilla.stores import open_shadows
from flotilla.testing import ShadowStoreContract
from flotilla.testing.shadows import Tally


async def opened(url: str) -> AsyncIterator[ShadowStore]:
    service = f"s{uuid4().hex[:12]}"  # on Postgres, each test has a schema of its own
    async with open_shadows(
        url, service=service, projection=Tally(), clock=SystemClock()
    ) as places:
        await places.live.migrate(Tally.name, Tally.tables)
        yield places


class TestPostgresShadows(ShadowStoreContract):
    @pytest.fixture
    async def places(self, postgres_server: PostgresServer) -> AsyncIterator[ShadowStore]:
        async for places in opened(postgres_server.dsn):
            yield places


class TestLibsqlShadows(ShadowStoreContract):
    @pytest.fixture
    async def places(self, tmp_path: Path) -> AsyncIterator[ShadowStore]:
        async for places in opened(f"libsql://{tmp_path}/thing.db"):
            yield places
