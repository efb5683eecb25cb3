"""What was stored once is read for ever: one stored form of every version of every event type.

`golden/<type>.json` has a payload as it was stored. A file is never changed or deleted; a new event
type, or a new version of one, brings a new file.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flotilla import ContractCodec, Corrupt, RecordedEvent, StreamId, Version
from flotilla.codec import UnknownEventType
from flotilla_contracts.catalog import EVENTS as CATALOG
from flotilla_contracts.compatibility import released
from flotilla_contracts.counter import EVENTS, SERVICE
from svc_counter.domain.counter import Counter, Event, evolve

GOLDEN = Path(__file__).parent / "golden"
FILES = {file.name.removesuffix(".json"): file for file in sorted(GOLDEN.glob("*.json"))}
CODEC: ContractCodec[Event] = ContractCodec(EVENTS)

BEFORE = Counter(is_open=True, value=5)
AFTER = {
    "counter.opened.v1": BEFORE,
    "counter.incremented.v1": Counter(is_open=True, value=1_000_000_005),
    "counter.decremented.v1": Counter(is_open=True, value=-7),
    "counter.reset.v1": Counter(is_open=True, value=0),
}
"""What each stored event makes of a counter that stands at `BEFORE`."""


def stored(kind: str, payload: str | None = None) -> RecordedEvent:
    text = payload if payload is not None else FILES[kind].read_text().removesuffix("\n")
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return RecordedEvent(StreamId("acme/counter/c"), Version(1), "id", kind, text, {}, at)


def test_every_event_type_of_the_catalog_has_a_stored_form() -> None:
    assert {event.type for event in CATALOG[SERVICE]} <= FILES.keys()
    assert set(EVENTS) == set(CATALOG[SERVICE])


def test_every_event_type_that_was_ever_released_has_a_stored_form() -> None:
    """Taken out of the catalog or not: somebody's store has it."""
    released_types = {
        name.removeprefix("events/").removesuffix(".json")
        for documents in released().values()
        for name in documents
        if name.startswith(f"events/{SERVICE}.")
    }

    assert released_types
    assert released_types <= FILES.keys()


def test_every_stored_form_says_what_it_leads_to() -> None:
    assert FILES.keys() == AFTER.keys()


@pytest.mark.parametrize("kind", FILES)
def test_what_was_stored_is_read_and_evolves(kind: str) -> None:
    event = CODEC.decode(stored(kind))

    assert AFTER[kind] == evolve(BEFORE, event)


@pytest.mark.parametrize("kind", FILES)
def test_nothing_that_was_stored_is_lost_by_reading_it(kind: str) -> None:
    """Also not by renaming a field and giving the new one a default. New fields may join."""
    kept = json.loads(CODEC.encode(CODEC.decode(stored(kind)))[1])

    assert json.loads(stored(kind).payload).items() <= kept.items()


@pytest.mark.parametrize("kind", FILES)
def test_what_later_writers_add_is_ignored(kind: str) -> None:
    later = json.dumps(json.loads(stored(kind).payload) | {"added_later": {"x": [1]}})

    assert CODEC.decode(stored(kind)) == CODEC.decode(stored(kind, later))


@pytest.mark.parametrize("kind", FILES)
def test_a_stored_form_that_lost_a_field_is_corrupt(kind: str) -> None:
    whole = json.loads(stored(kind).payload)
    for field in whole:
        damaged = json.dumps({name: value for name, value in whole.items() if name != field})
        with pytest.raises(Corrupt, match=field):
            CODEC.decode(stored(kind, damaged))


def test_a_type_that_nobody_knows_is_of_a_newer_version() -> None:
    with pytest.raises(UnknownEventType, match=r"counter\.exploded\.v1"):
        CODEC.decode(stored("counter.exploded.v1", "{}"))
