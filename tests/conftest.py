"""The fleet from outside: real processes, their real servers, every topology."""

from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from fleet import ONE_PROCESS, TOPOLOGIES, Fleet

from flotilla.testing.servers import open_folder

_numbers = count(1)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=TOPOLOGIES)
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    """A running fleet that all tests of a topology share; each has a tenant of its own."""
    with open_folder() as folder:
        fleet = Fleet(request.param, folder)
        await fleet.start()
        try:
            yield fleet
        finally:
            assert await fleet.stop() == 0, fleet.tail()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that PostgreSQL's user may reach, unlike pytest's own."""
    with open_folder() as folder:
        yield folder


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test has."""
    return f"tenant-{next(_numbers)}"


@pytest_asyncio.fixture(params=ONE_PROCESS)
async def own_fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet of the test's own, not started yet, that it may break: `test_processes` does vps."""
    fleet = Fleet(request.param, tmp_path)
    yield fleet
    await fleet.stop()
