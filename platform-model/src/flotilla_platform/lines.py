"""What child processes say, in the log of the process that supervises them.

pretty   counter/1      | 12:00:01 [info] ...      names in colours on a terminal
json     {"event": ..., "service": "counter", "replica": 1}      one document a line, always
"""

import json
import sys
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from flotilla.clock import Clock
from flotilla_platform.options import LogFormat, LogLevel

LINE_BYTES_MAX = 64 * 1024
"""Longer lines are cut into several."""

_COLOURS = (36, 33, 35, 32, 34, 31)


Form = Literal["json", "pretty"]


@dataclass(frozen=True, slots=True)
class Logging:
    """How the processes of a fleet log, and where they send their traces."""

    form: Form
    level: LogLevel
    otlp_endpoint: str | None = None


def resolved(log_format: LogFormat) -> Form:
    """Return what `auto` means here, since a child's stderr is never a terminal."""
    if log_format == "auto":
        return "pretty" if sys.stderr.isatty() else "json"
    return log_format


async def lines_of(reader: StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a pipe without their ends, until it is closed."""
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except LimitOverrunError as error:
            line = await reader.readexactly(error.consumed)
        except IncompleteReadError as error:
            if error.partial:
                yield error.partial.rstrip()
            return
        yield line.rstrip()


@dataclass(frozen=True, slots=True)
class Lines:
    """Writes lines of many processes to stderr, each with whose it is."""

    form: Form
    width: int
    """Characters of the longest name."""
    clock: Clock
    colours: bool

    def write(self, deployable: str, replica: int, line: bytes) -> None:
        """Write one line."""
        if line:
            told = self._document if self.form == "json" else self._prefixed
            sys.stderr.buffer.write(told(deployable, replica, line) + b"\n")
            sys.stderr.buffer.flush()

    def _prefixed(self, deployable: str, replica: int, line: bytes) -> bytes:
        name = f"{deployable}/{replica}".ljust(self.width)
        if self.colours:
            colour = _COLOURS[sum(deployable.encode()) % len(_COLOURS)]
            name = f"\x1b[{colour}m{name}\x1b[0m"
        return f"{name} | ".encode() + line

    def _document(self, deployable: str, replica: int, line: bytes) -> bytes:
        if line.startswith(b'{"') and line.endswith(
            b"}"
        ):  # its own log, which names the deployable
            return line[:-1] + f', "replica": {replica}}}'.encode()
        return json.dumps(
            {
                "event": line.decode(errors="replace"),
                "level": "info",
                "timestamp": self.clock.now().isoformat(),
                "service": deployable,
                "replica": replica,
            }
        ).encode()
