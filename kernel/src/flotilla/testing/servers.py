"""Real servers for tests, as pytest fixtures: import the names into a conftest.

    from flotilla.testing.servers import nats_server, postgres_server  # noqa: F401

Both are started once a session, from wheels (the extra `embedded`), on loopback or a unix socket.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from flotilla.embedded import NatsServer, PostgresServer, run_nats, run_postgres


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """Run a NATS server with JetStream for the whole session."""
    async with run_nats(_folder(tmp_path_factory, "nats")) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[PostgresServer]:
    """Run a PostgreSQL server for the whole session."""
    async with run_postgres(_folder(tmp_path_factory, "postgres")) as server:
        yield server


def _folder(factory: pytest.TempPathFactory, name: str) -> Path:
    return factory.mktemp(name)
