"""Stopping, whatever happens: on a signal, within five seconds, at once when asked twice.

    running --SIGINT, SIGTERM, SIGHUP, a failure--> stopping --everything ended--> exit
                                                       |   |
                                       still here after 4.5 s  Ctrl-C again
                                                       v   v
                                            children killed, exit at once

The watchdog is a thread and the handler is a plain one, so that neither depends on an event loop
that may be the very thing that hangs.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import NoReturn

from flotilla.embedded.child import ChildProcess
from flotilla_platform.exit_codes import ExitCode

STOP_TIMEOUT_S = 5.0
"""Everything has ended this long after it was asked to, one way or the other."""

_WATCHDOG_S = STOP_TIMEOUT_S - 0.5
# `make`, `uv run` and the terminal may each deliver the same Ctrl-C.
_SAME_CTRL_C_S = 0.2
_STDERR = 2


class Shutdown:
    """How this process ends. Make it in the main thread, in the task that starts the fleet."""

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._starting = asyncio.current_task()
        self._servers: list[ChildProcess] = []
        self._begun_at_s: float | None = None
        self._begun: SimpleQueue[None] = SimpleQueue()  # unlike Event, safe in a signal handler
        threading.Thread(target=self._watch, name="shutdown-watchdog", daemon=True).start()

    def watch_signals(self) -> None:
        """Install the handlers; again after something else may have installed its own."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            signal.signal(signal.SIGHUP, self._on_signal)

    def owns(self, server: ChildProcess) -> None:
        """Remember a server, which knows better than SIGKILL how to be ended in a hurry."""
        self._servers.append(server)

    def started(self) -> None:
        """Say that starting is over: from now on a signal sets `wanted`, and cancels nothing."""
        self._starting = None

    def begin(self) -> None:
        """Let the clock run; called by every way of ending."""
        if self._begun_at_s is None:
            self._begun_at_s = time.monotonic()
            self._begun.put(None)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._begun_at_s is None:
            self.begin()
            with suppress(RuntimeError):  # the loop is closed: we are at the very end
                self._loop.call_soon_threadsafe(self._want)
        elif number == signal.SIGINT and time.monotonic() - self._begun_at_s > _SAME_CTRL_C_S:
            self._end_now(ExitCode.INTERRUPTED, "ended at once, as asked; the data is safe")

    def _want(self) -> None:
        self.wanted.set()
        if self._starting is not None:
            self._starting.cancel()

    def _watch(self) -> None:
        self._begun.get()
        time.sleep(_WATCHDOG_S)
        self._end_now(
            ExitCode.NOT_STOPPED,
            f"did not stop within {STOP_TIMEOUT_S:g} s and was killed; the data is safe",
        )

    def _end_now(self, code: ExitCode, message: str) -> NoReturn:
        with suppress(OSError):
            os.write(_STDERR, f"flotilla: {message}\n".encode())
        harsher = {server.pid: server.harsher_signal for server in self._servers}
        for pid in _children() or harsher:
            with suppress(OSError):
                os.kill(pid, harsher.get(pid, signal.SIGKILL))
        os._exit(code)


def _children() -> list[int]:
    """Return our direct children, who cannot be anybody else's; empty where /proc does not say."""
    return list(_children_by_thread())


def _children_by_thread() -> Iterator[int]:
    with suppress(OSError, ValueError):
        for file in Path("/proc/self/task").glob("*/children"):
            yield from map(int, file.read_text().split())
