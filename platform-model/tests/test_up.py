"""`flotilla up`: what it starts, how it says so, and all the ways in which it ends."""

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from flotilla.bus import Context, Request
from flotilla.buses.nats import NatsBus
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.testing import Fleet, eventually

Up = Callable[..., Fleet]
STOP_LIMIT_S = 5.0
ASK = Request("qry.tiny.say", b'"hello"', Context(tenant="t", correlation_id="c"))


def is_gone(pid: int) -> bool | None:
    """True when no such process runs (a zombie does not); for `eventually`."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return True if state == "Z" else None


def nats_pid(data: Path) -> int:
    return int((data / "nats.pid").read_text())


def test_it_says_where_everything_is(up: Up, tmp_path: Path) -> None:
    fleet = up("listens", "compose")
    runtime = fleet.runtime()
    data = (tmp_path / ".flotilla" / "single").resolve()
    assert runtime.pid == fleet.process.pid
    assert (runtime.topology, runtime.data) == ("single", str(data))
    assert runtime.docs == f"{runtime.api}/docs"
    assert json.loads((data / "runtime.json").read_text()) == runtime.model_dump(mode="json")
    with urlopen(f"{runtime.api}/", timeout=5) as answer:
        assert answer.read() == b"tiny"
    assert fleet.end(signal.SIGTERM) == ExitCode.OK
    assert not (data / "runtime.json").exists()


async def test_handlers_are_reached_over_nats_too(up: Up) -> None:
    runtime = up("compose").runtime()
    async with NatsBus(runtime.nats_url, name="test") as bus:
        assert (await bus.request(ASK)).body == ASK.body


def test_services_start_in_the_order_of_the_model(up: Up) -> None:
    fleet = up("checks-order", "compose")  # asks `compose`, which comes after it
    assert fleet.process.wait(60) == ExitCode.SERVICE_FAILED
    assert fleet.complaint() == (
        "the service 'checks-order' did not start: nobody answers qry.tiny.say"
    )


def test_they_stop_in_the_reverse_order(up: Up) -> None:
    fleet = up("compose", "checks-order")  # asks again while it stops
    fleet.runtime()
    assert fleet.end(signal.SIGTERM) == ExitCode.OK


def test_those_that_listen_start_last_wherever_they_are_written(up: Up) -> None:
    fleet = up("listens", "never-starts")
    eventually(lambda: "starting" in fleet.stdout or None, "start")
    assert "listening" not in fleet.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything(up: Up, number: signal.Signals) -> None:
    fleet = up("compose", "listens")
    server = nats_pid(Path(fleet.runtime().data))
    began_s = time.monotonic()
    assert fleet.end(number) == ExitCode.OK
    assert time.monotonic() - began_s < STOP_LIMIT_S
    assert is_gone(server)


def test_a_signal_while_it_starts_ends_it_too(up: Up, tmp_path: Path) -> None:
    fleet = up("never-starts")
    eventually(lambda: "starting" in fleet.stdout or None, "start")
    server = nats_pid(tmp_path / ".flotilla" / "single")
    assert fleet.end(signal.SIGINT) == ExitCode.OK
    assert is_gone(server)


def test_a_second_ctrl_c_ends_it_at_once(up: Up) -> None:
    fleet = up("will-not-stop")
    server = nats_pid(Path(fleet.runtime().data))
    fleet.process.send_signal(signal.SIGINT)

    def again() -> bool | None:
        fleet.process.send_signal(signal.SIGINT)
        return fleet.process.poll() is not None or None

    eventually(again, "end", limit_s=1.5)
    assert fleet.process.returncode == ExitCode.INTERRUPTED
    assert fleet.complaint().startswith("ended at once")
    eventually(lambda: is_gone(server), "nats-server ends")


@pytest.mark.parametrize("service", ["will-not-stop", "blocks-the-loop"])
def test_what_does_not_stop_is_killed(up: Up, service: str) -> None:
    fleet = up(service)
    server = nats_pid(Path(fleet.runtime().data))
    began_s = time.monotonic()
    assert fleet.end(signal.SIGTERM) == ExitCode.NOT_STOPPED
    assert time.monotonic() - began_s < STOP_LIMIT_S
    eventually(lambda: is_gone(server), "nats-server ends")


def test_a_service_that_takes_its_time_is_cancelled(up: Up) -> None:
    fleet = up("takes-its-time", "compose")
    fleet.runtime()
    began_s = time.monotonic()
    assert fleet.end(signal.SIGTERM) == ExitCode.OK
    assert time.monotonic() - began_s < STOP_LIMIT_S


def test_a_service_that_fails_to_stop_is_told(up: Up) -> None:
    fleet = up("fails-to-stop")
    fleet.runtime()
    assert fleet.end(signal.SIGTERM) == ExitCode.SERVICE_FAILED
    assert fleet.complaint() == (
        "the service 'fails-to-stop' did not stop cleanly: RuntimeError: stuck at the end"
    )


def test_a_service_that_does_not_start_is_told(up: Up, tmp_path: Path) -> None:
    fleet = up("compose", "fails-to-start")
    assert fleet.process.wait(60) == ExitCode.SERVICE_FAILED
    assert fleet.complaint() == "the service 'fails-to-start' did not start: RuntimeError: no luck"
    assert is_gone(nats_pid(tmp_path / ".flotilla" / "single"))


async def test_a_service_whose_work_ends_ends_the_fleet(up: Up) -> None:
    fleet = up("compose", "dies-later")
    runtime = fleet.runtime()
    async with NatsBus(runtime.nats_url, name="test") as bus:
        await bus.request(Request("cmd.dies.now", b"{}", ASK.context))
    assert fleet.process.wait(60) == ExitCode.SERVICE_FAILED
    assert fleet.complaint() == ("the service 'dies-later' ended unexpectedly: the work is gone")


def test_a_port_that_a_service_finds_taken(up: Up) -> None:
    fleet = up("finds-port-taken")
    assert fleet.process.wait(60) == ExitCode.PORT_TAKEN
    assert "port 8080 on 127.0.0.1 is taken" in fleet.complaint()


def test_a_taken_port_is_found_before_anything_starts(up: Up, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fleet = up("listens", arguments=("--port", port))
        assert fleet.process.wait(60) == ExitCode.PORT_TAKEN
    assert fleet.stderr == (
        f"flotilla: port {port} on 127.0.0.1 is taken: stop what uses it, or choose another with "
        "--port (0 takes any free one)\n"
    )
    assert not (tmp_path / ".flotilla" / "single" / "nats.pid").exists()


def test_a_data_directory_has_one_owner(up: Up) -> None:
    first = up("compose")
    runtime = first.runtime()
    second = up("compose")
    assert second.process.wait(60) == ExitCode.DATA_DIRECTORY
    assert second.stderr == (
        f"flotilla: {runtime.data} is in use by process {runtime.pid}: stop it, or choose another "
        "directory\n"
    )
    assert first.end(signal.SIGTERM) == ExitCode.OK


def test_a_folder_with_other_files_is_not_touched(up: Up, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    fleet = up("compose", arguments=("--data", tmp_path / "mine"))
    assert fleet.process.wait(60) == ExitCode.DATA_DIRECTORY
    [line] = fleet.stderr.splitlines()
    assert "holds other files" in line
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_after_kill_9_it_comes_up_again(up: Up) -> None:
    first = up("compose")
    data = Path(first.runtime().data)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    second = up("compose")
    runtime = second.runtime()
    assert runtime.data == str(data)
    assert runtime.pid == second.process.pid
    assert second.end(signal.SIGTERM) == ExitCode.OK


def test_on_postgres(up: Up, open_folder: Path) -> None:
    fleet = up("keeps", engine="postgres", arguments=("--data", open_folder / "data"))
    runtime = fleet.runtime()
    assert runtime.stores["keeps"].startswith("postgresql://")
    postmaster = int((Path(runtime.data) / "pg" / "postmaster.pid").read_text().split()[0])
    began_s = time.monotonic()
    assert fleet.end(signal.SIGINT) == ExitCode.OK
    assert time.monotonic() - began_s < STOP_LIMIT_S
    assert is_gone(postmaster)


def test_debug_shows_where_an_error_comes_from(up: Up) -> None:
    fleet = up("fails-to-start", arguments=("--debug",))
    assert fleet.process.wait(60) == ExitCode.SERVICE_FAILED
    assert "tiny_services.py" in fleet.stderr
