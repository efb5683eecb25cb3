"""What is left of a run: lines and a table on stdout; JSON, Markdown and a plot in bench/results."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from platform import platform, python_version

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.contenders import LOADS, World
from bench.figures import Figures, change, has_fallen, ratios
from flotilla import SystemClock

HERE = Path(__file__).parent
RESULTS = HERE / "results"
BASELINE = HERE / "baseline.json"
LIBRARIES = (
    *("asyncpg", "dbos", "eventsourcing", "faststream"),
    *("granian", "libsql", "litestar", "nats-py"),
)
CONTENDERS = {
    "pgbench": ("pgbench, one statement (reference)", "#9aa0a6"),
    "plain": ("asyncpg, transaction of 5 statements", "#c9a227"),
    "eventsourcing": ("eventsourcing", "#c0504d"),
    "eventsourcing_tuned": ("eventsourcing, tuned", "#e39a8b"),
    "ours": ("Flotilla, kernel in process", "#163a5f"),
    "ours_service": ("Flotilla, service in process", "#2a5a8f"),
    "ours_nats": ("Flotilla, over NATS", "#3f7fbf"),
    "ours_http": ("Flotilla, over HTTP (whole fleet)", "#93bfe6"),
}
"""What is shown, in this order: label and colour."""
WIDTH = 130
"""Of tables, where there is no terminal."""
TITLES = {"many": "10,000 aggregates", "hot": "one hot aggregate"}
NOTE = (
    "load or remember, decide, append with compare-and-set, idempotency record, outbox row, durable; "
    "medians, commands/s (eventsourcing keeps no idempotency record)"
)


async def metadata(
    settings: Mapping[str, str], *, seconds: float, rounds: int
) -> dict[str, object]:
    """Return what one must know to judge the figures."""
    taken_at = SystemClock().now().isoformat(timespec="seconds")
    return {
        "taken_at": taken_at,
        "git_commit": await _output("git", "-C", str(HERE), "describe", "--always", "--dirty"),
        "machine": {"platform": platform(), "cores": os.cpu_count()},
        "run": {"seconds": seconds, "rounds": rounds, "value": "median over the rounds"},
        "versions": {
            "python": python_version(),
            "postgres": settings["server_version"],
            "nats-server": await _output("nats-server", "--version"),
            **{name: version(name) for name in LIBRARIES},
        },
        "postgres_settings": dict(settings),
    }


async def _output(program: str, *arguments: str) -> str:
    """Return what a program prints; `unknown` when it is not there."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
    found = shutil.which(program, path=path)
    if found is None:
        return "unknown"
    process = await asyncio.create_subprocess_exec(
        found, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return output.decode().strip() or "unknown"


def keep(figures: Figures, about: Mapping[str, object], world: World) -> None:
    """Write commands.json, commands.md and commands.svg."""
    RESULTS.mkdir(exist_ok=True)
    rounds = {
        name: [
            {"per_s": round(s.per_s, 1), "p50_ms": round(s.p50_ms, 2), "p99_ms": round(s.p99_ms, 2)}
            for s in taken
        ]
        for name, taken in world.samples.items()
    }
    rounded = {name: round(value, 3) for name, value in figures.items()}
    document = {"figures": rounded, **about, "rounds": rounds}
    (RESULTS / "commands.json").write_text(json.dumps(document, indent=2) + "\n")
    (RESULTS / "commands.md").write_text(markdown(figures, about))
    plot(figures, RESULTS / "commands.svg")


def rows(figures: Figures) -> list[list[str]]:
    """Return the comparison: a row a contender, a column a load."""
    return [
        [label, *(_rate(figures.get(f"commands.{load.name}.{name}_per_s")) for load in LOADS)]
        for name, (label, _) in CONTENDERS.items()
    ]


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _headings() -> list[str]:
    return ["commands/s", *(f"{TITLES[ld.aggregates]}, {ld.callers} callers" for ld in LOADS)]


def _rest(figures: Figures) -> Figures:
    """Return what the comparison does not show."""
    shown = {f"commands.{load.name}.{name}_per_s" for load in LOADS for name in CONTENDERS}
    return {name: value for name, value in figures.items() if name not in shown}


def markdown(figures: Figures, about: Mapping[str, object]) -> str:
    """Return the same as the table on the screen, as a page."""
    lines = ["# Commands", "", f"One command: {NOTE}.", ""]
    lines += _markdown_table([_headings(), *rows(figures)])
    rest = [[f"`{name}`", f"{value:,.2f}"] for name, value in _rest(figures).items()]
    lines += ["", *_markdown_table([["figure", "value"], *rest]), "", "```json"]
    lines += [json.dumps(about, indent=2), "```", ""]
    return "\n".join(lines)


def _markdown_table(table: Sequence[Sequence[str]]) -> list[str]:
    head, *body = (f"| {' | '.join(cells)} |" for cells in table)
    return [head, f"|---{'|---:' * (len(table[0]) - 1)}|", *body]


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def show(figures: Figures) -> None:
    """Print the table, then one line a figure."""
    table = Table(title="commands/s, medians", title_justify="left")
    for number, heading in enumerate(_headings()):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows(figures):
        table.add_row(*row)
    _console().print(table)
    show_figures(figures)


def show_figures(figures: Figures) -> None:
    """Print a line a figure."""
    for name, value in figures.items():
        sys.stdout.write(f"figure {name} {value:.3f}\n")


def keep_suite(name: str, note: str, figures: Figures, about: Mapping[str, object]) -> None:
    """Write <name>.json, .md and .svg of a suite beside the commands."""
    RESULTS.mkdir(exist_ok=True)
    rounded = {figure: round(value, 3) for figure, value in figures.items()}
    (RESULTS / f"{name}.json").write_text(
        json.dumps({"figures": rounded, **about}, indent=2) + "\n"
    )
    body = [[f"`{figure}`", f"{value:,.2f}"] for figure, value in figures.items()]
    lines = [f"# {name.capitalize()}", "", f"Medians. {note}.", ""]
    lines += [*_markdown_table([["figure", "value"], *body]), "", "```json"]
    (RESULTS / f"{name}.md").write_text("\n".join([*lines, json.dumps(about, indent=2), "```", ""]))
    rates = {figure: value for figure, value in figures.items() if figure.endswith("_per_s")}
    picture = Figure(figsize=(10, 1 + 0.5 * len(rates)), layout="constrained")
    axes = picture.subplots()
    bars = axes.barh(list(rates), list(rates.values()), color="#163a5f")
    axes.bar_label(
        bars, labels=[f"{value:,.0f}" for value in rates.values()], fontsize=8, padding=2
    )
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    picture.suptitle(note, fontsize=7, x=0.01, ha="left")
    picture.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})


def plot(figures: Figures, to: Path) -> None:
    """Draw the comparison: one panel for many aggregates, one for a hot one."""
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    for axes, aggregates in zip(figure.subplots(2, 1), TITLES, strict=True):
        _panel(axes, figures, aggregates)
    figure.axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.suptitle(NOTE, fontsize=8, x=0.01, ha="left")
    figure.savefig(to, metadata={"Date": None})


def _panel(axes: Axes, figures: Figures, aggregates: str) -> None:
    width = 0.9 / len(CONTENDERS)
    loads = [load for load in LOADS if load.aggregates == aggregates]
    for place, (name, (label, colour)) in enumerate(CONTENDERS.items()):
        values = [figures.get(f"commands.{load.name}.{name}_per_s", 0.0) for load in loads]
        at = [group + (place - (len(CONTENDERS) - 1) / 2) * width for group in range(len(loads))]
        bars = axes.bar(at, values, width * 0.94, label=label, color=colour)
        axes.bar_label(bars, labels=[f"{value:,.0f}" for value in values], fontsize=8, padding=2)
    axes.set_title(TITLES[aggregates], loc="left", fontsize=11)
    axes.set_xticks(range(len(loads)), [f"{load.callers} concurrent callers" for load in loads])
    axes.set_ylabel("commands/s")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def save_baseline(figures: Figures, about: Mapping[str, object]) -> None:
    """Make this run's ratios what later runs are held to."""
    document = {"ratios": {n: round(v, 3) for n, v in ratios(figures).items()}, **about}
    BASELINE.write_text(json.dumps(document, indent=2) + "\n")


def read_baseline() -> Figures:
    """Return the ratios to be held to.

    Raises:
        FileNotFoundError: there is no baseline yet.

    """
    kept: Figures = json.loads(BASELINE.read_text())["ratios"]
    return kept


def compare(figures: Figures, baseline: Figures) -> bool:
    """Print how the ratios moved; return whether none fell too far."""
    table = Table(title="ratios, beside the baseline", title_justify="left")
    for heading in ("ratio", "baseline", "now", "better by", ""):
        table.add_column(heading, justify="left" if heading in {"ratio", ""} else "right")
    fallen = 0
    for name, before in baseline.items():
        now = figures[name]
        bad = has_fallen(name, now, before)
        fallen += bad
        moved = f"{change(name, now, before):+.0%}"
        table.add_row(
            name, f"{before:.2f}", f"{now:.2f}", moved, "[red]fell[/red]" if bad else "ok"
        )
    _console().print(table)
    return not fallen
