"""From a caller's answer to where its event is seen: on the stream, or in a view."""

import asyncio
import random
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter

from bench.measure import UNANSWERED_MAX, Sample, sample
from bench.ours import use_cases
from flotilla.bus import Context, Request
from flotilla.doorbell import Doorbell
from flotilla.nats import connected
from flotilla.outbox import START
from flotilla.stores.postgres import PostgresStore
from flotilla_contracts.counter import IncrementCounter
from flotilla_contracts.wire import doorbell_subject
from svc_counter.application import Counters
from svc_projector.log_reader import LogReader

STREAMS = 1_000
SETTLE_TIMEOUT_S = 30.0

Seen = Callable[[str, int], None]
"""Tell that an event, by its stream and version, is where it should get to."""


@dataclass(slots=True)
class Commits:
    """Commits on schedule, and the times from each answer until its event was seen."""

    counters: Counters
    keys: "count[int]" = field(default_factory=count)
    answered: dict[tuple[str, int], float] = field(default_factory=dict)
    early: set[tuple[str, int]] = field(default_factory=set)
    latencies_s: array[float] = field(default_factory=lambda: array("d"))

    def seen(self, stream: str, version: int) -> None:
        """Take the time of one event. One that is seen before its caller was answered took none."""
        answered = self.answered.pop((stream, version), None)
        if answered is None:
            self.early.add((stream, version))
        else:
            self.latencies_s.append(perf_counter() - answered)

    async def run(self, *, per_s: float, seconds: float) -> Sample:
        """Commit `per_s` commands a second at random moments; wait until all are seen."""
        chance = random.Random(0)  # noqa: S311 - arrivals, not secrets
        under_way: set[asyncio.Task[None]] = set()
        start = due = perf_counter()
        sent = 0
        while due < start + seconds and len(under_way) < UNANSWERED_MAX:
            await asyncio.sleep(max(0.0, due - perf_counter()))
            task = asyncio.create_task(self._one(chance.randrange(STREAMS)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            sent += 1
            due += chance.expovariate(per_s)
        elapsed_s = perf_counter() - start
        await asyncio.gather(*under_way)
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while self.answered:  # noqa: ASYNC110 - `seen` is called from elsewhere, and often
                await asyncio.sleep(0.01)
        taken = sample(self.latencies_s, elapsed_s)
        return Sample(sent / elapsed_s, taken.p50_ms, taken.p99_ms)

    async def _one(self, number: int) -> None:
        command = IncrementCounter(counter_id=f"c{number}", by=1)
        context = Context("acme", "bench", idempotency_key=f"k{next(self.keys)}")
        answer = await self.counters.answer(command, Request(command.subject, b"", context))
        event = (f"acme/counter/c{number}", answer.version or 0)
        if event in self.early:
            self.early.discard(event)
            self.latencies_s.append(0.0)
        else:
            self.answered[event] = perf_counter()


@asynccontextmanager
async def committing(dsn: str, log: str, nats_url: str) -> AsyncIterator[Commits]:
    """Run svc-counter's use cases under the name of `log`, with its doorbell."""
    async with (
        PostgresStore.open(dsn, service=log) as store,
        connected(nats_url, name="bench") as nats,
    ):
        bell = Doorbell(nats, doorbell_subject(log))
        async with use_cases(
            store, flights_max=store.flights_max, on_commit=lambda _: bell.ring()
        ) as counters:
            yield Commits(counters)


@asynccontextmanager
async def arrivals(nats_url: str, log: str, seen: Seen) -> AsyncIterator[None]:
    """Read the stream of `log` while the block runs."""

    async def read() -> None:
        async with connected(nats_url, name="bench-reader") as nats:
            reader = LogReader(nats, log, batch_events_max=500)
            async with aclosing(reader.batches(after=START)) as batches:
                async for batch in batches:
                    for event in batch:
                        seen(event.stream, event.version)

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        reading.cancel()
        await asyncio.wait([reading])
