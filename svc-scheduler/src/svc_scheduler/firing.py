"""One worker: claims schedules that are due, and lets them decide what became of their moments.

    claim ──▶ Wake, at the store's time ──▶ fired, missed and the next moment, in one transaction
       ▲                                        │
       └──── wait for the next moment ◀─────────┘

- dies anywhere before the commit: nothing was decided; the claim ends, and somebody else wakes it;
- dies after the commit: it was decided, its events are in the outbox, and the row says the next moment;
- was thought dead, and wakes up: the version of the stream has moved on; it decides anew, and that
  nothing is due;
- the store is away: nothing is decided; afterwards every occurrence is looked at, in order, and fires
  or is counted as missed.

Time is the store's: the moment of the claim. No clock of a worker is compared with anything.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from flotilla import Done, StreamId
from flotilla.background import Background
from flotilla.clock import Clock
from flotilla.due import DueStore
from svc_scheduler.application import AGGREGATE
from svc_scheduler.domain.schedule import Asked, Wake

BATCH_MAX = 256
"""Schedules that one worker settles at a time."""
LEASE_S = 10.0
"""How long a claim hides a schedule that is then not settled."""
POLL_MIN_S, POLL_MAX_S = 0.01, 0.5

log = structlog.get_logger()


@dataclass(slots=True)
class Firing:
    """`tell` makes durable what follows from what a schedule is asked."""

    tell: Callable[[Asked, dict[str, str]], Awaitable[Done]]
    due: DueStore
    clock: Clock
    lease_s: float = LEASE_S
    poll_max_s: float = POLL_MAX_S
    """How late it may hear of what others have made due."""
    behind_s: float = field(default=0.0, init=False)
    """For how long the longest due schedule had been due at the last look."""

    async def run(self, shown: Background) -> None:
        """Settle what is due, until cancelled."""
        while True:
            pause_s = await self.settle_some()
            shown.recovered()
            if pause_s > 0:
                await self.clock.sleep(pause_s)

    async def settle_some(self) -> float:
        """Settle up to a batch of what is due; return how long there is nothing to do then."""
        claimed = await self.due.claim(AGGREGATE, limit=BATCH_MAX, lease_s=self.lease_s)
        self.behind_s = max([0.0, *((claimed.now - due.at).total_seconds() for due in claimed.due)])
        if claimed.due:
            await asyncio.gather(*(self._settle(due.stream, claimed.now) for due in claimed.due))
            return 0.0
        next_s = self.poll_max_s if claimed.next_in_s is None else claimed.next_in_s
        return min(self.poll_max_s, max(POLL_MIN_S, next_s))

    async def _settle(self, stream: StreamId, now: datetime) -> None:
        try:
            await self.tell(Asked(stream, now, Wake()), {"correlation": stream})
        except Exception as error:  # noqa: BLE001 - one schedule must not stop the others
            log.warning("schedule.not_settled", stream=stream, error=repr(error))
