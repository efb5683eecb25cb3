"""The views in memory keep the promises of every view store, parking among them."""

from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from flotilla import ViewStore
from flotilla.testing import ParkingContract, ViewStoreContract
from flotilla.testing.views import TALLY
from simulation.views import Database, MemoryViews


class TestMemoryViews(ViewStoreContract):
    @pytest.fixture
    async def views(self) -> AsyncIterator[ViewStore]:
        with closing(Database()) as database:
            views = MemoryViews(database)
            await views.migrate("tally", (TALLY,))
            yield views


class TestParkingInMemory(ParkingContract):
    @pytest.fixture
    async def views(self) -> AsyncIterator[ViewStore]:
        with closing(Database()) as database:
            yield MemoryViews(database)
