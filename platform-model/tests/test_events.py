"""`flotilla events`: one stream as it was stored, as of any moment, and what changed in between."""

import json
import random
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flotilla.store import EMPTY, Append, NewEvent, RecordedEvent, Unit, Version, stream_id
from flotilla.stores.memory import MemoryStore
from flotilla_platform.asking import Between, Wanted, understand
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.history import EventRow, History, changes_of, read_history, row_of
from flotilla_platform.runtime import Runtime
from flotilla_platform.showing import plain, shortened
from flotilla_platform.testing import Fleet

Up = Callable[..., Fleet]
Run = Callable[..., subprocess.CompletedProcess[str]]

STREAM = stream_id("t", "tiny", "one")
START = datetime(2026, 5, 17, 12, tzinfo=UTC)


def told(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert (result.returncode, result.stderr) == (ExitCode.OK, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def refusal(result: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    return result.returncode, line


def words(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert (result.returncode, result.stderr) == (ExitCode.OK, "")
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def row(version: int, **data: object) -> EventRow:
    return EventRow(
        stream=STREAM,
        version=version,
        recorded_at=START + timedelta(seconds=version),
        type="tiny.moved.v1",
        event_id=f"e{version}",
        correlation=None,
        causation=None,
        data=data,
    )


# A real fleet.


@pytest.fixture
def ask(run: Run, telling: Fleet) -> Run:
    """Run `flotilla` about the fleet that all of them share: asking changes nothing."""
    return partial(run, FLOTILLA_DATA=telling.runtime().data)


def test_a_stream_is_told_as_it_was_stored(ask: Run) -> None:
    events = told(ask("events", STREAM, "--json"))
    assert [(e["kind"], e["version"]) for e in events] == [("event", n) for n in range(1, 6)]
    assert events[1]["data"] == {"by": 5, "value": 5}
    assert (events[1]["correlation"], events[1]["causation"]) == ("talk-1", "c")
    assert events[0]["correlation"] is None
    assert events[3]["type"] == "never.heard.of.v9"
    assert told(ask("events", STREAM, "--service", "keeps", "--json")) == events
    assert told(ask("events", STREAM, "--after", 1, "--limit", 2, "--json")) == events[1:3]
    assert told(ask("events", STREAM, "--after", 5, "--json")) == []

    table = ask("events", STREAM, "--limit", 4)
    assert "\x1b" not in table.stdout
    lines = words(table)
    assert any(
        line.startswith("2 ") and line.endswith('tiny.moved.v1 {"by": 5, "value": 5} talk-1')
        for line in lines
    )
    assert any('"[red]\\u001b[31m"' in line for line in lines)
    assert lines[-1] == "1 more: go on with --after 4"


def test_time_travel_ends_with_where_the_stream_stood(ask: Run) -> None:
    events = told(ask("events", STREAM, "--json"))
    third = events[2]["recorded_at"]

    by_version = told(ask("events", STREAM, "--at-version", 3, "--json"))
    assert by_version[:-1] == events[:3]
    assert by_version[-1] == {
        "kind": "standing",
        "stream": STREAM,
        "service": "keeps",
        "version": 3,
        "at": third,
        "type": "tiny.moved.v1",
        "head": 5,
    }
    assert told(ask("events", STREAM, "--at-time", third, "--json")) == by_version
    assert words(ask("events", STREAM, "--at-time", third))[-1].startswith(
        "t/tiny/one stood at version 3: its last event then was tiny.moved.v1, recorded at "
    )
    before = words(ask("events", STREAM, "--at-time", "2001-01-01T00:00:00Z"))
    assert before == ["no events", "t/tiny/one had no events yet; it stands at 5 now"]
    future = told(ask("events", STREAM, "--at-time", "2999-01-01T00:00:00+01:00", "--json"))
    assert [e["version"] for e in future] == [1, 2, 3, 4, 5, 5]


def test_what_happened_between_two_versions(ask: Run) -> None:
    *events, changes = told(ask("events", STREAM, "--diff", "2..5", "--json"))
    assert [e["version"] for e in events] == [2, 3, 4, 5]
    assert (changes["kind"], changes["from_version"], changes["to_version"]) == ("changes", 2, 5)
    assert [(f["field"], f["first"], f["last"], f["events"]) for f in changes["fields"]] == [
        ("by", 5, 9, 3),
        ("value", 5, 12, 3),
    ]
    lines = words(ask("events", STREAM, "--diff", "2..5"))
    assert "what versions 2 to 5 did to fields that several events carry" in lines
    assert "value 3 5 @2 12 @5" in lines
    assert words(ask("events", STREAM, "--diff", "1..1"))[-1].startswith("no field is carried by")


def test_a_stream_of_many_pages(ask: Run) -> None:
    every = told(ask("events", "t/tiny/long", "--limit", 10_000, "--json"))
    assert [e["version"] for e in every] == list(range(1, 2501))
    [_event, standing] = told(
        ask("events", "t/tiny/long", "--at-time", "2999-01-01T00:00:00Z", "-n", 1, "--json")
    )
    assert (standing["version"], standing["head"]) == (2500, 2500)


def test_what_is_not_there_is_not_found(ask: Run) -> None:
    assert refusal(ask("events", "t/tiny/two")) == (
        ExitCode.NOT_FOUND,
        (
            "flotilla: there is no stream 't/tiny/two' (logs asked: keeps): check the tenant, the "
            "aggregate and the key, capitals included"
        ),
    )
    for option, value in (("--at-version", 6), ("--diff", "3..6"), ("--after", 6)):
        code, line = refusal(ask("events", STREAM, option, value))
        assert code == ExitCode.NOT_FOUND
        assert line == (
            f"flotilla: t/tiny/one has no version 6: it stands at 5, so give {option} at most that"
        )
    assert refusal(ask("events", STREAM, "--service", "folds")) == (
        ExitCode.USAGE,
        "flotilla: no service 'folds' publishes a log here: --service is one of keeps",
    )


def test_on_postgres(up: Up, run: Run, open_folder: Path) -> None:
    data = open_folder / "data"
    up(
        "keeps", engine="postgres", keeps="tiny_services:tells", arguments=("--data", data)
    ).runtime()
    events = told(run("events", STREAM, "--data", data, "--json"))
    assert [e["version"] for e in events] == [1, 2, 3, 4, 5]
    third = events[2]["recorded_at"]
    by_time = told(run("events", STREAM, "--data", data, "--at-time", third, "--json"))
    assert by_time[:-1] == events[:3]


async def test_a_store_that_cannot_be_read_hides_no_other_and_is_named_when_it_matters(
    up: Up, tmp_path: Path
) -> None:
    runtime = up("keeps", keeps="tiny_services:tells").runtime()
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"not a database" * 999)
    stores = runtime.stores | {"gone": f"libsql://{damaged}"}
    wider = runtime.model_copy(update={"stores": stores, "logs": ("gone", "keeps")})
    assert len((await read_history(wider, Wanted(STREAM))).events) == 5
    with pytest.raises(Failure, match="the store of 'gone' cannot be read") as failed:
        await read_history(wider, Wanted(stream_id("t", "tiny", "two")))
    assert failed.value.code == ExitCode.SERVER_FAILED


# Without a fleet.


def test_nothing_runs(run: Run) -> None:
    code, line = refusal(run("events", STREAM, "--data", "nowhere"))
    assert code == ExitCode.NOT_RUNNING
    assert "start it with `flotilla up --data nowhere`" in line


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["counter"], "write <tenant>/<aggregate>/<key>"),
        (["a/b/c/d"], "write <tenant>/<aggregate>/<key>"),
        (["a//c"], "write <tenant>/<aggregate>/<key>"),
        (["a/b/c", "--at-time", "yesterday"], "write ISO 8601"),
        (["a/b/c", "--at-time", "2026-05-17T12:00:00"], "says no time zone"),
        (["a/b/c", "--at-time", "0001-01-01T00:00:00+14:00"], ""),
        (["a/b/c", "--at-version", "0"], "(see `flotilla events --help`)"),
        (["a/b/c", "--at-version", "1", "--at-time", "2026-05-17T12:00:00Z"], "ask one of them"),
        (["a/b/c", "--diff", "3"], "as in 3..7"),
        (["a/b/c", "--diff", "7..3"], "as in 3..7"),
        (["a/b/c", "--diff", "0..3"], "as in 3..7"),
        (["a/b/c", "--diff", "1..10001"], "ask for fewer"),
        (["a/b/c", "--diff", "1..2", "--limit", "1"], "leave out --after and --limit"),
        (["a/b/c", "--after", "-1"], "(see `flotilla events --help`)"),
        (["a/b/c", "--limit", "10001"], "(see `flotilla events --help`)"),
        ([], "Missing argument 'STREAM'"),
    ],
)
def test_a_question_that_cannot_be_understood(run: Run, arguments: list[str], cure: str) -> None:
    code, line = refusal(run("events", *arguments))
    assert cure in line
    assert code == (ExitCode.USAGE if cure else ExitCode.NOT_RUNNING)


def test_a_question_is_one_value() -> None:
    assert understand(STREAM, diff="3..7") == Wanted(STREAM, limit=5, moment=Between(3, 7))
    assert understand(STREAM, at_time="2026-05-17T14:00:00+02:00").moment == START
    assert understand(STREAM, after=2, limit=3, at_version=4) == Wanted(
        STREAM, after=Version(2), limit=3, moment=4
    )


def test_a_stream_name_that_is_no_text() -> None:
    with pytest.raises(Failure, match="is no stream"):
        understand("a/b/\udcff")


def test_first_and_last_of_what_several_events_carry() -> None:
    changes = changes_of([row(3, value=1, a="x"), row(4, b=None), row(5, value=9, b=None)])
    assert [
        (f.field, f.first_version, f.first, f.last_version, f.last) for f in changes.fields
    ] == [
        ("value", 3, 1, 5, 9),
        ("b", 4, None, 5, None),
    ]


def test_a_payload_that_is_no_object_has_no_fields() -> None:
    rows = [row(1, a=1).model_copy(update={"data": [1]}), row(2, a=1)]
    assert changes_of(rows).fields == ()


@pytest.mark.parametrize("seed", range(50))
def test_the_diff_of_any_events_is_their_first_and_last_carrier(seed: int) -> None:
    chance = random.Random(seed)
    payloads = [
        {field: chance.randrange(9) for field in "abc" if chance.random() < 0.4}
        for _ in range(chance.randrange(1, 9))
    ]
    changes = changes_of([row(version, **data) for version, data in enumerate(payloads, start=1)])
    expected = {
        field: (carrying[0], carrying[-1], len(carrying))
        for field in "abc"
        if len(carrying := [data[field] for data in payloads if field in data]) > 1
    }
    assert {f.field: (f.first, f.last, f.events) for f in changes.fields} == expected
    assert (changes.from_version, changes.to_version) == (1, len(payloads))


@pytest.mark.parametrize("payload", ["{", "[" * 100_000, "", "NaN", "[1e999]"])
def test_a_payload_that_cannot_be_read_is_shown_as_text(payload: str) -> None:
    event = RecordedEvent(STREAM, Version(1), "e", "tiny.odd.v1", payload, {}, START)
    assert row_of(event).data == payload


def test_nothing_that_was_stored_steers_a_terminal() -> None:
    everything = "".join(map(chr, range(0x110000)))
    assert plain(everything).plain.isprintable()
    assert plain("[red]\x1b\x9b\u202e").plain == r"[red]\x1b\x9b\u202e"
    assert len(shortened("x" * 1000)) == 72


def test_half_a_surrogate_pair_is_told_as_it_was_stored() -> None:
    odd = RecordedEvent(STREAM, Version(1), "e", "tiny.odd.v1", r'"\ud800"', {}, START)
    [line] = History((row_of(odd),)).lines()
    assert line.endswith(r'"data":"\ud800"}')
    assert json.loads(line)["recorded_at"] == "2026-05-17T12:00:00Z"


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 9, 1000, 1001, 2049])
async def test_where_a_stream_stands_is_found_at_any_length(length: int) -> None:
    name = f"length-{length}"
    events = tuple(NewEvent(f"{n}", "tiny.said.v1", "{}", {}) for n in range(length))
    store = MemoryStore.named(f"memory://{name}", service="keeps")
    await store.commit([Unit((Append(STREAM, EMPTY, events),))])
    runtime = Runtime(
        pid=1,
        topology="single",
        data="/data",
        api=None,
        docs=None,
        nats_url="nats://127.0.0.1:4222",
        stores={"keeps": f"memory://{name}"},
        logs=("keeps",),
        views=(),
        started_at=START,
    )
    history = await read_history(runtime, Wanted(STREAM, limit=10_000, moment=length))
    assert history.standing is not None
    assert history.standing.head == length == len(history.events)
