"""An event of the library as a row of ours, and back."""

import json
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import StoredEvent
from hypothesis import given
from hypothesis import strategies as st

from flotilla.errors import Corrupt
from flotilla.interop.shape import to_event, to_row, type_parts

ID = UUID("4f1c0000-0000-4000-8000-000000000001")


@pytest.mark.parametrize(
    ("topic", "parts"),
    [
        ("bank.domain:Account.Opened", ("account", "opened")),
        ("bank.domain:make.<locals>.Account.Opened", ("account", "opened")),
        ("bank.domain:AccountOpened", ("domain", "accountopened")),
        ("topic1", ("aggregate", "topic1")),
        ("", ("aggregate", "_")),
        ("a b.c>:Käse*.Ge kauft", ("k_se_", "ge_kauft")),
        ("bank:Account.opened", ("account", "opened")),
    ],
)
def test_a_topic_names_an_aggregate_and_an_event(topic: str, parts: tuple[str, str]) -> None:
    assert type_parts(topic) == parts


@given(st.text(alphabet=st.characters(exclude_characters="\0")))
def test_every_topic_gives_a_type_of_three_parts(topic: str) -> None:
    row = to_row(StoredEvent(ID, 1, topic, b"{}"), "acme")
    aggregate, event, version = row.type.split(".")
    assert aggregate
    assert event
    assert version == "v1"


@pytest.mark.parametrize(
    ("state", "payload"),
    [
        (b'{"owner": "Ann"}', '{"owner": "Ann"}'),
        (b' {"b":1,"b":2,"a":1e400}\n', ' {"b":1,"b":2,"a":1e400}\n'),
        (b"NaN", '{"base64": "TmFO"}'),
        (b'{"a":Infinity}', '{"base64": "eyJhIjpJbmZpbml0eX0="}'),
        (b"\x00\xff", '{"base64": "AP8="}'),
        (b"", '{"base64": ""}'),
        (b'{"base64": "AP8="}', '{"base64": "AP8="}'),
    ],
)
def test_state_that_is_json_stays_as_it_is_and_other_bytes_are_wrapped(
    state: bytes, payload: str
) -> None:
    assert to_row(StoredEvent(ID, 1, "t:A.B", state), "acme").payload == payload


@given(
    st.one_of(
        st.binary(),
        st.recursive(st.none() | st.text() | st.floats(), st.lists).map(
            lambda value: json.dumps(value).encode()
        ),
    ),
    st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.integers(min_value=0),
)
def test_what_is_read_is_what_was_written(state: bytes, topic: str, version: int) -> None:
    for originator in (uuid4(), "a/b:ü %2F"):
        event = StoredEvent(originator, version, topic, state)
        row = to_row(event, "acme")
        json.loads(row.payload)
        read = {"stream": row.stream, "payload": row.payload, "metadata": row.metadata}
        assert to_event(read, uuids=isinstance(originator, UUID)) == event


def test_the_library_s_class_version_is_the_version_of_the_type() -> None:
    row = to_row(StoredEvent(ID, 1, "t:A.B", b'{"class_version":3}'), "acme")
    assert row.type == "a.b.v3"
    row = to_row(StoredEvent(ID, 1, "t:A.B", b'{"class_version":"x"}'), "acme")
    assert row.type == "a.b.v1"


def test_a_row_that_others_wrote_is_refused() -> None:
    with pytest.raises(Corrupt, match="not written by"):
        to_event({"stream": f"acme/a/{ID}", "payload": "{}", "metadata": "{}"}, uuids=True)
