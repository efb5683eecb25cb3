"""The restore drill: what docs/runbooks/restore.md tells an operator to do, done, on every topology.

The commands are the document's own: every ```sh block has a name, and is run by it.
"""

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nats
import pytest
from fleet import Fleet, count, read, settled

ROOT = Path(__file__).parents[1]
RUNBOOK = (ROOT / "docs/runbooks/restore.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"(?ms)^```sh (\S+)\n(.*?)^```$", RUNBOOK))
COUNTERS = 5
PROJECTIONS = {"counters", "tenant-totals", "activity"}
BLOCK_TIMEOUT_S = 120

Message = tuple[int, str, str]
"""A message of the stream: its sequence, the id of the event, and its stream and version."""


def committed(status: dict[str, Any]) -> int:
    """Return how many events the log of counters has."""
    [log] = [log for log in status["logs"] if log["log"] == "counter"]
    return int(log["committed"])


class Drill:
    """A fleet that is backed up and restored by the book."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.engine = "postgres" if "postgres" in fleet.topology else "libsql"
        self.backup = fleet.data.with_name("backup")
        self.sent = 0

    async def run(self, block: str) -> str:
        """Run one block as an operator would, and return what it printed."""
        env = {"DATA": str(self.fleet.data), "BACKUP": str(self.backup)}
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-euo", "pipefail", "-c", BLOCKS["setup"] + BLOCKS[block]],
            capture_output=True,
            check=False,
            cwd=ROOT,
            env=os.environ | env,
            text=True,
            timeout=BLOCK_TIMEOUT_S,
        )
        assert done.returncode == 0, f"{block}: {done.stdout}{done.stderr}\n{self.fleet.tail()}"
        return done.stdout

    async def send(self, commands: int) -> None:
        async with self.fleet.client() as client:
            for _ in range(commands):
                self.sent += 1
                answer = await count(client, f"c{self.sent % COUNTERS}", key=f"k{self.sent}")
                assert answer.status_code == 200, answer.text

    async def messages(self) -> list[Message]:
        """Return what the stream has, once nothing waits and no view is behind."""
        await settled(self.fleet)
        connection = await nats.connect(self.fleet.runtime["nats_url"])
        try:
            js = connection.jetstream()
            last = (await js.stream_info("EVT_COUNTER")).state.last_seq
            found = [await js.get_msg("EVT_COUNTER", n) for n in range(1, last + 1)]
        finally:
            await connection.close()
        return [
            (m.seq or 0, (m.headers or {})["ce-id"], "{ce-stream}@{ce-streamversion}".format(**h))
            for m in found
            for h in [m.headers or {}]
        ]

    async def values(self) -> dict[str, tuple[int, int]]:
        """Return value and version of every counter, as they are answered."""
        found = {}
        async with self.fleet.client() as client:
            for n in range(COUNTERS):
                counter = (await read(client, f"c{n}")).json()
                found[f"c{n}"] = counter["value"], counter["version"]
        return found

    async def is_exact(self) -> list[Message]:
        """Assert that stream and views are what the ledger says; return the stream."""
        messages = await self.messages()
        status = await self.fleet.status()
        assert (status["healthy"], status["problems"]) == (True, [])
        views = [p for p in status["projections"] if p["log"] == "counter"]
        assert committed(status) == len(messages)
        assert {p["projection"] for p in views} == PROJECTIONS | {"workflow-arrivals"}
        assert {p["checkpoint"] for p in views} == {len(messages)}
        versions: dict[str, int] = {}
        for number, (sequence, _, event) in enumerate(messages, start=1):
            stream, version = event.split("@")
            assert (number, versions.get(stream, 0) + 1) == (sequence, int(version))
            versions[stream] = int(version)
        assert 3 == (await self.run("check")).count("the live view is what the log says")
        return messages


@pytest.fixture
def drill(own_fleet: Fleet) -> Drill:
    return Drill(own_fleet)


def move_broker(data: Path, aside: Path) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    (data / "nats").rename(aside)


@pytest.mark.parametrize("broker", ["equal", "behind", "empty"])
async def test_a_store_in_a_new_place_and_a_broker_that_knows_no_more(
    drill: Drill, broker: str
) -> None:
    fleet, aside = drill.fleet, drill.fleet.data.with_name("nats-of-then")
    await fleet.start()
    await drill.send(8)
    if broker == "behind":
        await drill.messages()
        await fleet.stop()
        shutil.copytree(fleet.data / "nats", aside)
        await fleet.start()
    await drill.send(12)
    before, values = await drill.messages(), await drill.values()
    await drill.run(f"back-up-{drill.engine}")
    await fleet.stop()
    if broker != "equal":
        move_broker(fleet.data, fleet.data.with_name("nats-of-now"))
    if broker == "behind":
        aside.rename(fleet.data / "nats")

    await drill.run(f"restore-{drill.engine}")
    await fleet.start()

    assert before == await drill.messages(), "the same events at the same sequences"
    assert values == await drill.values()
    await drill.send(10)
    assert before == (await drill.is_exact())[: len(before)]
    async with fleet.client() as client:
        again = await count(client, "c1", key="k1")
    assert "true" == again.headers["idempotency-replayed"], "replies came back, too"


@pytest.mark.parametrize("views", ["restored", "survived"])
async def test_a_store_that_lost_what_the_broker_still_has(drill: Drill, views: str) -> None:
    fleet = drill.fleet
    await fleet.start()
    await drill.send(10)
    kept = await drill.messages()
    await drill.run(f"back-up-{drill.engine}")
    await drill.send(15)
    lost = (await drill.messages())[len(kept) :]
    wrong = await drill.values()
    await fleet.stop()
    one = "-one" if views == "survived" else ""
    await drill.run(f"restore{one}-{drill.engine}")

    await fleet.start(unless="of the stream is not in the ledger")

    await drill.send(40)  # what they append has the offsets of what was lost, as soon as it has any
    status = await fleet.status()
    assert [len(kept)] == [log["offset"] for log in status["logs"] if log["log"] == "counter"], (
        "it never guesses"
    )
    if views == "survived":
        for projection in PROJECTIONS:
            assert any(f"flotilla rebuild {projection}`" in text for text in status["problems"])
        assert wrong == await drill.values(), "what it knows it still answers"
    await drill.run("rebuild")
    await drill.run("delete-stream")
    await fleet.stop()
    await fleet.start()

    await drill.messages()
    await drill.send(5)
    messages = await drill.is_exact()
    assert kept == messages[: len(kept)]
    assert len(messages) > len(kept) + len(lost)
    assert not {m[1] for m in lost} & {m[1] for m in messages}


def test_every_block_of_the_runbook_is_run() -> None:
    engines = {
        f"{name}-{engine}"
        for name in ("back-up", "restore", "restore-one")
        for engine in ("postgres", "libsql")
    }
    assert engines | {"setup", "check", "rebuild", "delete-stream"} == set(BLOCKS)
    assert len(BLOCKS) == RUNBOOK.count("\n```sh "), "each has a name of its own"
