"""The in-memory store keeps the contracts."""

import pytest

from flotilla.stores.memory import MemoryStore
from flotilla.testing import EventStoreContract, OutboxContract


class TestMemoryStore(EventStoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestMemoryOutbox(OutboxContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
