"""Fleets as real processes, for tests: started, watched, asked, ended.

    with start_fleet(tmp_path, "--topology", "single", "--port", 0) as fleet:
        api = fleet.runtime().api
        fleet.end(signal.SIGTERM)

Nothing sleeps and hopes: every wait is for a condition and has a limit.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flotilla_platform.runtime import Runtime

TIMEOUT_S = 60.0
COMMAND = (sys.executable, "-m", "flotilla_platform")

_POLL_S = 0.02
_PREFIX = "flotilla: "


def eventually[T](probe: Callable[[], T | None], what: str, limit_s: float = TIMEOUT_S) -> T:
    """Return the first answer of `probe` that is not None; fail when there is none in time."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        answer = probe()
        if answer is not None:
            return answer
        time.sleep(_POLL_S)
    raise AssertionError(f"{what}: not within {limit_s:g} s")


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without what steers flotilla, and with `more`."""
    inherited = os.environ.items()  # noqa: TID251 - to be passed on, not to be read
    steering = ("FLOTILLA_", "OTEL_", "NO_COLOR", "FORCE_COLOR", "TERMINAL_WIDTH")
    kept = {name: value for name, value in inherited if not name.startswith(steering)}
    return {**kept, "COLUMNS": "100", **more}


def run_flotilla(
    folder: Path, *arguments: object, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `flotilla` in `folder` to its end."""
    return subprocess.run(  # noqa: S603 - our own program
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        check=False,
        cwd=folder,
        env=environment(env or {}),
        text=True,
        timeout=TIMEOUT_S,
    )


@dataclass(frozen=True)
class Fleet:
    """A `flotilla up --json` that was started, and the files that it writes to."""

    process: subprocess.Popen[bytes]
    output: Path
    errors: Path

    @property
    def stdout(self) -> str:
        """What it wrote to stdout so far."""
        return self.output.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """What it wrote to stderr so far: the log, and one line when it fails."""
        return self.errors.read_text(encoding="utf-8")

    def runtime(self) -> Runtime:
        """Wait until it is up, and return what it says of itself."""
        return eventually(self._announced, "up")

    def end(self, number: signal.Signals) -> int:
        """Send a signal, wait until the process has ended, and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)

    def complaint(self) -> str:
        """Return the one line that is for people, whatever was logged around it."""
        lines = [line for line in self.stderr.splitlines() if line.startswith(_PREFIX)]
        assert len(lines) == 1, self.stderr
        return lines[0].removeprefix(_PREFIX)

    def _announced(self) -> Runtime | None:
        for line in self.stdout.splitlines(keepends=True):
            if line.startswith('{"pid"') and line.endswith("\n"):
                return Runtime.model_validate_json(line)
        assert self.process.poll() is None, f"it ended instead: {self.stderr}"
        return None


@contextmanager
def start_fleet(
    folder: Path, *arguments: object, env: Mapping[str, str] | None = None
) -> Iterator[Fleet]:
    """Start `flotilla up --json` in `folder`; kill it at the end of the block if it still runs."""
    number = len(list(folder.glob("fleet-*.out")))
    output, errors = folder / f"fleet-{number}.out", folder / f"fleet-{number}.err"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [*COMMAND, "up", "--json", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=environment(env or {}),
        )
    try:
        yield Fleet(process, output, errors)
    finally:
        process.kill()
        process.wait(TIMEOUT_S)
