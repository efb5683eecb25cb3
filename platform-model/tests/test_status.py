"""`flotilla status`: what it reads from the tables, how it says it, and what its status means."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flotilla.clock import SystemClock
from flotilla.outbox import Offset
from flotilla.projection import Checkpoint, ViewSession
from flotilla.stores import open_leases, open_views
from flotilla.stores.migrations import Migration, read_migrations
from flotilla_contracts.wire import projection_lease
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.status import Status, read_status
from flotilla_platform.testing import COMMAND, Fleet, environment, eventually

Up = Callable[..., Fleet]
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_nothing_runs(run: Run, tmp_path: Path) -> None:
    result = run("status", "--data", "nowhere")
    assert (result.returncode, result.stdout) == (ExitCode.NOT_RUNNING, "")
    assert result.stderr == (
        f"flotilla: nothing is running in {tmp_path.resolve()}/nowhere: start it with `flotilla up "
        "--data nowhere`, or name another directory with --data\n"
    )


def test_logs_and_projections_come_from_the_tables(up: Up, run: Run) -> None:
    runtime = up("keeps", "folds", folds="tiny_services:folds_two").runtime()
    result = run("status", "--json")
    status = Status.model_validate_json(result.stdout)
    [log] = status.logs
    assert (log.log, log.committed, log.offset, log.waiting) == ("keeps", 5, 3, 2)
    assert (log.stream, log.stream_last_sequence) == ("EVT_KEEPS", 0)
    assert log.oldest_waiting_s > 0
    [projection] = status.projections
    assert (projection.projection, projection.log) == ("said", "keeps")
    assert (projection.checkpoint, projection.lag_events) == (2, 3)
    assert projection.lag_s is not None
    assert projection.lag_s >= log.oldest_waiting_s
    assert (status.pid, status.broker, status.broker_reachable) == (
        runtime.pid,
        runtime.nats_url,
        True,
    )


def test_it_is_healthy_within_the_limit_and_not_beyond(up: Up, run: Run) -> None:
    up("keeps", "folds", folds="tiny_services:folds_two").runtime()
    assert run("status", "--lag-max-s", 3600).returncode == ExitCode.OK
    late = run("status", "--lag-max-s", 0)
    assert late.returncode == ExitCode.UNHEALTHY
    assert "the log 'keeps' has an event without an offset for" in late.stdout
    assert "the projection 'said' is" in late.stdout
    assert late.stderr == ""


def test_it_is_healthy_when_there_is_no_lag(up: Up, run: Run) -> None:
    up("keeps", "relays", "folds", folds="tiny_services:folds_all").runtime()
    result = run("status", "--lag-max-s", 0, "--json")
    status = Status.model_validate_json(result.stdout)
    assert result.returncode == ExitCode.OK
    assert [p.lag_events for p in status.projections] == [0]
    assert [p.lag_s for p in status.projections] == [0.0]
    assert [(log.waiting, log.oldest_waiting_s) for log in status.logs] == [(0, 0.0)]


def test_a_broker_that_does_not_answer_is_unreachable_and_the_tables_are_still_read(
    up: Up, run: Run
) -> None:
    runtime = up("keeps").runtime()
    server = int((Path(runtime.data) / "nats.pid").read_text())
    os.kill(server, signal.SIGSTOP)
    try:
        result = run("status", "--lag-max-s", 3600)
        as_json = run("status", "--lag-max-s", 3600, "--json")
    finally:
        os.kill(server, signal.SIGCONT)
    assert result.returncode == ExitCode.UNHEALTHY
    assert "unreachable" in result.stdout
    assert result.stderr == ""
    status = Status.model_validate_json(as_json.stdout)
    assert [(log.committed, log.stream_last_sequence) for log in status.logs] == [(5, None)]


def test_on_postgres(up: Up, run: Run, open_folder: Path) -> None:
    data = open_folder / "data"
    fleet = up(
        "keeps",
        "folds",
        engine="postgres",
        folds="tiny_services:folds_two",
        arguments=("--data", data),
    )
    fleet.runtime()
    result = run("status", "--data", data, "--json")
    status = Status.model_validate_json(result.stdout)
    assert [(log.committed, log.offset) for log in status.logs] == [(5, 3)]
    assert [(p.checkpoint, p.lag_events) for p in status.projections] == [(2, 3)]


async def test_who_owns_a_projection_is_told_and_missed_when_it_is_gone(up: Up) -> None:
    runtime = up("keeps", "relays", "folds", folds="tiny_services:folds_all").runtime()
    [never] = (await read_status(runtime, SystemClock())).projections
    assert (None, None) == (never.owner, never.ownerless_s), "that is for older projectors"
    async with open_leases(runtime.stores["folds"], service="folds") as leases:
        name = projection_lease("said", "keeps")
        await leases.acquire(name, "here:7:x", ttl_s=60)
        status = await read_status(runtime, SystemClock(), lag_max_s=3600)
        [owned] = status.projections
        assert (True, "here:7:x", None) == (status.healthy, owned.owner, owned.ownerless_s)

        await leases.acquire(name, "here:7:x", ttl_s=-10)

    status = await read_status(runtime, SystemClock(), lag_max_s=3600)
    assert status.projections[0].owner is None
    [problem] = status.problems
    assert "the projection 'said' has no owner for 10." in problem


async def test_a_projection_that_is_ahead_of_its_log_is_no_healthy_one(up: Up) -> None:
    """Its store was restored: there is no lag, and there is everything to do."""
    runtime = up("keeps", "relays", "folds", folds="tiny_services:folds_all").runtime()
    async with open_views(runtime.stores["folds"], service="folds") as views:
        before = await views.checkpoint("said", "keeps")
        ahead = Checkpoint(Offset(before.offset + 1), before.recorded_at)
        await views.advance("said", "keeps", (before.offset, ahead), _nothing)

    status = await read_status(runtime, SystemClock(), lag_max_s=3600)

    assert [0] == [row.lag_events for row in status.projections]
    [problem] = status.problems
    assert "'said' is of a log that was lost" in problem
    assert "up to offset 6, and the log ends at 5; `flotilla rebuild said`" in problem


async def _nothing(_view: ViewSession) -> None:
    return


def test_the_table_is_plain_where_there_is_no_terminal(up: Up, run: Run) -> None:
    up("keeps").runtime()
    result = run("status", "--lag-max-s", 3600)
    assert "\x1b" not in result.stdout
    assert ["keeps", "5", "3", "2"] in [line.split()[:4] for line in result.stdout.splitlines()]


async def test_a_store_that_cannot_be_read_is_named_and_hides_nothing(
    up: Up, tmp_path: Path
) -> None:
    runtime = up("keeps").runtime()
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"not a database" * 999)
    absent = tmp_path / "absent.db"
    broken = {"gone": f"libsql://{damaged}", "odd": "ftp://odd", "absent": f"libsql://{absent}"}
    stores = runtime.stores | broken
    logs = ("gone", "keeps", "odd", "absent")
    wider = runtime.model_copy(update={"stores": stores, "logs": logs, "views": ("absent",)})
    status = await read_status(wider, SystemClock())
    assert [log.log for log in status.logs] == ["keeps"]
    assert not status.healthy
    assert [problem.split(":")[0] for problem in status.problems] == [
        "the store of 'gone' cannot be read",
        "the store of 'odd' cannot be read",
        "the store of 'absent' cannot be read",
        "the read models of 'absent' cannot be read",
    ]
    assert "start its service once" in status.problems[-1]
    assert not absent.exists()


async def test_looking_at_an_older_fleet_does_not_migrate_it(
    up: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line of the next release beside a fleet of this one."""
    runtime = up("keeps").runtime()
    known = read_migrations("flotilla.stores.libsql")
    newer = [*known, Migration(len(known) + 1, "more", "create table more(n)")]
    monkeypatch.setattr("flotilla.stores.libsql.store.read_migrations", lambda _: newer)

    for _ in range(2):
        [problem, *_] = (await read_status(runtime, SystemClock())).problems
        versions = f"at schema version {len(known)} and this code reads {len(newer)}"
        assert versions in problem
        assert "ask with the release that wrote it" in problem


def test_watching_prints_a_document_a_second_until_ctrl_c(up: Up, tmp_path: Path) -> None:
    up("keeps").runtime()
    output = tmp_path / "watched"
    command = [*COMMAND, "status", "--watch", "--json"]
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, cwd=tmp_path, env=environment({}))
    try:
        eventually(lambda: output.read_text().count("\n") >= 2 or None, "two documents")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == ExitCode.OK
    finally:
        process.kill()
    for line in output.read_text().splitlines():
        assert json.loads(line)["format"] == 1


def test_watching_ends_when_the_fleet_does(up: Up, tmp_path: Path) -> None:
    fleet = up("keeps")
    fleet.runtime()
    output = tmp_path / "watched"
    command = [*COMMAND, "status", "--watch", "--json"]
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, cwd=tmp_path, env=environment({}))
    try:
        eventually(lambda: output.read_text().count("\n") >= 1 or None, "a document")
        fleet.end(signal.SIGTERM)
        assert process.wait(30) == ExitCode.NOT_RUNNING
    finally:
        process.kill()


def test_runtime_of_another_version(run: Run, tmp_path: Path) -> None:
    holder = (
        "import sys,pathlib;from flotilla.embedded import DataDirectory\n"
        "with DataDirectory.claim(pathlib.Path('d'),topology='single') as d:\n"
        "  d.runtime_write({'later': 1}); print('held',flush=True); sys.stdin.read()\n"
    )
    python = COMMAND[0]
    with subprocess.Popen(
        [python, "-c", holder], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        result = run("status", "--data", "d")
        process.communicate(b"")
    assert result.returncode == ExitCode.NOT_RUNNING
    assert "of another version of flotilla" in result.stderr
