"""The fleet from outside: a real process, its real servers, on every topology."""

from collections.abc import AsyncIterator

import pytest

from fleet import TOPOLOGIES, Fleet


@pytest.fixture(params=TOPOLOGIES)
async def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """A running fleet with data of its own."""
    fleet = Fleet(request.param, tmp_path_factory.mktemp("fleet"))
    await fleet.start()
    try:
        yield fleet
    finally:
        await fleet.stop()
