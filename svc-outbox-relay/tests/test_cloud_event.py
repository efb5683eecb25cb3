"""What is published carries the same headers as the contract's envelope, whatever is in the event."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from flotilla import OutboxEntry, RecordedEvent, StreamId, Version
from flotilla_contracts import Envelope
from flotilla_contracts.wire import event_subject
from svc_outbox_relay.cloud_event import cloud_events

part = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
times = st.datetimes(timezones=st.just(UTC))


@given(st.tuples(part, part, part), st.integers(1, 10**9), text, st.none() | text, times)
def test_the_headers_are_the_envelope_s(
    parts: tuple[str, str, str], version: int, correlation: str, cause: str | None, at: datetime
) -> None:
    stream = StreamId("/".join(parts))
    metadata = {"correlation": correlation, "traceparent": "00-aa-bb-01"}
    if cause is not None:
        metadata["causation"] = cause
    event = RecordedEvent(
        stream, Version(version), "id-1", "thing.happened.v2", '{"ü": 1}', metadata, at
    )

    message = cloud_events("thing")(OutboxEntry(1, None, event))

    lines = message.headers.decode("ascii").removesuffix("\r\n").split("\r\n")
    envelope = Envelope(
        id="id-1",
        source="urn:flotilla:service:thing",
        type="thing.happened.v2",
        time=at,
        tenant=parts[0],
        stream=stream,
        streamversion=version,
        schemaversion=2,
        correlationid=correlation,
        causationid=cause,
        traceparent="00-aa-bb-01",
    )
    found = dict(line.split(": ", 1) for line in lines)
    assert len(lines) == len(found)
    assert envelope.to_headers() == found
    assert envelope == Envelope.from_headers(found)
    assert event_subject("thing", parts[0], "thing.happened.v2") == message.subject
    assert '{"ü": 1}'.encode() == message.payload
