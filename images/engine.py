"""A Docker engine: the one that is there, or one of our own.

    found    DOCKER_HOST, the machine's socket, ours: whichever answers is used, and left alone
    ours     where none answers and we are root on Debian: `docker.io` is installed and `dockerd`
             started on a socket in a folder of ours, until `stop`

Nothing here is skipped: without an engine everything that needs one fails and says what is missing.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from images.debian import Packages
from images.settings import settings
from images.shell import Unable, run, step, works

MACHINE = "unix:///var/run/docker.sock"
START_MAX_S = 45.0
STOP_MAX_S = 45.0
PLUGINS = Path("/usr/local/lib/docker/cli-plugins")
"""Where every docker client looks."""
_LOG_LINES = 15
_PAUSE_S = 0.1
_NO_FIREWALL = ("--iptables=false", "--ip6tables=false")


def ensure() -> str:
    """Return the address of an engine that answers, with the plugins buildx and compose.

    Raises:
        Unable: there is none, and none can be made here.
    """
    if (host := found()) is None:
        _must_be_able()
        with _alone():
            host = found() or _start()
    _plugins(host)
    return host


def found() -> str | None:
    """Return the address of the engine that answers, if any does.

    Raises:
        Unable: DOCKER_HOST names one that does not answer.
    """
    if chosen := settings().docker_host:
        if answers(chosen):
            return chosen
        raise Unable(f"DOCKER_HOST={chosen} does not answer: start that engine, or unset it")
    return next((host for host in (MACHINE, _ours()) if answers(host)), None)


def answers(host: str) -> bool:
    """Whether an engine answers there."""
    if host.startswith("unix://") and not Path(host.removeprefix("unix://")).exists():
        return False
    return works("docker", "--host", host, "version", timeout_s=10)


def stop() -> bool:
    """Stop our engine and its containers; return whether it ran. Images stay.

    Raises:
        Unable: it does not stop within 45 s.
    """
    pid = _pid()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    for _ in _until(STOP_MAX_S):
        if _pid() is None:
            return True
    raise Unable(f"dockerd (process {pid}) does not stop; its log: {_folder() / 'log'}")


def _folder() -> Path:
    return settings().engine_folder


def _ours() -> str:
    return f"unix://{_folder()}/docker.sock"


def _pid() -> int | None:
    """Return the process of our engine, if it lives and is one."""
    try:
        pid = int((_folder() / "pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    return pid if _ours().encode() in command else None


def _must_be_able() -> None:
    missing = list[str]()
    if os.geteuid() != 0:
        missing.append("root")
    if not Path("/etc/debian_version").exists():
        missing.append("Debian")
    if missing:
        raise Unable(
            "no Docker engine answers; installing one takes "
            f"{' and '.join(missing)}. Start one, or name it in DOCKER_HOST."
        )


@contextmanager
def _alone() -> Iterator[None]:
    _folder().mkdir(parents=True, exist_ok=True)
    with (_folder() / "lock").open("w") as lock:
        for _ in _until(START_MAX_S * 4):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield
            return
    raise Unable("somebody else has been starting an engine for minutes")


def _start() -> str:
    if shutil.which("dockerd") is None:
        with step("installed docker.io"):
            _apt("update")
            _apt("install", "--yes", "--no-install-recommends", "docker.io")
    if answers(MACHINE):  # the package started its service
        return MACHINE
    with step(f"started dockerd on {_ours()}") as notes:
        options: Sequence[str] = ()
        if (failure := _launch(options)) and "iptables" in failure:
            # Published ports then go through docker-proxy; containers reach each other, not the world.
            options = _NO_FIREWALL
            failure = _launch(options)
        if failure:
            raise Unable(f"dockerd does not start here:\n{failure}")
        notes.extend(options)
    return _ours()


def _launch(options: Sequence[str]) -> str | None:
    """Start dockerd and wait until it answers; return the end of its log when it does not."""
    folder = _folder()
    with (folder / "log").open("wb") as log:
        dockerd = subprocess.Popen(  # noqa: S603 - it outlives us, by intention
            [
                *("dockerd", "--host", _ours(), "--pidfile", str(folder / "pid")),
                *("--data-root", str(folder / "data"), "--exec-root", str(folder / "run")),
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    for _ in _until(START_MAX_S):
        if answers(_ours()):
            dockerd.returncode = (
                0  # it is nobody's child from here on: let no destructor warn of it
            )
            return None
        if dockerd.poll() is not None:
            break
    dockerd.terminate()
    return "\n".join((folder / "log").read_text(errors="replace").splitlines()[-_LOG_LINES:])


def _plugins(host: str) -> None:
    """Bring buildx and compose where the client lacks them."""
    wanted = {"buildx": "docker-buildx", "compose": "docker-compose"}
    lacking = {k: v for k, v in wanted.items() if not works("docker", "--host", host, k, "version")}
    if not lacking:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unable(
            f"the docker client lacks {', '.join(lacking)}: install {', '.join(lacking.values())}"
        )
    with step(f"installed {', '.join(lacking.values())} as plugins"), _alone():
        archives = Packages(_folder() / "apt").fetch(list(lacking.values()), alone=True)
        for archive in archives:
            run("dpkg-deb", "--extract", archive, _folder() / "plugins")
        PLUGINS.mkdir(parents=True, exist_ok=True)
        for name in lacking.values():
            shutil.copy2(
                _folder() / "plugins/usr/libexec/docker/cli-plugins" / name, PLUGINS / name
            )


def _apt(*words: str) -> None:
    run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *words, timeout_s=300)


def _until(limit_s: float) -> Iterator[None]:
    ends_s = time.monotonic() + limit_s
    while time.monotonic() < ends_s:
        yield
        time.sleep(_PAUSE_S)
