"""`flotilla rebuild` and `flotilla replay`, beside a fleet that projects meanwhile."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from flotilla.clock import SystemClock
from flotilla.outbox import LogEvent
from flotilla.partition import Marks
from flotilla.projection import ViewSession
from flotilla.stores import open_shadows
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.runtime import Runtime
from flotilla_platform.testing import Fleet, eventually

Up = Callable[..., Fleet]
Run = Callable[..., subprocess.CompletedProcess[str]]
Begin = Callable[..., subprocess.Popen[str]]
STREAM = "t/tiny/one"


@pytest.fixture
def fleet(up: Up) -> Fleet:
    """A log of five events, and two projections that follow it."""
    return up("keeps", "relays", "folds", folds="tiny_services:projects")


class Seen:
    """The name of `tiny_services.Seen`, to open its places."""

    name = "seen"
    log = "keeps"
    staleness_budget_s = 5.0
    tables: tuple[str, ...] = ()

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        raise AssertionError(f"nobody folds here: {batch} into {view}")


def told(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the last document of `--json`."""
    assert (result.returncode, result.stderr) == (ExitCode.OK, "")
    document: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return document


def refusal(result: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    return result.returncode, line


def caught_up(run: Run, *arguments: object) -> None:
    """Wait until both projections have folded all five events."""

    def probe() -> bool | None:
        rows = told(run("status", "--json", *arguments))["projections"]
        return [row["checkpoint"] for row in rows] == [5, 5] or None

    eventually(probe, "the projections catch up")


async def seen(runtime: Runtime, sql: str | None = None) -> list[tuple[Any, ...]]:
    """Return the view `seen`, after changing it behind everybody's back if `sql` says so."""
    async with open_shadows(
        runtime.stores["folds"], service="folds", projection=Seen(), clock=SystemClock()
    ) as places:

        async def change(view: ViewSession, _: Marks) -> None:
            if sql is not None:
                await view.execute_many(sql, [()])

        await places.amend(change)
        return [tuple(row) for row in await places.live.fetch_across("select stream, n from seen")]


@pytest.mark.parametrize("engine", ["libsql", "postgres"])
def test_a_tampered_view_is_found_mended_and_brought_back(
    up: Up, run: Run, engine: str, open_folder: Path
) -> None:
    where = ("--data", open_folder / "data")
    services = {"engine": engine, "folds": "tiny_services:projects"}
    runtime = up("keeps", "relays", "folds", arguments=where, **services).runtime()
    caught_up(run, *where)
    assert asyncio.run(seen(runtime, "update seen set n = 77")) == [(STREAM, 77)]

    checked = run("rebuild", "seen", "--check", *where)
    assert (checked.returncode, checked.stderr) == (ExitCode.DIFFERENT, "")
    lines = [" ".join(line.split()) for line in checked.stdout.splitlines()]
    assert lines[0].startswith("seen: 5 events folded in ")
    assert lines[1:3] == [
        ("the live view is not what the log says, at offset 5: seen 1 rows live, 1 in the shadow"),
        "1 rows differ",
    ]
    assert f'seen ["{STREAM}"] {{"n": 77}} {{"n": 5}}' in lines
    assert asyncio.run(seen(runtime)) == [(STREAM, 77)]

    rebuilt = told(run("rebuild", "seen", "--json", *where))
    assert (rebuilt["kind"], rebuilt["same"], rebuilt["different"]) == ("rebuilt", False, 1)
    assert rebuilt["differences"] == [
        {
            "table": "seen",
            "key": [STREAM],
            "live": {"stream": STREAM, "n": 77},
            "shadow": {"stream": STREAM, "n": 5},
        }
    ]
    assert (rebuilt["resumed_at"], rebuilt["swapped"]["offset"]) == (5, 5)
    assert asyncio.run(seen(runtime)) == [(STREAM, 5)]
    assert told(run("rebuild", "seen", "--check", "--json", *where))["same"]

    back = run("rebuild", "seen", "--rollback", *where)
    assert (back.returncode, back.stderr) == (ExitCode.OK, "")
    assert back.stdout.startswith("seen: the old view is live again, at offset 5")
    assert asyncio.run(seen(runtime)) == [(STREAM, 77)]
    assert told(run("rebuild", "seen", "--forget-old", "--json", *where)) == {
        "kind": "forgotten",
        "projection": "seen",
    }
    for option in ("--rollback", "--forget-old", "--cancel"):
        code, line = refusal(run("rebuild", "seen", option, *where))
        assert (code, line[:19]) == (ExitCode.NOT_FOUND, "flotilla: seen has ")


def test_a_rebuild_that_is_interrupted_says_how_to_go_on(
    fleet: Fleet, run: Run, begin: Begin
) -> None:
    fleet.runtime()
    caught_up(run)
    process = begin("rebuild", "dawdles", "--json")
    assert process.stdout is not None
    assert '"phase":"building"' in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)

    assert process.returncode == ExitCode.INTERRUPTED
    assert complaint.startswith("flotilla: stopped; nothing was swapped.")
    assert "`flotilla rebuild dawdles` goes on from here" in complaint
    cancelled = run("rebuild", "dawdles", "--cancel")
    assert (cancelled.returncode, cancelled.stderr) == (ExitCode.OK, "")
    assert told(run("rebuild", "said", "--json"))["same"], "of another projection nothing is lost"


def test_an_event_that_cannot_be_folded_is_named(fleet: Fleet, run: Run) -> None:
    fleet.runtime()
    caught_up(run)
    code, line = refusal(run("rebuild", "sulks"))
    assert code == ExitCode.EVENT_REFUSED
    assert line == (
        "flotilla: sulks cannot fold offset 3, tiny.said.v1 of t/tiny/one@3:"
        " ArithmeticError: not this one"
    )


def test_a_part_of_the_log_is_replayed(fleet: Fleet, run: Run) -> None:
    runtime = fleet.runtime()
    caught_up(run)
    for part, events in (
        (("--from-offset", 4), 2),
        (("--from-time", "2001-01-01T00:00:00Z"), 5),
        (("--tenant", "t"), 5),
        (("--stream", STREAM), 5),
    ):
        assert asyncio.run(seen(runtime, "update seen set n = 1")) == [(STREAM, 1)]
        assert told(run("replay", "seen", *part, "--json")) == {
            "kind": "replayed",
            "projection": "seen",
            "events": events,
            "offset": 5,
        }
        assert asyncio.run(seen(runtime)) == [(STREAM, 5)]
    assert run("replay", "seen", "--tenant", "t").stdout == (
        "seen: 5 events folded again; the view is at offset 5, as it was\n"
    )


REFUSED = [
    (["rebuild", "seem"], ExitCode.USAGE, "did you mean 'seen'?"),
    (["replay", "x", "--tenant", "t"], ExitCode.USAGE, "write one of: dawdles, said, seen"),
    (["rebuild", "said", "--check", "--rollback"], ExitCode.USAGE, "ask for one of them"),
    (["rebuild", "said", "--cancel", "--discard"], ExitCode.USAGE, "leave it out"),
    (["rebuild", "said", "--source", "moon"], ExitCode.USAGE, "rebuild --help"),
    (["rebuild", "sulks", "--source", "stream"], ExitCode.SERVER_FAILED, "no stream here"),
    (["replay", "said"], ExitCode.USAGE, "write one of --from-offset, --from-time"),
    (["replay", "seen", "--tenant", "t", "--from-offset", "1"], ExitCode.USAGE, "write one of"),
    (["replay", "seen", "--from-time", "2026-05-17T12:00:00"], ExitCode.USAGE, "no time zone"),
    (["replay", "seen", "--stream", "x"], ExitCode.USAGE, "<tenant>/<aggregate>/<key>"),
    (["replay", "seen", "--from-offset", "6"], ExitCode.REFUSED, "replay from 1 to 5"),
    (["replay", "said", "--from-offset", "1"], ExitCode.REFUSED, "`flotilla rebuild said`"),
    (["replay", "said", "--tenant", "t"], ExitCode.REFUSED, "`flotilla rebuild said`"),
]
"""What is asked, how it ends, and the cure that is named."""


def test_what_cannot_be_done_is_refused_with_its_cure(fleet: Fleet, run: Run) -> None:
    fleet.runtime()
    caught_up(run)
    for arguments, code, cure in REFUSED:
        refused, line = refusal(run(*arguments))
        assert (refused, cure in line) == (code, True), (arguments, line)


def test_nothing_runs(run: Run) -> None:
    for command in (("rebuild", "seen"), ("replay", "seen", "--tenant", "t")):
        assert refusal(run(*command, "--data", "nowhere"))[0] == ExitCode.NOT_RUNNING


def test_the_help_teaches(run: Run) -> None:
    for command, words in (("rebuild", "never an empty or a partial view"), ("replay", "once.")):
        shown = run(command, "--help")
        assert shown.returncode == ExitCode.OK
        assert words in " ".join(shown.stdout.split())
        assert "Examples" in shown.stdout
