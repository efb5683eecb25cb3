"""An event loop whose time passes only when nobody has anything to do: no real time, no real I/O.

What is due at the same moment runs in the order in which it was asked for, so a run depends on nothing
but its seed.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class Stuck(AssertionError):
    """Nobody waits for a moment any more, and the world has not ended."""


class _Leaping(selectors.SelectSelector):
    """Instead of waiting for a while, lets it have passed."""

    def __init__(self, leap: Callable[[float], None]) -> None:
        super().__init__()
        self._leap = leap

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return at once, and nothing: there is no I/O."""
        if timeout is None:
            raise Stuck("everybody waits for somebody else")
        self._leap(max(0.0, timeout))
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time` is seconds since the world began."""

    def __init__(self) -> None:
        self._passed_s = 0.0
        super().__init__(_Leaping(self._leap))

    def time(self) -> float:
        """Return the virtual seconds that have passed."""
        return self._passed_s

    def _leap(self, duration_s: float) -> None:
        self._passed_s += duration_s


def run_virtually[T](work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
