"""Callers that wait for the same stream, gathered: whoever arrives while a batch runs joins the next.

One lane a stream, and only while somebody is in it. Order within a lane is order of arrival.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from flotilla.aggregate import Decision, Done, Settled
from flotilla.errors import Unavailable
from flotilla.store import StreamId

BATCH_DECISIONS_MAX = 256
WAITING_DECISIONS_MAX = 8192


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting[S, E]:
    decision: Decision[S, E]
    settled: asyncio.Future[Done]


class Lanes[S, E]:
    """Runs batches of decisions, one batch a stream at a time."""

    def __init__(
        self,
        run: Callable[[StreamId, Sequence[Decision[S, E]]], Awaitable[Sequence[Settled]]],
        *,
        batch_decisions_max: int = BATCH_DECISIONS_MAX,
        waiting_decisions_max: int = WAITING_DECISIONS_MAX,
    ) -> None:
        self._run = run
        self._batch_decisions_max = batch_decisions_max
        self._waiting_decisions_max = waiting_decisions_max
        self._lanes: dict[StreamId, deque[_Waiting[S, E]]] = {}
        self._waiting_decisions = 0
        self._runners: set[asyncio.Task[None]] = set()

    async def settle(self, stream: StreamId, decision: Decision[S, E]) -> Done:
        """Return when `decision` is durable.

        Raises what it was refused with, or `Unavailable` when too many are waiting. A caller that is
        cancelled does not take its decision back: it happens, whole, or not.
        """
        if self._waiting_decisions >= self._waiting_decisions_max:
            raise Unavailable(f"{self._waiting_decisions} commands are waiting; back off")
        waiting = _Waiting(decision, asyncio.get_running_loop().create_future())
        self._waiting_decisions += 1
        lane = self._lanes.get(stream)
        if lane is None:
            self._lanes[stream] = deque([waiting])
            runner = asyncio.create_task(self._drive(stream))
            self._runners.add(runner)
            runner.add_done_callback(self._runners.discard)
        else:
            lane.append(waiting)
        return await waiting.settled

    async def drain(self) -> None:
        """Return when nobody waits any more."""
        while self._runners:
            await asyncio.wait(self._runners)

    async def _drive(self, stream: StreamId) -> None:
        lane = self._lanes[stream]
        while lane:
            batch = [lane.popleft() for _ in range(min(len(lane), self._batch_decisions_max))]
            self._waiting_decisions -= len(batch)
            results: Sequence[Settled]
            try:
                results = await self._run(stream, [waiting.decision for waiting in batch])
            except Exception as error:  # noqa: BLE001 - every waiting caller must hear of it
                results = [error] * len(batch)
            except asyncio.CancelledError:
                results = [Unavailable("interrupted: not known if it was committed")] * len(batch)
            for waiting, result in zip(batch, results, strict=True):
                if waiting.settled.done():
                    continue  # cancelled meanwhile
                if isinstance(result, Done):
                    waiting.settled.set_result(result)
                else:
                    waiting.settled.set_exception(result)
        del self._lanes[stream]
