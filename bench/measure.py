"""How a rate and a latency are measured: closed loops, open loops, percentiles, medians.

A closed loop has `callers` that each send their next command when the last one was answered: it
finds the maximum. An open loop sends on schedule, whether or not answers come back, and counts the
latency from the moment a command was *due*: it cannot hide a stall.
"""

import asyncio
import random
import statistics
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

MANY_STREAMS = 10_000
UNANSWERED_MAX = 20_000
"""An open loop stops sending here: the system does not keep up, and its latency says so."""

Ask = Callable[[int], Awaitable[None]]
"""Send one command to the aggregate of this number; return when it is durable."""

AggregateName = Literal["many", "hot"]


@dataclass(frozen=True, slots=True)
class Load:
    """How many callers there are, and whether they share one aggregate."""

    aggregates: AggregateName
    callers: int

    @property
    def name(self) -> str:
        """Return how figures call it: `many.32`."""
        return f"{self.aggregates}.{self.callers}"

    @property
    def streams(self) -> int:
        """Return over how many aggregates the commands are spread."""
        return MANY_STREAMS if self.aggregates == "many" else 1


@dataclass(frozen=True, slots=True)
class Sample:
    """What one stretch of one contender gave. Latencies are 0 where they were not taken."""

    per_s: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def percentile(sorted_values: Sequence[float], fraction: float) -> float:
    """Return the value below which `fraction` of the values are (nearest rank)."""
    if not sorted_values:
        return 0.0
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * fraction))]


def sample(latencies_s: array[float], elapsed_s: float) -> Sample:
    """Return the rate and the percentiles of what was measured."""
    ordered = sorted(latencies_s)
    return Sample(
        len(ordered) / elapsed_s,
        percentile(ordered, 0.50) * 1e3,
        percentile(ordered, 0.99) * 1e3,
    )


def median_of(samples: Sequence[Sample]) -> Sample:
    """Return the median of each number over the rounds."""
    return Sample(
        statistics.median(s.per_s for s in samples),
        statistics.median(s.p50_ms for s in samples),
        statistics.median(s.p99_ms for s in samples),
    )


async def closed_loop(asks: Sequence[Ask], load: Load, seconds: float) -> Sample:
    """Let each caller send commands one after the other; `asks` has one entry a caller, or one."""
    latencies_s: array[float] = array("d")
    start = perf_counter()
    end = start + seconds

    async def caller(number: int) -> None:
        ask = asks[number % len(asks)]
        chance = random.Random(number)  # noqa: S311 - which aggregate, not a secret
        while (sent := perf_counter()) < end:
            await ask(chance.randrange(load.streams))
            latencies_s.append(perf_counter() - sent)

    async with asyncio.TaskGroup() as group:
        for number in range(load.callers):
            group.create_task(caller(number))
    return sample(latencies_s, perf_counter() - start)


async def open_loop(ask: Ask, *, per_s: float, streams: int, seconds: float) -> Sample:
    """Send `per_s` commands a second at random moments (Poisson), and wait for all answers."""
    latencies_s: array[float] = array("d")
    chance = random.Random(0)  # noqa: S311 - arrivals, not secrets
    unanswered: set[asyncio.Task[None]] = set()

    async def one(due: float, stream: int) -> None:
        await ask(stream)
        latencies_s.append(perf_counter() - due)

    start = due = perf_counter()
    while due < start + seconds:
        if (early_s := due - perf_counter()) > 0:
            await asyncio.sleep(early_s)
        elif len(unanswered) >= UNANSWERED_MAX:
            break
        else:
            await asyncio.sleep(0)  # late: still let answers be taken
        task = asyncio.create_task(one(due, chance.randrange(streams)))
        unanswered.add(task)
        task.add_done_callback(unanswered.discard)
        due += chance.expovariate(per_s)
    await asyncio.gather(*unanswered)
    return sample(latencies_s, perf_counter() - start)


async def fill(asks: Sequence[Ask]) -> None:
    """Use every aggregate once, untimed, so that nobody is measured opening them."""
    numbers = iter(range(MANY_STREAMS))

    async def caller(ask: Ask) -> None:
        for number in numbers:
            await ask(number)

    async with asyncio.TaskGroup() as group:
        for ask in asks:
            group.create_task(caller(ask))


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process, in MiB (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has no resident memory: it ended")
