"""Workflows of three steps in a row, beside DBOS Transact and beside bare commits."""

import statistics
from pathlib import Path
from typing import Final

from bench.figures import Figures
from bench.measure import Sample
from bench.servers import Servers, announced
from bench.suite import Samples, Tell, medians
from bench.workflow_service import STEPS

SOME, MANY = 100, 1_000
"""Workflows in flight at once."""
LOADS = {"some": SOME, "many": MANY}
DBOS: Final = ("dbos_async", "dbos_threads")
ENGINES: Final = ("floor", "dbos_async", "ours", "dbos_threads")
"""In this order, so that ours runs beside each of DBOS's ways."""
MODERATE_SHARE = 0.5
"""Of what the faster DBOS ran in the same round with some in flight: all can take that."""

NOTE = (
    "three steps in a row, each asks a service that commits one effect under the step's key; all on "
    "one PostgreSQL that syncs each commit, each engine in a process of its own; some: 100 in flight, "
    "many: 1,000, moderate: begun on schedule at half of DBOS's rate; floor: asyncpg, a commit for the "
    "start and one a step; DBOS: async functions, or 64 threads (of many, the others wait for one); "
    "ratios: median over pairs of a round; ratio_to_dbos is the smallest, whichever way DBOS is run"
)


def stretches(rounds: int) -> int:
    """Return how often `measure` tells what it does."""
    return (len(LOADS) + 1) * len(ENGINES) * rounds


async def measure(servers: Servers, folder: Path, run: tuple[float, int], tell: Tell) -> Figures:
    """Measure everything, round after round; `run` is seconds of a stretch, and rounds."""
    del folder
    seconds, rounds = run
    samples: Samples = {}

    async def stretch(name: str, engine: str, in_flight: int, per_s: float, number: int) -> None:
        tell(f"round {number}: workflow {name} {engine}")
        dsn = await servers.database(f"workflow_{name}_{engine}_{number}")
        arguments = (engine, dsn, str(in_flight), str(per_s), str(seconds))
        async with announced("bench.workflow_engine", *arguments) as (taken, _):
            samples.setdefault(f"{name}.{engine}", []).append(Sample(**taken))

    for number in range(1, rounds + 1):
        for name, in_flight in LOADS.items():
            for engine in ENGINES:
                await stretch(name, engine, in_flight, 0, number)
        per_s = MODERATE_SHARE * max(samples[f"some.{way}"][-1].per_s for way in DBOS)
        for engine in ENGINES:
            await stretch("moderate", engine, 0, per_s, number)
    return figures_of(samples)


def figures_of(samples: Samples) -> Figures:
    """Return rates, times from start to finish, and ratios."""
    out: Figures = {}
    for name, taken in medians(samples).items():
        out[f"workflow.{name}_per_s"] = taken.per_s
        out[f"workflow.{name}_steps_per_s"] = taken.per_s * len(STEPS)
        out[f"workflow.{name}_p50_ms"] = taken.p50_ms
        out[f"workflow.{name}_p99_ms"] = taken.p99_ms
    for name in LOADS:
        for other in ("floor", *DBOS):
            out[f"workflow.{name}.ratio_to_{other}"] = ratio(samples, name, other)
    ratios = [out[f"workflow.{name}.ratio_to_{way}"] for name in LOADS for way in DBOS]
    return out | {"workflow.ratio_to_dbos": min(ratios)}


def ratio(samples: Samples, name: str, other: str) -> float:
    """Return the median over the rounds of how many times as many workflows ours ran."""
    pairs = zip(samples[f"{name}.ours"], samples[f"{name}.{other}"], strict=True)
    return statistics.median(ours.per_s / theirs.per_s for ours, theirs in pairs)
