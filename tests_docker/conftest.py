"""The fleet from outside, in containers. Needs an engine, or root on Debian to start one."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
import pytest_asyncio
from containers import ComposeFleet, prepare

from flotilla.testing.servers import open_folder

_numbers = count(1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fleet() -> AsyncIterator[ComposeFleet]:
    """The fleet of the compose file, which all tests share; each has a tenant of its own."""
    with open_folder() as folder:
        fleet = ComposeFleet(folder, prepare())
        try:
            await fleet.start()
            yield fleet
        finally:
            await fleet.stop()


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test has."""
    return f"tenant-{next(_numbers)}"
