"""Questions of many callers, asked together: while some are under way, the next ones gather.

The reading counterpart of `flotilla.commit`: no timer, a lone question goes out at once, a busy store
answers many in one round trip. The queue is bounded: beyond it, questions
are refused with `Unavailable`, at once.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from flotilla.errors import Unavailable, for_each

BATCH_MAX = 256
WAITING_MAX = 8192
FLIGHTS_MAX = 2


class Gather[Q, A]:
    """Asks `ask` with a batch of questions; each caller gets the answer to its own."""

    def __init__(
        self,
        ask: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        *,
        batch_max: int = BATCH_MAX,
        flights_max: int = FLIGHTS_MAX,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._ask = ask
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._flights_max = flights_max
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._flights: set[asyncio.Task[None]] = set()

    async def answer(self, question: Q) -> A:
        """Return the answer to `question`.

        Raises what `ask` raises: then all of a batch hear it, each in an error of its own. Raises
        `Unavailable` when too many are waiting already.
        """
        if len(self._waiting) >= self._waiting_max:
            raise Unavailable(f"{len(self._waiting)} questions are waiting for an answer; back off")
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        self._take_off()
        return await answer

    def _take_off(self) -> None:
        while self._waiting and len(self._flights) < self._flights_max:
            count = min(len(self._waiting), self._batch_max)
            batch = [self._waiting.popleft() for _ in range(count)]
            flight = asyncio.create_task(self._fly(batch))
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._take_off()

    async def _fly(self, batch: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        wanted = [(question, answer) for question, answer in batch if not answer.done()]
        if not wanted:
            return  # all of them were cancelled while they waited
        try:
            answers = await self._ask([question for question, _ in wanted])
        except BaseException as error:
            for _, answer in wanted:
                if not answer.done():
                    answer.set_exception(for_each(error, stopping="ask again"))
            if not isinstance(error, Exception):
                raise
            return
        for (_, answer), found in zip(wanted, answers, strict=True):
            if not answer.done():
                answer.set_result(found)
