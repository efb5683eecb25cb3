"""`flotilla parked`: what could not be folded is told, tried again and given up, while all runs."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.testing import Fleet

Up = Callable[..., Fleet]
Run = Callable[..., subprocess.CompletedProcess[str]]

KEY = "t/tiny/one"


@pytest.fixture
def poisoned(up: Up) -> Fleet:
    """A fleet whose projection `said` has parked the offsets 3, 4 and 5, all of one key."""
    services = {"keeps": "tiny_services:tells", "folds": "tiny_services:folds_poison"}
    fleet = up("keeps", "relays", "folds", **services)
    fleet.runtime()
    return fleet


def told(result: subprocess.CompletedProcess[str], code: ExitCode = ExitCode.OK) -> dict[str, Any]:
    assert result.returncode == code, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["format"] == 1
    return found


def parked(run: Run, *more: object) -> list[int]:
    return [row["offset"] for row in told(run("parked", "list", "--json", *more))["events"]]


def refusal(result: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    [line] = result.stderr.splitlines()
    return result.returncode, line


@pytest.mark.usefixtures("poisoned")
def test_what_is_parked_is_listed_and_shown(run: Run) -> None:
    found = told(run("parked", "list", "--json"))
    assert [(row["offset"], row["key"], row["tries"]) for row in found["events"]] == [
        (3, KEY, 1),
        (4, KEY, 0),
        (5, KEY, 0),
    ]
    assert found["events"][0]["error"] == "ValueError: cannot fold this"
    assert found["more"] is False
    assert parked(run, "--projection", "said", "--key", KEY) == [3, 4, 5]
    assert parked(run, "--projection", "other") == parked(run, "--key", "t/tiny/long") == []
    assert told(run("parked", "list", "--limit", 2, "--json"))["more"] is True

    lines = [" ".join(line.split()) for line in run("parked", "list").stdout.splitlines()]
    assert any(line.startswith(f"said 3 {KEY} tiny.moved.v1 1 ") for line in lines)
    assert any(line.startswith("said 4 ") and line.endswith(" behind") for line in lines)

    detail = told(run("parked", "show", "said", 3, "--json"))
    assert detail["data"] == {"by": -2, "value": 3}
    assert '{"by": -2, "value": 3}' in run("parked", "show", "said", 3).stdout
    assert refusal(run("parked", "show", "said", 2)) == (
        ExitCode.NOT_FOUND,
        "flotilla: nothing at offset 2 is parked for projection 'said': see `flotilla parked list`",
    )


@pytest.mark.usefixtures("poisoned")
def test_status_alarms_and_why_late_says_so(run: Run) -> None:
    status = told(run("status", "--json", "--lag-max-s", 3600), ExitCode.UNHEALTHY)
    [row] = status["projections"]
    assert (row["parked_events"], row["parked_keys"]) == (3, 1)
    assert row["parked_oldest_s"] >= 0
    assert any("has parked 3 event(s) of 1 key(s)" in problem for problem in status["problems"])

    verdict = told(run("why-late", "said", "--json"), ExitCode.UNHEALTHY)
    assert verdict["late"]
    assert [reason["code"] for reason in verdict["reasons"]][-1] == "parked"
    assert "flotilla parked retry said" in verdict["reasons"][-1]["do"]


@pytest.mark.usefixtures("poisoned")
def test_a_retry_frees_a_key_once_it_can_be_folded(run: Run, tmp_path: Path) -> None:
    [still] = told(run("parked", "retry", "said", "--json"), ExitCode.UNHEALTHY)["keys"]
    assert (still["key"], still["folded"]) == (KEY, 0)
    assert "offset 3: ValueError: cannot fold this" in still["error"]
    assert told(run("parked", "show", "said", 3, "--json"))["tries"] == 2

    (tmp_path / "cured").touch()
    freed = told(run("parked", "retry", "said", "--key", KEY, "--json"))["keys"]
    assert [(key["folded"], key["error"]) for key in freed] == [(3, None)]
    assert parked(run) == []
    assert "nothing is parked" in run("parked", "list").stdout
    code, line = refusal(run("parked", "retry", "said"))
    assert code == ExitCode.NOT_FOUND
    assert "nothing is parked for projection 'said'" in line


@pytest.mark.usefixtures("poisoned")
def test_discarding_names_what_is_lost_and_wants_a_yes(run: Run) -> None:
    code, line = refusal(run("parked", "discard", "said"))
    assert code == ExitCode.USAGE
    assert "either --key or --offset" in line
    for what in (("--offset", 3), ("--key", KEY)):
        result = run("parked", "discard", "said", *what)
        assert result.returncode == ExitCode.USAGE
        assert "nothing is discarded: --yes would give up" in result.stderr
    assert parked(run) == [3, 4, 5]

    done = run("parked", "discard", "said", "--offset", 3, "--yes")
    assert done.returncode == ExitCode.OK
    assert "given up: 1 event(s) of the log that 'said' has not folded" in done.stdout
    assert parked(run) == [4, 5]
    assert told(run("parked", "retry", "said", "--json"))["keys"][0]["folded"] == 2
    assert refusal(run("parked", "discard", "said", "--key", KEY, "--yes"))[0] == ExitCode.NOT_FOUND


def test_on_postgres(up: Up, run: Run, open_folder: Path, tmp_path: Path) -> None:
    services = {"keeps": "tiny_services:tells", "folds": "tiny_services:folds_poison"}
    data = ("--data", open_folder / "data")
    up("keeps", "relays", "folds", engine="postgres", arguments=data, **services).runtime()
    assert parked(run, *data) == [3, 4, 5]
    assert told(run("parked", "discard", "said", "--offset", 5, "--yes", "--json", *data))
    (tmp_path / "cured").touch()
    assert told(run("parked", "retry", "said", "--json", *data))["keys"][0]["folded"] == 2


def test_nobody_runs_the_projection(up: Up, run: Run) -> None:
    up("keeps", "folds", folds="tiny_services:folds_two").runtime()
    assert refusal(run("parked", "retry", "said"))[0] == ExitCode.NOT_FOUND
    assert refusal(run("parked", "list", "--data", "nowhere"))[0] == ExitCode.NOT_RUNNING
