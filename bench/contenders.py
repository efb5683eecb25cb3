"""Everything that is compared, set up once, and in which order it runs."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import ours, peers
from bench.machine import CpuTicks
from bench.measure import (
    MANY_STREAMS,
    Load,
    Sample,
    closed_loop,
    fill,
    median_of,
    open_loop,
    rss_mb,
)
from bench.servers import Process, Servers, postgres_settings, run_constant, run_fleet

LOADS = tuple(Load(aggregates, n) for aggregates in ("many", "hot") for n in (8, 32))
MANY_32, HOT_32, ONE = Load("many", 32), Load("hot", 32), Load("hot", 1)
RATIOS_NEED = {
    MANY_32: {"pgbench", "eventsourcing", "eventsourcing_tuned", "ours", "ours_nats", "ours_http"},
    HOT_32: {"pgbench", "ours"},
}
"""What a short run (`--compare`) keeps of the comparison."""

Run = Callable[[Load, float], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of measuring: a contender under a load."""

    name: str
    load: Load
    run: Run


@dataclass(slots=True)
class World:
    """What runs, what has been measured, and what else is worth telling."""

    segments: list[Segment]
    settings: dict[str, str]
    fleet: Process
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    fleet_rss_start_mb: float = 0.0
    ours_rss_start_mb: float = 0.0
    cpu_start: CpuTicks = field(default_factory=CpuTicks.now)

    async def measure(self, segment: Segment, seconds: float) -> None:
        """Run one segment and keep what it gave."""
        sample = await segment.run(segment.load, seconds)
        self.samples.setdefault(f"{segment.load.name}.{segment.name}", []).append(sample)

    def begin(self) -> None:
        """Count memory and processor time from here on."""
        self.cpu_start = CpuTicks.now()
        self.fleet_rss_start_mb = rss_mb(self.fleet.pid)
        self.ours_rss_start_mb = rss_mb(os.getpid())

    def median(self, name: str) -> Sample:
        """Return the median over the rounds so far."""
        return median_of(self.samples[name])


@asynccontextmanager
async def contenders(servers: Servers, folder: Path, *, short: bool) -> AsyncIterator[World]:
    """Set everything up, every aggregate opened; yield what is to be run in each round."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(peers.CALLERS_MAX + 8))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        fleet = await enter(run_fleet(folder))
        constant = await enter(run_constant())
        local = await enter(ours.on_postgres(servers))
        service = await enter(ours.in_process(servers))
        nats = await enter(ours.over_nats(servers))
        http, same = ours.OverHttp(fleet.url), ours.OverHttp(constant.url)
        grouped = await enter(ours.on_libsql(folder, batch_units_max=256))
        single = await enter(ours.on_libsql(folder, batch_units_max=1))
        bare = await enter(peers.bare(servers))
        runs: dict[str, Run] = {
            "pgbench": (await enter(peers.pgbench(servers, folder))).run,
            "plain": partial(closed_loop, await enter(peers.plain(servers))),
            "eventsourcing": (await enter(peers.eventsourcing(servers, tuned=False))).run,
            "eventsourcing_tuned": (await enter(peers.eventsourcing(servers, tuned=True))).run,
            "ours": partial(closed_loop, [local]),
            "ours_service": partial(closed_loop, [service]),
            "ours_nats": partial(closed_loop, [nats]),
            "ours_http": http.run,
        }
        for ask in (local, service, nats, grouped, single):
            await fill([ask] * ours.FILLING_CALLERS)
        await http.fill()
        segments = [
            Segment(name, load, run)
            for load in LOADS
            for name, run in runs.items()
            if not short or name in RATIOS_NEED.get(load, ())
        ]
        world = World(segments, await postgres_settings(servers.dsn), fleet)

        async def half_load(_: Load, seconds: float) -> Sample:
            per_s = world.median("many.32.ours").per_s / 2
            return await open_loop(local, per_s=per_s, streams=MANY_STREAMS, seconds=seconds)

        segments += [
            Segment("http_constant", MANY_32, same.run),
            Segment("libsql_grouped", MANY_32, partial(closed_loop, [grouped])),
            Segment("libsql_single", MANY_32, partial(closed_loop, [single])),
            Segment("bare", ONE, partial(closed_loop, [bare])),
            Segment("half_load", MANY_32, half_load),
        ]
        yield world
