"""The command line: `python -m chaos` (see `make chaos`)."""

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import structlog
from rich.live import Live

from chaos import report
from chaos.faults import FAULTS_MAX, FREEZE_MAX_S, SECONDS_MIN
from chaos.fleet_suite import fleet_round
from chaos.history import History
from chaos.many_processes import many_processes
from chaos.one_process import one_process
from chaos.rounds import Round
from chaos.store_suite import store_round, store_world
from chaos.workflow_suite import workflow_round, workflow_world
from flotilla import Clock, SystemClock
from flotilla.testing.servers import open_folder

log = structlog.get_logger()

ROUND_MAX_S = 120.0
"""Whatever happens in a round, it ends."""
ROUNDS_MAX = 10_000
FREEZE_LIMIT_S = 60.0
SEED_BELOW = 1_000_000
HELP = """Breaks real servers and processes under load, and checks what was promised.

  store   lanes, execute and group commit of two processes on one PostgreSQL: sessions terminated,
          statements cancelled, the postmaster killed (-9), backends and callers frozen
  fleet   every service in processes of its own, counters, relays and projectors twice, with
          PostgreSQL, NATS and links that can be cut: kill -9, SIGTERM, SIGSTOP, a broker that lost
          its data or has no room, connections reset, stalled, half-open, deaf, slow
  single, single-postgres
          the same for `flotilla up` with that topology: one process and its servers
  workflow
          two processes that move workflows over counters; one of them is killed (-9) at a step: before
          it is asked for, while it is, after it was answered; forward and while it is taken back

A round is 1 to 3 faults; everything about them follows from its seed. Afterwards everything has to be
well within 15 s by itself, and all checkers look at all that callers were told. Loopback only.
"""
EPILOG = """examples:
  python -m chaos --rounds 30                       the fleet; seeds are printed
  python -m chaos --only store --rounds 50
  python -m chaos --only fleet --seed 4711 --rounds 1   that round's faults again

The table is on stdout, results are in chaos/results/<suite>.json and .md. Exit status 1: a promise
was broken; what is needed to see it again is printed.
"""

World = Any
RunRound = Callable[[World, int, str, float], Awaitable[Round]]
"""A world, a seed, the name of the round, and how long a process is frozen at most, in seconds."""
OpenWorld = Callable[[Path, Clock], AbstractAsyncContextManager[World]]
SUITES: dict[str, tuple[OpenWorld, RunRound]] = {
    "fleet": (many_processes, fleet_round),
    "single": (one_process("single"), fleet_round),
    "single-postgres": (one_process("single-postgres"), fleet_round),
    "store": (store_world, store_round),
    "workflow": (workflow_world, workflow_round),
}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "python -m chaos",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=list(SUITES), default="fleet", help="which suite")
    parser.add_argument("--rounds", type=int, default=30, help="how many; default 30")
    parser.add_argument("--seed", type=int, help="of the first round; the next one has the next")
    parser.add_argument(
        "--freeze-max-s",
        type=float,
        default=FREEZE_MAX_S,
        help=f"how long a process is frozen at most (links: 0.4 of it); default {FREEZE_MAX_S:g}",
    )
    parser.add_argument("--logs", type=Path, help="an empty folder that stays, with all logs")
    chosen = parser.parse_args(argv)
    if not 1 <= chosen.rounds <= ROUNDS_MAX:
        parser.error(f"--rounds {chosen.rounds}: write 1 to {ROUNDS_MAX}")
    if not SECONDS_MIN <= chosen.freeze_max_s <= FREEZE_LIMIT_S:
        parser.error(
            f"--freeze-max-s {chosen.freeze_max_s:g}: write {SECONDS_MIN} to {FREEZE_LIMIT_S:g}"
        )
    if chosen.logs and chosen.logs.exists() and any(chosen.logs.iterdir()):
        parser.error(f"--logs {chosen.logs}: it is not empty; name a folder of its own")
    if chosen.seed is None:
        chosen.seed = random.SystemRandom().randrange(SEED_BELOW)
    return chosen


async def run(chosen: argparse.Namespace) -> int:
    """Run all rounds, and report; return the exit status."""
    clock, rounds = SystemClock(), list[Round]()
    started_s, console = clock.monotonic_s(), report.console()
    table = report.new_table(chosen.only)
    with Live(table, console=console, refresh_per_second=2):
        while len(rounds) < chosen.rounds:
            async for one in _rounds_in_one_world(chosen, clock, len(rounds)):
                rounds.append(one)
                report.add(table, one)
                if not console.is_terminal:
                    sys.stderr.write(f"{len(rounds)}/{chosen.rounds} {report.line(one)}\n")
    elapsed_s = clock.monotonic_s() - started_s
    for one in rounds:
        if one.violations:
            again = report.reproduction(chosen.only, one, chosen.freeze_max_s)
            console.print(again, markup=False, soft_wrap=True)
    console.print(report.summary(rounds, elapsed_s))
    options = {key: getattr(chosen, key) for key in ("rounds", "seed", "freeze_max_s")}
    await report.keep(chosen.only, rounds, elapsed_s, options)
    return int(any(one.violations for one in rounds))


async def _rounds_in_one_world(
    chosen: argparse.Namespace, clock: Clock, done: int
) -> AsyncIterator[Round]:
    """Yield the rounds that are left, until one breaks a promise: what follows it gets a new world."""
    open_world, run_round = SUITES[chosen.only]
    limit_s = ROUND_MAX_S + FAULTS_MAX * chosen.freeze_max_s
    with _folder(chosen.logs, done) as folder:
        async with open_world(folder, clock) as world:
            for number in range(done, chosen.rounds):
                seed, name = chosen.seed + number, f"r{number}"
                try:
                    async with asyncio.timeout(limit_s):
                        one = await run_round(world, seed, name, chosen.freeze_max_s)
                except Exception as error:
                    log.exception("chaos.round_failed", seed=seed)
                    one = Round.of(seed, [], History(), 0, [f"it could not be run: {error!r}"])
                yield one
                if one.violations:
                    return


@contextmanager
def _folder(kept: Path | None, number: int) -> Iterator[Path]:
    """Lend a folder for the servers' data, which stays when it was asked for."""
    if kept is None:
        with open_folder() as folder:
            yield folder
        return
    folder = kept.resolve() / f"from-round-{number}"
    folder.mkdir(parents=True)
    yield folder


def main(argv: Sequence[str]) -> int:
    """Run; return the exit status (0 kept, 1 a promise was broken)."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    return asyncio.run(run(arguments(argv)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
