"""The in-memory store keeps the contracts."""

import pytest

from flotilla.stores.memory import MemoryStore
from flotilla.stores.memory_leases import MemoryLeases
from flotilla.testing import (
    DueStoreContract,
    EventStoreContract,
    LeaseStoreContract,
    OutboxContract,
)


class TestMemoryStore(EventStoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestMemoryOutbox(OutboxContract):
    @pytest.fixture
    def leases(self) -> MemoryLeases:
        return MemoryLeases()

    @pytest.fixture
    def store(self, leases: MemoryLeases) -> MemoryStore:
        return MemoryStore(leases=leases)


class TestMemoryDue(DueStoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestMemoryLeases(LeaseStoreContract):
    @pytest.fixture
    def store(self) -> MemoryLeases:
        return MemoryLeases()
