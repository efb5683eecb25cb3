"""`flotilla up` of a topology of processes: children that are watched, and never outlive it."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flotilla.bus import Context, Request
from flotilla.buses.nats import NatsBus
from flotilla.testing.servers import open_folder as lend_folder
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.runtime import ProcessState, Runtime
from flotilla_platform.testing import Fleet, eventually, run_flotilla, start_fleet

STOP_LIMIT_S = 5.0
ENV = {"PYTHONPATH": str(Path(__file__).parent)}
ASK = Request("qry.tiny.say", b'"hello"', Context(tenant="t", correlation_id="c"))

UpMany = Callable[..., Fleet]


@pytest.fixture
def up_many(write_processes: Callable[..., Path]) -> Iterator[UpMany]:
    """Start fleets of processes; all are ended with the test."""
    with ExitStack() as stack:
        folder = stack.enter_context(lend_folder())

        def start(*names: str, arguments: tuple[object, ...] = (), **replicas: int) -> Fleet:
            root = write_processes(*names, **replicas)
            given = ("--model", root, "-t", "many", "--port", 0, *arguments)
            return stack.enter_context(start_fleet(folder, *given, env=ENV))

        yield start


def is_gone(pid: int) -> bool | None:
    """True when no such process runs (a zombie does not); for `eventually`."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return True if state == "Z" else None


def now(runtime: Runtime) -> Runtime:
    return Runtime.model_validate_json((Path(runtime.data) / "runtime.json").read_text())


def process(runtime: Runtime, name: str) -> ProcessState:
    [found] = [each for each in now(runtime).processes if each.name == name]
    return found


def everybody(runtime: Runtime) -> list[int]:
    """Return the processes of a fleet but its supervisor."""
    data = Path(runtime.data)
    files = (data / "nats.pid", data / "pg" / "postmaster.pid")
    servers = [int(file.read_text().split()[0]) for file in files]
    return servers + [each.pid for each in runtime.processes if each.pid]


def test_it_runs_a_process_a_replica_and_ends_all_of_them(up_many: UpMany) -> None:
    fleet = up_many("compose", "listens", compose=2)
    runtime = fleet.runtime()
    assert [(p.name, p.state, p.restarts) for p in runtime.processes] == [
        ("compose/1", "running", 0),
        ("compose/2", "running", 0),
        ("listens/1", "running", 0),
    ]
    assert runtime == now(runtime)
    assert runtime.pid == fleet.process.pid
    pids = everybody(runtime)
    assert len(set(pids)) == 5
    for pid in pids[2:]:
        assert b"postgresql" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    began_s = time.monotonic()
    assert fleet.end(signal.SIGINT) == ExitCode.OK
    assert time.monotonic() - began_s < STOP_LIMIT_S
    assert all(map(is_gone, pids))


async def test_one_that_was_killed_is_started_again_and_seen_to_be(up_many: UpMany) -> None:
    fleet = up_many("compose", "listens")
    runtime = fleet.runtime()
    api, before = runtime.api, process(runtime, "compose/1")
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    after = eventually(
        lambda: found if (found := process(runtime, "compose/1")).restarts else None, "is noticed"
    )
    assert after.last_exit == -signal.SIGKILL
    told = run_flotilla(Path(runtime.data), "status", "--data", runtime.data, "--json", env=ENV)
    assert [(1, -signal.SIGKILL)] == [
        (one["restarts"], one["last_exit"])
        for one in json.loads(told.stdout)["processes"]
        if one["deployable"] == "compose"
    ]
    eventually(
        lambda: process(runtime, "compose/1").state == "running" or None, "it is started again"
    )
    os.kill(process(runtime, "listens/1").pid or 0, signal.SIGKILL)
    eventually(lambda: process(runtime, "listens/1").restarts or None, "is noticed")
    eventually(lambda: process(runtime, "listens/1").state == "running" or None, "listens again")
    assert now(runtime).api == api  # where clients know it to be
    lines = [json.loads(line) for line in fleet.stderr.splitlines()]
    ended = [line for line in lines if line["event"] == "process.ended"]
    assert [(line["process"], line["status"]) for line in ended] == [
        ("compose/1", -9),
        ("listens/1", -9),
    ]
    async with NatsBus(runtime.nats_url, name="test") as bus:
        assert (await bus.request(ASK)).body == ASK.body
    assert fleet.end(signal.SIGTERM) == ExitCode.OK


def test_one_that_keeps_ending_ends_the_fleet_at_last(up_many: UpMany) -> None:
    fleet = up_many("compose", "ends-soon")
    assert fleet.process.wait(120) == ExitCode.SERVICE_FAILED
    assert fleet.stderr.splitlines()[-1] == (
        "flotilla: the process ends-soon/1 ended 5 times in a row: the service 'ends-soon' ended "
        "unexpectedly: ArithmeticError: broken again"
    )
    documents = [json.loads(line) for line in fleet.stderr.splitlines()[:-1]]
    assert {"supervisor", "ends-soon"} == {line["service"] for line in documents}
    complaint = (
        "flotilla: the service 'ends-soon' ended unexpectedly: ArithmeticError: broken again"
    )
    assert 5 == sum((line["event"], line.get("replica")) == (complaint, 1) for line in documents)


def test_one_that_does_not_start_ends_the_fleet_with_its_words(up_many: UpMany) -> None:
    fleet = up_many("compose", "fails-to-start", arguments=("--log-format", "pretty"))
    assert fleet.process.wait(60) == ExitCode.SERVICE_FAILED
    told = "the service 'fails-to-start' did not start: RuntimeError: no luck"
    assert fleet.complaint() == f"the process fails-to-start/1 did not start: {told}"
    assert f"fails-to-start/1 | flotilla: {told}" in fleet.stderr.splitlines()
    assert "\x1b" not in fleet.stderr


def test_kill_9_leaves_nobody_behind(up_many: UpMany) -> None:
    fleet = up_many("compose", "will-not-stop")
    pids = everybody(fleet.runtime())
    assert fleet.end(signal.SIGKILL) == -signal.SIGKILL
    for pid in pids:
        eventually(lambda pid=pid: is_gone(pid), f"{pid} ends", STOP_LIMIT_S)  # type: ignore[misc]


def test_a_second_ctrl_c_ends_all_at_once(up_many: UpMany) -> None:
    fleet = up_many("compose", "blocks-the-loop")
    pids = everybody(fleet.runtime())
    fleet.process.send_signal(signal.SIGINT)

    def again() -> bool | None:
        fleet.process.send_signal(signal.SIGINT)
        return fleet.process.poll() is not None or None

    eventually(again, "end", limit_s=1.5)
    assert fleet.process.returncode == ExitCode.INTERRUPTED
    for pid in pids:
        eventually(lambda pid=pid: is_gone(pid), f"{pid} ends", STOP_LIMIT_S)  # type: ignore[misc]


def test_what_does_not_stop_is_killed_and_told(up_many: UpMany) -> None:
    fleet = up_many("compose", "blocks-the-loop")
    pids = everybody(fleet.runtime())
    began_s = time.monotonic()
    assert fleet.end(signal.SIGTERM) == ExitCode.NOT_STOPPED
    assert time.monotonic() - began_s < STOP_LIMIT_S
    for pid in pids:
        eventually(lambda pid=pid: is_gone(pid), f"{pid} ends", STOP_LIMIT_S)  # type: ignore[misc]


def test_a_mistake_in_the_model_starts_nothing(up_many: UpMany) -> None:
    fleet = up_many("compose", "listens", listens=2)
    assert fleet.process.wait(60) == ExitCode.MODEL_INVALID
    assert "2 replicas of 'listens' would listen on one port" in fleet.complaint()
    assert not list(fleet.output.parent.glob(".flotilla"))
