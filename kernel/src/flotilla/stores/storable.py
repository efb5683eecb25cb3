"""What no adapter stores, so that all refuse the same."""

from collections.abc import Iterable

from flotilla.errors import Rejected
from flotilla.store import Unit


class Unstorable(Rejected):
    """The unit holds text that not every database can keep: NUL or half a surrogate pair."""

    default_code = "unstorable"


def check_storable(unit: Unit) -> None:
    """Raise `Unstorable` when the unit cannot be stored everywhere."""
    text = "".join(_texts(unit))
    if "\0" in text:
        raise Unstorable("text with a NUL character cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unstorable("text with half a surrogate pair cannot be stored") from error


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
