"""What no adapter stores, so that all refuse the same."""

from collections.abc import Iterable

from flotilla.errors import Rejected
from flotilla.store import NewEvent, Unit


class Unstorable(Rejected):
    """The unit holds text that not every database can keep: NUL or half a surrogate pair."""

    default_code = "unstorable"


def check_storable(unit: Unit) -> None:
    """Raise `Unstorable` when the unit cannot be stored everywhere."""
    texts = [text for append in unit.appends for text in (append.stream, *_texts(append.events))]
    texts += [append.snapshot.state for append in unit.appends if append.snapshot]
    if unit.record:
        claim = unit.record.claim
        texts += [claim.tenant, claim.scope, claim.key]
    for text in texts:
        if "\0" in text:
            raise Unstorable("text with a NUL character cannot be stored")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Unstorable("text with half a surrogate pair cannot be stored") from error


def _texts(events: Iterable[NewEvent]) -> Iterable[str]:
    for event in events:
        yield event.event_id
        yield event.type
        yield event.payload
        yield from event.metadata
        yield from event.metadata.values()
