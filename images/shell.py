"""Commands of others: bounded in time, and clear when they fail."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

console = Console(highlight=False, soft_wrap=True)
_TAIL_LINES = 25

type Word = str | Path


class Unable(Exception):
    """Something cannot be done here; says what is missing and what to do."""


def run(
    *command: Word, timeout_s: float = 120, cwd: Path | None = None, feed: Path | None = None
) -> str:
    """Run a command; return what it wrote to stdout.

    Raises:
        Unable: it is not installed, failed, or took longer than `timeout_s`.
    """
    shown = " ".join(str(word) for word in command)
    try:
        with (feed or Path("/dev/null")).open("rb") as stdin:
            done = subprocess.run(  # noqa: S603 - an argument list, no shell
                command, cwd=cwd, stdin=stdin, capture_output=True, timeout=timeout_s, check=False
            )
    except FileNotFoundError as error:
        raise Unable(f"{command[0]} is not installed (wanted for: {shown})") from error
    except subprocess.TimeoutExpired as error:
        raise Unable(f"took longer than {timeout_s:.0f} s: {shown}") from error
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace").splitlines()[-_TAIL_LINES:]
        raise Unable("\n".join([f"failed with {done.returncode}: {shown}", *said]))
    return done.stdout.decode(errors="replace")


def works(*command: Word, timeout_s: float = 20) -> bool:
    """Whether a command is there and succeeds."""
    try:
        run(*command, timeout_s=timeout_s)
    except Unable:
        return False
    return True


@contextmanager
def step(what: str) -> Iterator[list[str]]:
    """Say what is done, how long it took, and whatever is put into the list."""
    began_s, notes = time.monotonic(), list[str]()
    yield notes
    took = f"{time.monotonic() - began_s:5.1f} s"
    console.print(f"[green]✓[/] {took}  {what}{': ' if notes else ''}{', '.join(notes)}")
