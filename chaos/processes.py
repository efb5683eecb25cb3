"""Signals to processes that this run started, and to their children; nobody else is touched."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """Return the processes that `pid` started and that are still there (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(folder.name))
    return sorted(found)


def child_named(program: str, parent: int) -> list[int]:
    """Return the child of `parent` whose command line has `program` in it, if there is one."""
    found = []
    for pid in children_of(parent):
        with suppress(OSError):
            if program in os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()):
                found.append(pid)
    return found[:1]


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Stop processes where they are for the length of the block; they never stay stopped."""
    try:
        send(pids, signal.SIGSTOP)
        yield
    finally:
        send(pids, signal.SIGCONT)
