"""Small stand-ins for the world: a clock that is moved by hand, events to store, waiting for a fact."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from flotilla.clock import uuid7
from flotilla.store import NewEvent


class ManualClock:
    """A clock that moves when it is told to. Sleeping moves it and yields once."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        """Return the time it was moved to."""
        return self._now

    def monotonic_s(self) -> float:
        """Return how far it was moved."""
        return self._elapsed_s

    def advance(self, duration_s: float) -> None:
        """Move it."""
        self._elapsed_s += duration_s
        self._now += timedelta(seconds=duration_s)

    async def sleep(self, duration_s: float) -> None:
        """Move it, and let others run."""
        self.advance(duration_s)
        await asyncio.sleep(0)


class SteppedClock(ManualClock):
    """A clock that many sleep by: `pass_time` wakes each at its moment, in order."""

    _TURNS = 20  # enough for whoever was woken to go on to where it waits again

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    async def sleep(self, duration_s: float) -> None:
        """Wait until so much time has passed."""
        self._count += 1
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.monotonic_s() + duration_s, self._count, woken))
        await woken

    async def pass_time(self, duration_s: float) -> None:
        """Let so much time pass, and everybody do what they do in it."""
        until_s = self.monotonic_s() + duration_s
        await self._let_others_run()
        while self._sleepers and self._sleepers[0][0] <= until_s:
            at_s, _, woken = heapq.heappop(self._sleepers)
            self.advance(max(0.0, at_s - self.monotonic_s()))
            if not woken.done():
                woken.set_result(None)
            await self._let_others_run()
        self.advance(until_s - self.monotonic_s())

    async def _let_others_run(self) -> None:
        for _ in range(self._TURNS):
            await asyncio.sleep(0)


def new_event(
    payload: str = "{}",
    *,
    kind: str = "thing.happened.v1",
    metadata: Mapping[str, str] | None = None,
) -> NewEvent:
    """Return an event to store, with an id of its own."""
    return NewEvent(str(uuid7()), kind, payload, metadata or {"correlation": "c-1"})


async def eventually[T](
    fact: Callable[[], Awaitable[T | bool | None]], *, within_s: float = 10.0, what: str = ""
) -> T:
    """Return the first truthy answer of `fact`, asked again and again.

    Raises:
        AssertionError: it did not come true within `within_s`; shows the last answer.

    """
    answer: object = None
    try:
        async with asyncio.timeout(within_s):
            while True:
                answer = await fact()
                if answer:
                    return answer  # type: ignore[return-value]
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s: {what}; last answer: {answer!r}") from None
