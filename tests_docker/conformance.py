"""Every topology side by side: is the day the same, how soon is it ready, how much does it do.

make conformance        writes docs/conformance.md, and the same table between two marks of README.md
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from time import perf_counter

import day
from containers import ComposeFleet, prepare
from fleet import TOPOLOGIES, Fleet, settled
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.http_client import Caller, connect
from bench.measure import Ask, Load, Sample, closed_loop, rss_mb
from flotilla.testing.servers import open_folder
from images.settings import ROOT

LOAD = Load("many", 32)
READ_STREAMS = 50
PAGE = ROOT / "docs" / "conformance.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- conformance -->", "<!-- /conformance -->"


@dataclass(frozen=True, slots=True)
class Row:
    """What was seen of one topology."""

    topology: str
    same: bool
    ready_s: float
    memory_mb: float
    posts: Sample
    gets: Sample

    def __str__(self) -> str:
        """Return it as a line of the table."""
        same = "the same" if self.same else "**different**"
        posts, gets = (f"{s.per_s:,.0f} | {s.p99_ms:.0f}" for s in (self.posts, self.gets))
        start = f"| `{self.topology}` | {same} | {self.ready_s:.1f} | {self.memory_mb:.0f}"
        return f"{start} | {posts} | {gets} |"


async def look(fleet: Fleet, seconds: float) -> Row:
    """Start a fleet, spend a day there, load it, stop it."""
    began_s = perf_counter()
    await fleet.start()
    ready_s = perf_counter() - began_s
    try:
        same = await day.spend(fleet, "conformance") == day.RECORDING.read_text()
        posts = await post(fleet, seconds)
        gets = await get(fleet, seconds)
        memory_mb = sum(rss_mb(pid) for pid in pids(fleet))
    finally:
        await fleet.stop()
    return Row(fleet.topology, same, ready_s, memory_mb, posts, gets)


def pids(fleet: Fleet) -> list[int]:
    """Return the processes of our services, without the servers."""
    runtime = fleet.runtime
    return [runtime["pid"]] * (not isinstance(fleet, ComposeFleet)) + [
        process["pid"] for process in runtime["processes"]
    ]


async def post(fleet: Fleet, seconds: float) -> Sample:
    """Increment counters, a caller one after the other."""
    connections = await connect(fleet.runtime["api"], LOAD.callers, count())
    try:
        asks: list[Ask] = [connection.increment for connection in connections]
        return await closed_loop(asks, LOAD, seconds)
    finally:
        for connection in connections:
            connection.close()


async def get(fleet: Fleet, seconds: float) -> Sample:
    """Read counters that were opened."""
    connections = await connect(fleet.runtime["api"], LOAD.callers, count(10**9))
    try:
        for number in range(READ_STREAMS):
            await connections[0].increment(number)
        await settled(fleet)
        asks = [partial(read, connection) for connection in connections]
        return await closed_loop(asks, LOAD, seconds)
    finally:
        for connection in connections:
            connection.close()


async def read(connection: Caller, number: int) -> None:
    """Read one of the first counters."""
    await connection.read(number % READ_STREAMS)


def fleets(folder: Path) -> list[Fleet]:
    """Return a fleet of each topology that runs on one machine."""
    return [Fleet(name, folder / name) for name in TOPOLOGIES] + [
        ComposeFleet(folder / "compose", prepare())
    ]


def table(rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    return "\n".join(
        [
            "| topology | a day | ready after s | memory MB | POST/s | p99 ms | GET/s | p99 ms |",
            "|---|---|---|---|---|---|---|---|",
            *map(str, rows),
        ]
    )


def write(rows: Sequence[Row]) -> None:
    """Write the page, and the table into the README."""
    found = table(rows)
    PAGE.write_text(
        "# Conformance: the same fleet in every topology\n\n"
        "Written by `make conformance`. *A day* is [tests/day.py](../tests/day.py): answers, what is "
        "shown and what is on the stream, compared\nwith one recording to the byte; `make test` and "
        "`make test-docker` hold that, and all other behaviour, in each of them.\n"
        f"Load: {LOAD.callers} callers, one request each at a time; commands go to {LOAD.streams} "
        f"counters, reads to {READ_STREAMS}.\nMemory is of our processes, without the servers.\n\n"
        f"{found}\n\n"
        f"flotilla {version('flotilla')}, Python {sys.version.split()[0]}, {os.cpu_count()} processors; "
        "callers, servers and services share them.\n",
        encoding="utf-8",
    )
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n{found}\n{END}{after}", encoding="utf-8")


async def measure(seconds: float) -> list[Row]:
    """Look at every topology, one after the other."""
    rows: list[Row] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with open_folder() as folder, Progress(*columns, console=Console(stderr=True)) as progress:
        every = fleets(folder)
        task = progress.add_task("topologies", total=len(every))
        for fleet in every:
            progress.update(task, description=fleet.topology)
            fleet.data.parent.mkdir(parents=True, exist_ok=True)
            fleet.data.parent.chmod(0o755)
            rows.append(await look(fleet, seconds))
            progress.advance(task)
    return rows


def main() -> int:
    """Measure and write; return 1 when a day was different somewhere."""
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each load lasts")
    rows = asyncio.run(measure(parser.parse_args().seconds))
    write(rows)
    sys.stdout.write(table(rows) + "\n")
    return 0 if all(row.same for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
