"""The stream on a real broker keeps the contract, and what it carries is a CloudEvent."""

from collections.abc import AsyncIterator

import pytest

from flotilla.embedded import NatsServer
from flotilla.nats import connected
from svc_outbox_relay.jetstream import JetStreamLog
from svc_outbox_relay.testing import LogStreamContract, MemoryLogStream


class TestMemoryLogStream(LogStreamContract):
    @pytest.fixture
    def stream(self) -> MemoryLogStream:
        return MemoryLogStream()


class TestJetStreamLog(LogStreamContract):
    @pytest.fixture
    async def stream(self, nats_server: NatsServer) -> AsyncIterator[JetStreamLog]:
        async with connected(nats_server.url, name="test") as connection:
            stream = JetStreamLog(connection, "thing")
            yield stream
            await connection.jetstream().delete_stream("EVT_THING")
