"""The command line: `python -m simulation` (see `make simulate`)."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from time import process_time
from typing import Any

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from simulation import schedules, workflows, world
from simulation.mutants import MUTANTS, RARE
from simulation.world import Run

WORLDS: Mapping[str, tuple[Callable[..., Run], Mapping[str, Any]]] = {
    "log": (world.run, {**MUTANTS, **RARE}),
    "workflows": (workflows.run, workflows.MUTANTS),
    "schedules": (schedules.run, schedules.MUTANTS),
}
"""What runs a seed of each kind of world, and which safeguards can be left out of it."""
CHUNK = 50
"""Seeds that a worker takes at once."""
EPILOG = """examples:
  python -m simulation --seeds 10000             seeds 0 to 9999; status 1 when one failed
  python -m simulation --seed 85 --trace         one of them again, every call of it
  python -m simulation --seed 3 --mutant no-fence --trace
  python -m simulation --world workflows --seeds 1000
"""


def quiet() -> None:
    """Log nothing: a world's trace says more."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.ReturnLoggerFactory(),
    )


def run_some(kind: str, seeds: Sequence[int], mutant: str | None) -> tuple[list[Run], float]:
    """Return how these worlds went, traces only of those that failed, and the CPU seconds."""
    quiet()
    began_s, runs = process_time(), list[Run]()
    run, mutants = WORLDS[kind]
    for seed in seeds:
        one = run(seed, **(mutants[mutant] if mutant else {}))
        one.trace = one.trace if one.error else []
        runs.append(one)
    return runs, process_time() - began_s


def run_many(seeds: range, chosen: argparse.Namespace, console: Console) -> int:
    """Run worlds in parallel; print what failed; return the exit status."""
    failed: list[Run] = []
    events, cpu_s = 0, 0.0
    with _progress(console) as bar, ProcessPoolExecutor(chosen.jobs) as pool:
        task = bar.add_task("worlds", total=len(seeds), failed=0, rate="")
        chunks = [seeds[n : n + CHUNK] for n in range(0, len(seeds), CHUNK)]
        for done in as_completed(
            [pool.submit(run_some, chosen.world, c, chosen.mutant) for c in chunks]
        ):
            runs, spent_s = done.result()
            failed += [one for one in runs if one.error]
            events, cpu_s = events + sum(one.events for one in runs), cpu_s + spent_s
            speed = bar.tasks[task].speed or 0.0
            bar.update(task, advance=len(runs), failed=len(failed), rate=f"{speed:.0f}/s")
    failed.sort(key=lambda one: one.seed)
    summary = {
        "seeds": len(seeds),
        "events": events,
        "cpu_s_per_1000": round(1000 * cpu_s / max(1, len(seeds)), 1),
        "failed": [{"seed": one.seed, "error": one.error} for one in failed],
    }
    if chosen.json:
        print(json.dumps(summary))  # noqa: T201 - this is the output
    else:
        for one in failed:
            again = replay(one.seed, chosen.mutant, world=chosen.world)
            print(f"seed {one.seed}: {one.error}\n  replay: {again}")  # noqa: T201 - this is the output
        print(  # noqa: T201 - this is the output
            f"{len(seeds)} worlds, {events} events, {len(failed)} failed,"
            f" {summary['cpu_s_per_1000']} CPU s per 1,000"
        )
    return 1 if failed else 0


def run_one(chosen: argparse.Namespace) -> int:
    """Run one world; print its trace if asked for; return the exit status."""
    quiet()
    run, mutants = WORLDS[chosen.world]
    one = run(chosen.seed, **(mutants[chosen.mutant] if chosen.mutant else {}))
    if chosen.json:
        print(json.dumps({**asdict(one), "trace": one.lines() if chosen.trace else []}))  # noqa: T201 - this is the output
    else:
        told = [*one.lines()] if chosen.trace else []
        told.append(f"seed {one.seed}: {one.error or 'all promises kept'}; {one.digest()[:16]}")
        print("\n".join(told))  # noqa: T201 - this is the output
    return 1 if one.error else 0


def replay(seed: int, mutant: str | None = None, *, world: str = "log") -> str:
    """Return the command that runs a world again and shows all of it."""
    kind = "" if world == "log" else f"--world {world} "
    leaving_out = f" --mutant {mutant}" if mutant else ""
    return f"python -m simulation {kind}--seed {seed} --trace{leaving_out}"


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}, failed {task.fields[failed]}, left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def main(argv: Sequence[str]) -> int:
    """Run; return the exit status (0 all promises kept, 1 one was broken)."""
    parser = argparse.ArgumentParser(
        "python -m simulation",
        description="Worlds in a storm, from seeds: of writers, relays and projectors, or of workflows.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--world", choices=WORLDS, default="log", help="of what; default log")
    parser.add_argument("--seeds", type=int, default=1000, help="how many; default 1000")
    parser.add_argument("--first", type=int, default=0, help="the first seed; default 0")
    parser.add_argument("--seed", type=int, help="only this one, here")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every call")
    known = [name for _, mutants in WORLDS.values() for name in mutants]
    parser.add_argument("--mutant", choices=known, help="leave a safeguard out")
    parser.add_argument("--jobs", type=int, default=2, help="processes; default 2")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    chosen = parser.parse_args(argv)
    if chosen.mutant and chosen.mutant not in WORLDS[chosen.world][1]:
        parser.error(f"a world of --world {chosen.world} has no safeguard {chosen.mutant!r}")
    if chosen.seed is not None:
        return run_one(chosen)
    seeds = range(chosen.first, chosen.first + chosen.seeds)
    return run_many(seeds, chosen, Console(stderr=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
