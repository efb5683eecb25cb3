"""Real servers for tests, as pytest fixtures: import the names into a conftest.

    from flotilla.testing.servers import nats_server, postgres_server

    __all__ = ["nats_server", "postgres_server"]

Both are started once a session, from wheels (the extra `embedded`), on loopback or a unix socket.
Their data is in `open_folder`s, because pytest closes its own temporary folders to other users, again
and again, and a PostgreSQL that root started is another user.
"""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest_asyncio

from flotilla.embedded import NatsServer, PostgresServer, run_nats, run_postgres


@contextmanager
def open_folder() -> Iterator[Path]:
    """Lend an empty folder that every user may pass through."""
    with tempfile.TemporaryDirectory(prefix="flotilla-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server() -> AsyncIterator[NatsServer]:
    """Run a NATS server with JetStream for the whole session."""
    with open_folder() as folder:
        async with run_nats(folder) as server:
            yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server() -> AsyncIterator[PostgresServer]:
    """Run a PostgreSQL server for the whole session."""
    with open_folder() as folder:
        async with run_postgres(folder) as server:
            yield server
