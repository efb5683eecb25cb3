"""The fleet from outside: real processes, their real servers, every topology."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from fleet import TOPOLOGIES, Fleet

_numbers = count(1)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=TOPOLOGIES)
async def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    """A running fleet that all tests of a topology share; each has a tenant of its own."""
    fleet = Fleet(request.param, tmp_path_factory.mktemp("fleet"))
    await fleet.start()
    try:
        yield fleet
    finally:
        assert await fleet.stop() == 0, fleet.tail()


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test has."""
    return f"tenant-{next(_numbers)}"


@pytest_asyncio.fixture(params=TOPOLOGIES)
async def own_fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet of the test's own, not started yet, that it may break."""
    fleet = Fleet(request.param, tmp_path)
    yield fleet
    await fleet.stop()
