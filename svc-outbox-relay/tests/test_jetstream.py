"""The stream on a real broker keeps the contract, and what it carries is a CloudEvent."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flotilla.embedded import NatsServer
from flotilla.nats import connected
from flotilla.outbox import START
from flotilla.store import EMPTY, Append, StreamId, Unit
from flotilla.stores.libsql import LibsqlStore
from flotilla.testing import new_event
from svc_outbox_relay.cloud_event import cloud_events
from svc_outbox_relay.jetstream import JetStreamLog
from svc_outbox_relay.relay import Relay
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


async def test_what_nobody_here_knows_is_published_to_the_byte(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    """A newer version's event, on the real store and broker: the relay never decodes a payload."""
    payload = '{ "note":"\\u00fc\\/" , "n" : 1.0, "n":123456789012345678901234567890 }'
    event = new_event(payload, kind="thing.annotated.v7", metadata={"correlation": "c"})
    async with (
        LibsqlStore.open(f"libsql://{tmp_path}/thing.db", service="odd") as store,
        connected(nats_server.url, name="test") as connection,
    ):
        await store.commit([Unit((Append(StreamId("acme/thing/a"), EMPTY, (event,)),))])
        relay = Relay("odd", store, JetStreamLog(connection, "odd"), cloud_events("odd"))

        assert 1 == await relay.relay(await relay.handshake())

        message = await connection.jetstream().get_msg("EVT_ODD", seq=1)
        [entry] = await store.published(after=START, limit=9)
        await connection.jetstream().delete_stream("EVT_ODD")
    assert payload.encode() == message.data
    assert event.type == (message.headers or {})["ce-type"]
    assert event == type(event)(
        entry.event.event_id, entry.event.type, entry.event.payload, dict(entry.event.metadata)
    )
