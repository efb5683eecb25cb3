"""An outbox entry as the CloudEvent that is published. The payload is not looked at.

The same headers as `Envelope.to_headers`, as bytes and without the model in between: this is done for
every event, and half of them depends on the event's type alone. A test holds the two together.
"""

from collections.abc import Callable
from functools import lru_cache

from flotilla import OutboxEntry
from flotilla.store import StreamId, tenant_of
from flotilla_contracts.envelope import CONTENT_TYPE, SPEC_VERSION, encoded, schema_version
from flotilla_contracts.wire import event_subject
from svc_outbox_relay.log_stream import Message

TYPES_MAX = 1024
STREAMS_MAX = 8192
"""How many types and streams are remembered as bytes."""


def cloud_events(log: str) -> Callable[[OutboxEntry], Message]:
    """Return what makes the messages of the service `log`."""

    @lru_cache(TYPES_MAX)
    def of_type(kind: str) -> str:
        source = encoded(f"urn:flotilla:service:{log}")
        quoted = encoded(kind)
        return (
            f"content-type: {CONTENT_TYPE}\r\nce-specversion: {SPEC_VERSION}\r\n"
            f"ce-source: {source}\r\nce-type: {quoted}\r\n"
            f"ce-dataschema: urn:flotilla:schema:{quoted}\r\n"
            f"ce-schemaversion: {schema_version(kind)}\r\n"
        )

    @lru_cache(STREAMS_MAX)
    def of_stream(stream: StreamId) -> str:
        quoted = encoded(stream)
        return (
            f"ce-tenant: {encoded(tenant_of(stream))}\r\n"
            f"ce-subject: {quoted}\r\nce-stream: {quoted}\r\nce-streamversion: "
        )

    @lru_cache(TYPES_MAX)
    def subject(tenant: str, kind: str) -> str:
        return event_subject(log, tenant, kind)

    def message(entry: OutboxEntry) -> Message:
        event = entry.event
        metadata = event.metadata
        trace, cause = metadata.get("traceparent"), metadata.get("causation")
        headers = (
            f"{of_type(event.type)}{of_stream(event.stream)}{event.version}\r\n"
            f"ce-id: {encoded(event.event_id)}\r\nce-time: {encoded(event.recorded_at.isoformat())}\r\n"
            f"ce-correlationid: {encoded(metadata.get('correlation', event.event_id))}\r\n"
        )
        if cause is not None:
            headers += f"ce-causationid: {encoded(cause)}\r\n"
        if trace is not None:
            headers += f"traceparent: {encoded(trace)}\r\n"
        return Message(
            subject(tenant_of(event.stream), event.type),
            headers.encode("ascii"),
            event.payload.encode(),
            trace,
        )

    return message
