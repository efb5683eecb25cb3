"""What no adapter stores, so that all refuse the same."""

from collections.abc import Iterable

from flotilla.aggregate import EVENT_BYTES_MAX
from flotilla.errors import EventTooLarge, Rejected
from flotilla.store import NewEvent, StreamId, Unit, tenant_of

HEADERS_BYTES_MAX = 6 * 1024
"""Of stream, type, id and metadata together: headers, some of them twice, percent-encoded."""
NAME_BYTES_MAX = 1024
"""Of tenant and type: they travel in the subject, and a protocol line of NATS has 4096 bytes."""
MESSAGE_BYTES_MAX = EVENT_BYTES_MAX + 2 * 3 * HEADERS_BYTES_MAX + 2048
"""What an event that was committed takes at most on the broker, headers included."""


class Unstorable(Rejected):
    """The unit holds text that not every database can keep: NUL or half a surrogate pair."""

    default_code = "unstorable"


def check_storable(unit: Unit) -> None:
    """Raise `Unstorable` when a store cannot keep the unit, `EventTooLarge` when no broker takes it."""
    text = "".join(_texts(unit))
    if "\0" in text:
        raise Unstorable("text with a NUL character cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unstorable("text with half a surrogate pair cannot be stored") from error
    for append in unit.appends:
        for event in append.events:
            _check_size(append.stream, event)


def _check_size(stream: StreamId, event: NewEvent) -> None:
    """Raise `EventTooLarge` when the broker might not take what would be committed."""
    names = (tenant_of(stream), event.type)
    headers = (stream, event.event_id, event.type, *event.metadata, *event.metadata.values())
    for what, texts, most in (
        ("payload", (event.payload,), EVENT_BYTES_MAX),
        ("stream, type and metadata", headers, HEADERS_BYTES_MAX),
        ("tenant and type", names, NAME_BYTES_MAX),
    ):
        if 4 * sum(map(len, texts)) > most:  # else it is small in any case, which is nearly always
            size = sum(len(text.encode()) for text in texts)
            if size > most:
                raise EventTooLarge(
                    f"{event.type[:80]}: {what} has {size} bytes; {most} are allowed"
                )


def is_storable(*texts: str) -> bool:
    """Return whether these can be stored; what cannot is nowhere, and is not asked for."""
    text = "".join(texts)
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _texts(unit: Unit) -> Iterable[str]:
    for append in unit.appends:
        yield append.stream
        if append.snapshot:
            yield append.snapshot.state
        for event in append.events:
            yield from (event.event_id, event.type, event.payload)
            yield from event.metadata
            yield from event.metadata.values()
    if unit.record:
        yield from (unit.record.claim.tenant, unit.record.claim.scope, unit.record.claim.key)
