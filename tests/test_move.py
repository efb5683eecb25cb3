"""A fleet that is moved to another store goes on there: `docs/runbooks/move.md`, done to real fleets."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from fleet import FLOTILLA, Fleet, count, exact_copy, settled

from flotilla.clock import uuid7
from flotilla.embedded import run_postgres
from flotilla.outbox import START
from flotilla.projection import Checkpoint, ViewSession
from flotilla.store import EMPTY, Append, NewEvent, Unit, stream_id
from flotilla.stores import open_store, open_views

COUNTERS = 4
PROJECTIONS = ("counters", "tenant-totals", "activity")
TIMEOUT_S = 120

Told = tuple[int, list[str], str]
"""What a command said: its exit status, the lines on stdout, all of stderr."""


async def flotilla(*arguments: object) -> Told:
    process = await asyncio.create_subprocess_exec(
        FLOTILLA,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode().splitlines(), err.decode()


async def move(source: Fleet, target: Fleet) -> dict[str, Any]:
    code, lines, err = await flotilla(
        *("move", "--from-data", source.data, "--topology", target.topology),
        *("--to-data", target.data, "--json"),
    )
    assert (code, err) == (0, "")
    told = [json.loads(line) for line in lines]
    assert {line["kind"] for line in told[:-1]} == {"progress"}
    document: dict[str, Any] = told[-1]
    return document


@asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[Fleet]:
    await fleet.start()
    try:
        yield fleet
    finally:
        assert await fleet.stop() == 0, fleet.tail()


async def observed(fleet: Fleet) -> dict[str, Any]:
    """Return everything that the API says of what happened, and the log, sequence by sequence."""
    status = await settled(fleet)
    found: dict[str, Any] = {"committed": {log["log"]: log["committed"] for log in status["logs"]}}
    pages = ["/v1/counters", "/v1/totals", "/v1/activity"]
    pages += [f"/v1/counters/c{n}/history" for n in range(COUNTERS)]
    async with fleet.client() as client:
        for page in pages:
            answer = await client.get(page)
            assert answer.status_code == 200, answer.text
            found[page] = answer.json()
    connection = await nats.connect(fleet.runtime["nats_url"])
    try:
        js = connection.jetstream()
        last = (await js.stream_info("EVT_COUNTER")).state.last_seq
        messages = [await js.get_msg("EVT_COUNTER", n) for n in range(1, last + 1)]
    finally:
        await connection.close()
    found["log"] = [(m.seq, (m.headers or {})["ce-id"], m.data) for m in messages]
    return found


async def send(fleet: Fleet, first: int, last: int) -> dict[str, bytes]:
    """Send commands under the keys `k<n>`; return each answer to the byte."""
    answers = {}
    async with fleet.client() as client:
        for n in range(first, last):
            answer = await count(client, f"c{n % COUNTERS}", by=n, key=f"k{n}")
            assert answer.status_code == 200, answer.text
            answers[f"k{n}"] = answer.content
    return answers


async def goes_on(fleet: Fleet, before: dict[str, Any], sent: dict[str, bytes]) -> None:
    """Assert that nothing differs, that keys of before are known, and that the log continues."""
    assert before == await observed(fleet)
    assert sent == await send(fleet, 1, 1 + len(sent)), "the stored replies, to the byte"
    assert before == await observed(fleet), "and nothing happened again"
    await send(fleet, 100, 108)
    after = await observed(fleet)
    assert after["log"][: len(before["log"])] == before["log"]
    assert len(after["log"]) == len(before["log"]) + 8
    await exact_copy(fleet)
    for projection in PROJECTIONS:
        code, lines, err = await flotilla("rebuild", projection, "--check", "--data", fleet.data)
        assert (code, err) == (0, ""), lines
        assert "the live view is what the log says" in "".join(lines)


def keeps_its_broker(source: Fleet, target: Fleet) -> None:
    shutil.copytree(source.data / "nats", target.data / "nats")


def has_its_stream_made_again(source: Fleet, target: Fleet) -> None:
    assert (source.data / "nats").exists()
    assert not (target.data / "nats").exists()


KEEPING = {"counter", "projector", "scheduler", "tenant", "workflow"}
WAYS = [
    ("single", "single-postgres", has_its_stream_made_again),
    ("single", "vps", keeps_its_broker),
]


@pytest.mark.parametrize(("here", "there", "broker"), WAYS)
async def test_a_moved_fleet_goes_on_as_if_it_had_been_there_always(
    tmp_path: Path, here: str, there: str, broker: Callable[[Fleet, Fleet], None]
) -> None:
    source, target = Fleet(here, tmp_path), Fleet(there, tmp_path)
    async with running(source):
        sent = await send(source, 1, 20)
        before = await observed(source)

    files = {path: path.read_bytes() for path in source.data.glob("*.db")}
    told = await move(source, target)

    assert files == {path: path.read_bytes() for path in files}, "the source was only read"
    assert {table["service"] for table in told["tables"]} == KEEPING
    assert all(table["source_sha256"] == table["target_sha256"] for table in told["tables"])
    again = await move(source, target)
    assert all(table["already_there"] for table in again["tables"])
    broker(source, target)
    async with running(target):
        await goes_on(target, before, sent)


async def write_history(data: Path, batches: int = 40) -> int:
    """Write a data directory of `single` in which nobody ever ran; return how many events it has."""
    data.mkdir()
    marker = {"format": 1, "topology": "single", "created_at": "2026-01-01T00:00:00Z"}
    (data / "flotilla-data.json").write_text(json.dumps(marker))
    events = 0
    async with open_store(f"libsql://{data}/counter.db", service="counter") as store:
        for batch in range(batches):
            news = [
                tuple(NewEvent(str(uuid7()), "tiny.said", "{}", {}) for _ in range(10))
                for _ in range(50)
            ]
            streams = [stream_id("acme", "tiny", f"{batch}-{n}") for n in range(len(news))]
            await store.commit(
                [Unit((Append(s, EMPTY, new),)) for s, new in zip(streams, news, strict=True)]
            )
            events += sum(map(len, news))
    for service in KEEPING - {"counter", "projector"}:
        async with open_store(f"libsql://{data}/{service}.db", service=service):
            pass
    async with open_views(f"libsql://{data}/projector.db", service="projector") as views:

        async def fold_nothing(_: ViewSession) -> None:
            pass

        await views.advance("seen", "counter", (START, Checkpoint(START)), fold_nothing)
    return events


async def test_a_move_that_was_killed_goes_on_with_what_is_not_there(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    events = await write_history(source)
    arguments = ("move", "--from-data", source, "-t", "single", "--to-data", target, "--json")
    process = await asyncio.create_subprocess_exec(
        FLOTILLA, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    async with asyncio.timeout(TIMEOUT_S):
        first = json.loads(await process.stdout.readline())
        process.kill()
        await process.wait()
    assert 0 < first["rows"] < first["target"], first
    async with open_store(f"libsql://{target}/counter.db", service="counter") as store:
        assert (await store.status()).committed == 0, "a service is there as a whole or not at all"

    code, lines, err = await flotilla(*arguments)

    assert (code, err) == (0, "")
    tables = json.loads(lines[-1])["tables"]
    assert {(t["service"], t["table"]): t["rows"] for t in tables}["counter", "event"] == events
    assert not any(t["already_there"] for t in tables if t["rows"])
    for file in target.glob("projector.db*"):
        file.unlink()
    code, lines, err = await flotilla(*arguments)
    assert (code, err) == (0, "")
    again = {t["service"]: t["already_there"] for t in json.loads(lines[-1])["tables"] if t["rows"]}
    assert again == {"counter": True, "projector": False}


async def test_a_database_is_named_by_its_url_and_there_is_a_way_back(tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    await write_history(source, batches=2)
    async with run_postgres(tmp_path / "server") as server:
        there = await flotilla("move", "--from-data", source, "--to-store", server.dsn, "--json")
        home = await flotilla(
            *("move", "--from-store", server.dsn, "-t", "single", "--to-data", back, "--json")
        )
        async with open_store(server.dsn, service="counter") as store:
            await store.status()
            code, _, err = await flotilla(
                *("move", "--from-store", server.dsn, "-t", "single", "--to-data", back)
            )
    hashes = []
    for told, lines, said in (there, home):
        assert (told, said) == (0, "")
        tables = json.loads(lines[-1])["tables"]
        hashes.append({(t["service"], t["table"]): t["target_sha256"] for t in tables})
    assert hashes[0].items() <= hashes[1].items(), "with tables that the source had not made yet"
    assert (code, "stop the fleet there" in err) == (6, True), err


async def test_a_fleet_that_runs_is_not_moved(tmp_path: Path) -> None:
    source, target = Fleet("single", tmp_path), Fleet("single-postgres", tmp_path)
    arguments = ("move", "--from-data", source.data, "-t", "single-postgres", "--to-data")
    async with running(source):
        await send(source, 1, 3)
        code, _, err = await flotilla(*arguments, target.data)
        assert (code, "is in use by process" in err) == (4, True), err
    assert not target.data.exists()
    async with running(target):
        await send(target, 1, 2)
        code, _, err = await flotilla(*arguments, target.data)
        assert (code, "is in use by process" in err) == (4, True), err
    code, _, err = await flotilla(*arguments, target.data)
    assert (code, "move to a new one" in err) == (15, True), err
