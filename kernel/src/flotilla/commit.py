"""Group commit without a timer: while one flush is in flight, the next one gathers.

    commit() ─▶ waiting ─▶ flight 1 ─▶ store.commit([units of many callers]) ─▶ each gets its own
                       └─▶ flight 2

An idle committer flushes at once, so a lone command pays one round trip and no more; a busy one
amortises the fsync over everybody who is waiting. At most `flights_max` flushes run, each on a
connection of its own. The queue is bounded: beyond it callers are refused with `Unavailable`, at
once and with nothing written.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flotilla.errors import KernelError, Unavailable
from flotilla.store import Committed, EventStore, Outcome, Unit

BATCH_UNITS_MAX = 256
QUEUE_UNITS_MAX = 8192
FLIGHTS_MAX = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    units: Sequence[Unit]
    outcomes: asyncio.Future[Sequence[Outcome]]


class GroupCommitter:
    """Commits what many callers bring in few statements. One per store and process."""

    def __init__(
        self,
        store: EventStore,
        *,
        on_commit: Callable[[int], None] = lambda _units: None,
        batch_units_max: int = BATCH_UNITS_MAX,
        queue_units_max: int = QUEUE_UNITS_MAX,
        flights_max: int = FLIGHTS_MAX,
    ) -> None:
        """`on_commit` hears how many units each flush made durable: a doorbell, a metric."""
        self._store = store
        self._on_commit = on_commit
        self._batch_units_max = batch_units_max
        self._queue_units_max = queue_units_max
        self._flights_max = flights_max
        self._queue: deque[_Waiting] = deque()
        self._queued_units = 0
        self._flights: set[asyncio.Task[None]] = set()

    async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        """Commit `units` in order, in one flush with others; return an outcome for each.

        A caller that is cancelled while it waits learns nothing: its units happen, whole, or not.

        Raises:
            Unavailable: the queue is full (nothing was written), or the store did not answer.

        """
        if self._queued_units + len(units) > self._queue_units_max:
            raise Unavailable(
                f"{self._queued_units} commands are waiting to be committed; back off"
            )
        waiting = _Waiting(units, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._queued_units += len(units)
        self._take_off()
        return await waiting.outcomes

    async def drain(self) -> None:
        """Return when everything that was accepted is settled."""
        while self._flights:
            await asyncio.wait(self._flights)

    def _take_off(self) -> None:
        while self._queue and len(self._flights) < self._flights_max:
            batch = [self._queue.popleft()]
            count = len(batch[0].units)
            while self._queue and count + len(self._queue[0].units) <= self._batch_units_max:
                batch.append(self._queue.popleft())
                count += len(batch[-1].units)
            self._queued_units -= count
            flight = asyncio.create_task(self._fly(batch))
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._take_off()

    async def _fly(self, batch: Sequence[_Waiting]) -> None:
        try:
            outcomes = await self._store.commit([unit for w in batch for unit in w.units])
        except BaseException as error:  # every waiting caller must hear of it
            for waiting in batch:
                if not waiting.outcomes.done():
                    waiting.outcomes.set_exception(_for_each(error))
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for waiting in batch:
            end = start + len(waiting.units)
            if not waiting.outcomes.done():
                waiting.outcomes.set_result(outcomes[start:end])
            start = end
        if durable := sum(isinstance(outcome, Committed) for outcome in outcomes):
            self._on_commit(durable)  # last: a broken bell must not keep callers waiting


def _for_each(error: BaseException) -> Exception:
    """Return a fresh error: one instance must not gather the tracebacks of many callers."""
    if isinstance(error, KernelError):
        fresh: Exception = type(error)(str(error), code=error.code)
    elif isinstance(error, Exception):
        return error
    else:
        fresh = Unavailable("the process is stopping; whether this was committed is not known")
    fresh.__cause__ = error
    return fresh
