"""An outbox entry as the CloudEvent that is published. The payload is not looked at."""

from flotilla import OutboxEntry
from flotilla.store import tenant_of
from flotilla_contracts import Envelope
from flotilla_contracts.envelope import schema_version
from flotilla_contracts.wire import event_subject
from svc_outbox_relay.relay import Message


def cloud_event(log: str, entry: OutboxEntry) -> Message:
    """Return the message for `entry` of the service `log`."""
    event = entry.event
    tenant = tenant_of(event.stream)
    envelope = Envelope(
        id=event.event_id,
        source=f"urn:flotilla:service:{log}",
        type=event.type,
        time=event.recorded_at,
        tenant=tenant,
        stream=event.stream,
        streamversion=event.version,
        schemaversion=schema_version(event.type),
        correlationid=event.metadata.get("correlation", event.event_id),
        causationid=event.metadata.get("causation"),
        traceparent=event.metadata.get("traceparent"),
    )
    subject = event_subject(log, tenant, event.type)
    return Message(subject, envelope.to_headers(), event.payload.encode())
