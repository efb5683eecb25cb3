"""Work that goes on in the background and never dies silently.

    working ──returns──▶ working        a pass is over, or `recovered` was called: no trouble
       │ │
       │ └──Corrupt──▶ halted           a promise is broken: stop, say so in health, wait for a human
       └────any other error──▶ backing off ──▶ working

An error is logged and the work starts again, after a pause that grows to `BACKOFF_MAX_S`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from flotilla.clock import Clock
from flotilla.errors import Corrupt, Unavailable

BACKOFF_BASE_S = 0.05
BACKOFF_MAX_S = 2.0
STOP_TIMEOUT_S = 2.0

log = structlog.get_logger()


@dataclass(slots=True)
class Background:
    """What a piece of background work shows of itself. `trouble` is None while it works."""

    name: str
    trouble: str | None = None

    def recovered(self) -> None:
        """Say, from within work that goes on for ever, that it works again."""
        self.trouble = None


Work = Callable[[Background], Awaitable[None]]


@asynccontextmanager
async def background(
    name: str, work: Work, *, clock: Clock, chance: random.Random
) -> AsyncIterator[Background]:
    """Run `work` again and again until the block ends."""
    shown = Background(name)
    task = asyncio.create_task(_drive(shown, work, clock, chance), name=name)
    try:
        yield shown
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=STOP_TIMEOUT_S)


def _is_over() -> bool:
    """Return whether we were cancelled; a library's own stray cancellation is just a failure."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _drive(shown: Background, work: Work, clock: Clock, chance: random.Random) -> None:
    failures = 0
    while True:
        started_s = clock.monotonic_s()
        try:
            await work(shown)
        except Corrupt as error:
            shown.trouble = f"{shown.name} halted: {error}"
            log.critical("background.halted", work=shown.name, error=str(error))
            return
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the work has to go on
            if _is_over():
                return  # whatever the work made of being cancelled
            if clock.monotonic_s() - started_s > BACKOFF_MAX_S:
                failures = 0
            failures += 1
            shown.trouble = f"{shown.name}: {str(error) or type(error).__name__}"
            report = log.warning if isinstance(error, Unavailable) else log.exception
            report("background.failed", work=shown.name, error=repr(error), failures=failures)
            pause_s = min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2 ** min(failures, 10))
            await clock.sleep(pause_s * (0.5 + chance.random() / 2))
        else:
            failures = 0
            shown.recovered()
