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
from chaos.fleet_suite import fleet_round
from chaos.fleet_world import fleet_world
from chaos.rounds import Round
from chaos.store_suite import store_round, store_world
from flotilla import Clock, SystemClock
from flotilla.testing.servers import open_folder

ROUND_MAX_S = 120.0
"""Whatever happens in a round, it ends."""
ROUNDS_MAX = 10_000
SEED_BELOW = 1_000_000
HELP = """Breaks real servers and processes under load, and checks what was promised.

  store   lanes, execute and group commit of two processes on one PostgreSQL: sessions terminated,
          statements cancelled, the postmaster killed (-9), backends and callers frozen
  fleet   every service in processes of its own, counters, relays and projectors twice, with
          PostgreSQL, NATS and links that can be cut: kill -9, SIGTERM, SIGSTOP, a broker that lost
          its data or has no room, connections reset, stalled, half-open, deaf, slow

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
RunRound = Callable[[World, int, str], Awaitable[Round]]
OpenWorld = Callable[[Path, Clock], AbstractAsyncContextManager[World]]
SUITES: dict[str, tuple[OpenWorld, RunRound]] = {
    "fleet": (fleet_world, fleet_round),
    "store": (store_world, store_round),
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
    parser.add_argument("--logs", type=Path, help="an empty folder that stays, with all logs")
    chosen = parser.parse_args(argv)
    if not 1 <= chosen.rounds <= ROUNDS_MAX:
        parser.error(f"--rounds {chosen.rounds}: write 1 to {ROUNDS_MAX}")
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
            console.print(report.reproduction(chosen.only, one), markup=False)
    console.print(report.summary(rounds, elapsed_s))
    options = {"rounds": chosen.rounds, "seed": chosen.seed}
    await report.keep(chosen.only, rounds, elapsed_s, options)
    return int(any(one.violations for one in rounds))


async def _rounds_in_one_world(
    chosen: argparse.Namespace, clock: Clock, done: int
) -> AsyncIterator[Round]:
    """Yield the rounds that are left, until one breaks a promise: what follows it gets a new world."""
    open_world, run_round = SUITES[chosen.only]
    with _folder(chosen.logs, done) as folder:
        async with open_world(folder, clock) as world:
            for number in range(done, chosen.rounds):
                async with asyncio.timeout(ROUND_MAX_S):
                    one = await run_round(world, chosen.seed + number, f"r{number}")
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
