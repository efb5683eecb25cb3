"""The command line: `python -m bench` (see `make bench`, `make bench-compare`)."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from types import ModuleType

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench import projector, relay, report, workflow
from bench.contenders import contenders
from bench.figures import FALL_MAX, Figures, figures_of
from bench.machine import CpuTicks, foreign_share
from bench.servers import DURABLE, NotDurableError, postgres_settings, run_servers
from flotilla.testing.servers import open_folder

ROUNDS_MIN = 3
SUITES: dict[str, ModuleType] = {"relay": relay, "projector": projector, "workflow": workflow}
"""What is measured beside the commands: modules with `NOTE`, `stretches` and `measure`."""
FOREIGN_CPU_SHARE_MAX = 0.10
"""Above it, a run says that it was disturbed: ratios to what uses other processors suffer, too."""
HELP = """Measures beside references and peers, on servers of its own (PostgreSQL and NATS
from wheels; nothing must run or be installed).

One command: load or remember the aggregate, decide, append with compare-and-set, an idempotency
record, an outbox row, durable. Everything is measured in the same run, one contender after the
other, round after round (A B C A B C ...); a figure is the median over the rounds. Machines differ
and are shared: trust ratios, not rates.

  pgbench        the reference: one prepared statement that writes the same rows, from C
  plain          asyncpg, a transaction of five statements, a connection a caller
  eventsourcing  the library, its Postgres recorder, a thread a caller; also tuned
  ours           svc-counter's use cases on the kernel, in this process; ours_service the service
                 with its bus, parsing and metrics; ours_nats over NATS (two connections);
                 ours_http over the BFF, as `flotilla up --topology single-postgres`

relay: a backlog of 200,000 events drained, beside a loop that only publishes the same batches; the
same on a nats-server that syncs every write, beside a window of `publish_async`; from a caller's answer
to the stream at 1,000 commands/s; what an idle relay costs.

projector: 200,000 events folded into the counter view, beside the plainest loop, the projection runner
of `eventsourcing` and a FastStream handler; from a caller's answer to the view at 1,000 commands/s.

workflow: three steps in a row, 100 and 1,000 workflows in flight, and begun on schedule; beside DBOS
Transact (async and threads) and a floor of bare commits, each in a process of its own.
"""
EPILOG = f"""examples:
  python -m bench                           everything, 5 s a stretch, 3 rounds (at 2 s: ten minutes)
  python -m bench --only commands --seconds 3
  python -m bench --save-baseline           and keep its ratios in bench/baseline.json
  python -m bench --compare --seconds 2     only ratios; status 1 when one fell too far ({FALL_MAX:.0%})

stdout: a table, then a line a figure: `figure <name> <value>`. Also written, but not with
--compare: bench/results/<suite>.json, .md and .svg. stderr: progress, when it is a terminal.
Ratios are taken at 32 callers. half_load: arrivals on schedule at half of ours' own maximum; its
p99 is divided by the median of a bare `select` and one-row commit of the same run.
"""


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "python -m bench",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", choices=["commands", *SUITES], help="what to measure; default all"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each stretch; default 5")
    parser.add_argument("--rounds", type=int, default=ROUNDS_MIN, help="at least 3; default 3")
    parser.add_argument(
        "--save-baseline", action="store_true", help="keep this run's ratios for --compare"
    )
    parser.add_argument(
        "--compare", action="store_true", help="measure what ratios need; judge by the baseline"
    )
    chosen = parser.parse_args(argv)
    if chosen.rounds < ROUNDS_MIN:
        parser.error(f"--rounds {chosen.rounds}: a median wants at least {ROUNDS_MIN}")
    if chosen.seconds < 1:
        parser.error(f"--seconds {chosen.seconds:g}: pgbench counts whole seconds, from 1")
    return chosen


async def run(chosen: argparse.Namespace, console: Console) -> int:
    """Measure, and report; return the exit status."""
    status = 0
    if chosen.compare or chosen.only in {None, "commands"}:
        status = await run_commands(chosen, console)
    for name, suite in SUITES.items():
        if not chosen.compare and chosen.only in {None, name}:
            await run_suite(name, suite, chosen, console)
    return status


async def run_suite(
    name: str, suite: ModuleType, chosen: argparse.Namespace, console: Console
) -> None:
    """Measure what is beside the commands, and report."""
    before = CpuTicks.now()
    with open_folder() as folder, _progress(console) as progress:
        task = progress.add_task("starting servers", total=None)
        async with run_servers(folder) as servers:
            settings = await postgres_settings(servers.dsn)
            progress.update(task, total=suite.stretches(chosen.rounds))

            def tell(what: str) -> None:
                progress.update(task, description=what, advance=1)

            figures = await suite.measure(servers, folder, (chosen.seconds, chosen.rounds), tell)
    figures["machine.foreign_cpu_share"] = foreign_share(before, CpuTicks.now())
    _doubt(figures, console)
    about = await report.metadata(settings, seconds=chosen.seconds, rounds=chosen.rounds)
    report.show_figures(figures)
    report.keep_suite(name, suite.NOTE, figures, about)


def _doubt(figures: Figures, console: Console) -> None:
    if (share := figures["machine.foreign_cpu_share"]) > FOREIGN_CPU_SHARE_MAX:
        console.print(f"others used {share:.0%} of this machine: do not trust this run")


async def run_commands(chosen: argparse.Namespace, console: Console) -> int:
    """Measure commands; return the exit status."""
    baseline: Figures = {}
    if chosen.compare:
        try:
            baseline = report.read_baseline()
        except FileNotFoundError:
            console.print(f"{report.BASELINE} is missing: make one with --save-baseline")
            return 2
    with open_folder() as folder, _progress(console) as progress:
        task = progress.add_task("starting servers, opening 10,000 aggregates each", total=None)
        async with (
            run_servers(folder) as servers,
            contenders(servers, folder, short=chosen.compare) as world,
        ):
            durable = ", ".join(f"{name} {value}" for name, value in DURABLE.items())
            console.print(f"PostgreSQL {world.settings['server_version']}: {durable} (checked)")
            progress.update(task, total=chosen.rounds * len(world.segments))
            world.begin()
            for number in range(1, chosen.rounds + 1):
                for segment in world.segments:
                    what = f"round {number}: {segment.load.name} {segment.name}"
                    progress.update(task, description=what)
                    await world.measure(segment, chosen.seconds)
                    progress.advance(task)
            figures = figures_of(world)
            _doubt(figures, console)
            about = await report.metadata(
                world.settings, seconds=chosen.seconds, rounds=chosen.rounds
            )
    if chosen.compare:
        return 0 if report.compare(figures, baseline) else 1
    report.show(figures)
    report.keep(figures, about, world)
    if chosen.save_baseline:
        report.save_baseline(figures, about)
    return 0


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def main(argv: Sequence[str]) -> int:
    """Run; return the exit status (0 done, 1 a ratio fell, 2 it could not be measured)."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    console = Console(stderr=True)
    try:
        return asyncio.run(run(arguments(argv), console))
    except NotDurableError as error:
        console.print(f"[red]{error}[/red]")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
