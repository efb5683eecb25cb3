"""A kept history is replayed: state by state it leads where its file says, which never changes."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flotilla import ContractCodec, RecordedEvent, StreamId, Version
from flotilla_contracts.counter import EVENTS
from svc_counter.domain.counter import Counter, Event, evolve

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))
CODEC: ContractCodec[Event] = ContractCodec(EVENTS)


def test_there_are_recorded_histories() -> None:
    assert HISTORIES


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: file.stem)
def test_a_recorded_history_leads_to_the_states_that_it_led_to(file: Path) -> None:
    counter = Counter()
    for number, (kind, payload, state) in enumerate(json.loads(file.read_text()), start=1):
        at = datetime(2026, 1, 1, tzinfo=UTC)
        stream = StreamId("acme/counter/Parts.bin_7-a")
        text = json.dumps(payload, separators=(",", ":"))
        stored = RecordedEvent(stream, Version(number), "id", kind, text, {}, at)
        counter = evolve(counter, CODEC.decode(stored))
        assert asdict(counter) == state, f"{file.name}: version {number}, {kind}"
