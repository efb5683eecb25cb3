"""The wire shapes hold together, and what is generated from them is fresh."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from flotilla_contracts import PROBLEMS, Envelope, ErrorCode, Problem
from flotilla_contracts.catalog import ASKS, COMMANDS, EVENTS, QUERIES
from flotilla_contracts.counter import CounterIncremented, IncrementCounter
from flotilla_contracts.generate import documents, stale
from flotilla_contracts.message import Event, Identifier, Personal
from flotilla_contracts.wire import event_stream, event_subject, subject_token

identifier: TypeAdapter[str] = TypeAdapter(Identifier)
SEALED = f"sealed:1:{'0a' * 16}:{'A' * 38}-_"


class PersonNamed(Event):
    type = "person.named.v1"
    name: Personal
    nickname: Personal | None = None


def an_envelope(**changes: object) -> Envelope:
    fields: dict[str, object] = {
        "id": "0198c5a2-7a5e-7cc3-8a51-3f1d2c4b5a69",
        "source": "urn:flotilla:service:counter",
        "type": "counter.incremented.v1",
        "time": datetime(2026, 5, 17, 12, 0, 0, 123456, tzinfo=UTC),
        "tenant": "acme",
        "stream": "acme/counter/visits",
        "streamversion": 7,
        "schemaversion": 1,
        "correlationid": "c-1",
    }
    return Envelope.model_validate(fields | changes)


def test_generated_files_are_fresh() -> None:
    assert [] == stale(), "run: make generate"


def test_a_stale_file_is_found(tmp_path: Path) -> None:
    for name, text in documents().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [] == stale(tmp_path)

    (tmp_path / "schemas/envelope.json").write_text("{}\n")
    (tmp_path / "schemas/events/gone.v1.json").write_text("{}\n")

    assert 2 == len(stale(tmp_path))


def test_every_schema_is_one() -> None:
    for name, text in documents().items():
        if name.startswith("schemas/"):
            Draft202012Validator.check_schema(json.loads(text))


def test_names_on_the_wire_are_unique_and_well_formed() -> None:
    events = [event.type for group in EVENTS.values() for event in group]
    subjects = [message.subject for message in ASKS]

    assert len(set(events)) == len(events)
    assert len(set(subjects)) == len(subjects)
    for kind in events:
        aggregate, event, version = kind.split(".")
        assert aggregate.isidentifier() and event.isidentifier() and version[0] == "v"
    for command in COMMANDS:
        assert command.subject.startswith("cmd.")
    for query in QUERIES:
        assert query.subject.startswith("qry.")


def test_every_error_code_has_its_status() -> None:
    assert set(ErrorCode) == set(PROBLEMS)
    for code in ErrorCode:
        problem = Problem.of(code)
        assert 400 <= problem.status < 600
        assert problem.type == f"urn:flotilla:problem:{code}"


def test_an_event_message_is_a_valid_cloud_event() -> None:
    event = CounterIncremented(counter_id="visits", by=2, value=9)
    message = HTTPMessage(an_envelope().to_headers(), event.model_dump_json().encode())

    read = from_http_event(message, JSONFormat())

    assert ("counter.incremented.v1", "acme", "acme/counter/visits") == (
        read.get_type(),
        read.get_extension("tenant"),
        read.get_subject(),
    )
    assert {"counter_id": "visits", "by": 2, "value": 9} == read.get_data()


@given(st.text(min_size=1), st.text(), st.none() | st.text(min_size=1))
def test_headers_carry_any_envelope_and_nothing_else(
    stream: str, correlation: str, causation: str | None
) -> None:
    try:
        f"{stream}{correlation}{causation}".encode()
    except UnicodeEncodeError:
        return
    envelope = an_envelope(stream=stream, correlationid=correlation, causationid=causation)
    headers = envelope.to_headers()

    assert envelope == Envelope.from_headers(headers)
    for value in headers.values():
        assert value.isascii() and value.isprintable()


@pytest.mark.parametrize("broken", [{"ce-specversion": "0.3"}, {"ce-streamversion": "x"}])
def test_what_is_no_event_is_refused(broken: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        Envelope.from_headers(an_envelope().to_headers() | broken)


@given(st.text(min_size=1))
def test_a_subject_token_injects_nothing(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    token = subject_token(text)

    assert token and token.isascii()
    assert not set(token) & set(". *>\t\r\n")


def test_subjects_and_streams_are_named_by_service_and_tenant() -> None:
    assert "evt.counter.a%2Eb.counter.opened" == event_subject(
        "counter", "a.b", "counter.opened.v1"
    )
    assert "EVT_OUTBOX_RELAY" == event_stream("outbox-relay")


@pytest.mark.parametrize("good", ["a", "A-b_c.9", ".hidden", "x" * 64, "-", "0"])
def test_identifiers_are_readable_names(good: str) -> None:
    assert good == identifier.validate_python(good)


@pytest.mark.parametrize(
    "bad",
    ["", ".", "..", "...", "a/b", "a b", "*", ">", "ü", "a\n", "\na", "x" * 65, "a\x00", 5, None],
)
def test_what_urls_subjects_or_files_would_bend_is_no_identifier(bad: object) -> None:
    with pytest.raises(ValidationError):
        identifier.validate_python(bad)


def test_a_schema_says_which_fields_are_personal() -> None:
    fields = PersonNamed.model_json_schema()["properties"]

    assert fields["name"]["x-personal"] is True
    assert fields["nickname"]["anyOf"][0]["x-personal"] is True


@pytest.mark.parametrize("bad", ["Ada", "", "sealed:1:", SEALED + " ", SEALED + "\n", 5])
def test_plain_text_is_no_personal_field_of_an_event(bad: object) -> None:
    assert SEALED == PersonNamed(name=SEALED).name
    with pytest.raises(ValidationError):
        PersonNamed.model_validate({"name": bad})


@pytest.mark.parametrize("by", ["5", 5.0, 0, -1, 10**9 + 1, True, None])
def test_a_step_is_a_positive_integer_up_to_a_billion(by: object) -> None:
    with pytest.raises(ValidationError):
        IncrementCounter.model_validate_json(json.dumps({"counter_id": "c", "by": by}))


def test_a_command_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="extra"):
        IncrementCounter.model_validate_json('{"counter_id": "c", "by": 1, "bye": 2}')


def test_an_event_ignores_what_a_newer_version_added() -> None:
    text = '{"counter_id": "c", "by": 1, "value": 2, "reason": "new"}'

    assert CounterIncremented(counter_id="c", by=1, value=2) == (
        CounterIncremented.model_validate_json(text)
    )
