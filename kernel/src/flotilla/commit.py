"""Group commit without a timer: while one flush is in flight, the next one gathers.

    commit() ─▶ waiting ─▶ flight 1 ─▶ store.commit([units of many callers]) ─▶ each gets its own
                       └─▶ flight 2

An idle committer flushes as soon as the event loop has nothing more for it, so a lone command pays
one round trip and a few microseconds; a busy one amortises the fsync over everybody who is waiting.
At most `flights_max` flushes run, each on a connection of its own and each with its share of what
is waiting or under way: while the store works on one, the callers of the other are served. (Without
that, one flight ends up with a single unit and the other with all the rest.) The queue is bounded:
beyond it callers are refused with `Unavailable`, at once and with nothing written.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flotilla.errors import Unavailable, for_each
from flotilla.store import Committed, EventStore, Outcome, Unit

BATCH_UNITS_MAX = 256
QUEUE_UNITS_MAX = 8192
FLIGHTS_MAX = 2
QUIET_ITERATIONS = 4
"""Iterations of the event loop without a new unit, after which a flush takes off. Callers that were
answered together need three of them to come back with their next commands."""


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
        self._flights: dict[asyncio.Task[None], int] = {}
        self._gathering = False

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
        self._gather()
        return await waiting.outcomes

    async def drain(self) -> None:
        """Return when everything that was accepted is settled."""
        while self._flights or self._gathering:
            await (asyncio.wait(self._flights) if self._flights else asyncio.sleep(0))

    def _gather(self) -> None:
        """Take off soon, if there is something to take and a flight to take it."""
        if not self._gathering and self._queue and len(self._flights) < self._flights_max:
            self._gathering = True
            self._look_again(self._queued_units, QUIET_ITERATIONS)

    def _look_again(self, seen_units: int, quiet_iterations: int) -> None:
        units = self._queued_units
        left = quiet_iterations - 1 if units == seen_units else QUIET_ITERATIONS
        if left and units < self._batch_units_max:
            asyncio.get_running_loop().call_soon(self._look_again, units, left)
        else:
            self._gathering = False
            self._take_off()

    def _take_off(self) -> None:
        demand = self._queued_units + sum(self._flights.values())
        share = min(self._batch_units_max, -(-demand // self._flights_max))
        while self._queue and len(self._flights) < self._flights_max:
            batch = [self._queue.popleft()]
            count = len(batch[0].units)
            while self._queue and count + len(self._queue[0].units) <= share:
                batch.append(self._queue.popleft())
                count += len(batch[-1].units)
            self._queued_units -= count
            flight = asyncio.create_task(self._fly(batch))
            self._flights[flight] = count
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        del self._flights[flight]
        self._gather()

    async def _fly(self, batch: Sequence[_Waiting]) -> None:
        try:
            outcomes = await self._store.commit([unit for w in batch for unit in w.units])
        except BaseException as error:  # every waiting caller must hear of it
            for waiting in batch:
                if not waiting.outcomes.done():
                    waiting.outcomes.set_exception(
                        for_each(error, stopping="whether this was committed is not known")
                    )
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
