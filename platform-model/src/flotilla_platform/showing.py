"""How results look to people: tables with colours on a terminal, plain lines everywhere else."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from flotilla_platform.doctor import Check, Diagnosis
from flotilla_platform.model import Topology
from flotilla_platform.runtime import Runtime
from flotilla_platform.status import Status

_PLAIN_WIDTH = 200
"""Where there is no terminal there is nobody to wrap lines for."""


def make_console() -> Console:
    """Return the console on stdout; NO_COLOR is respected by rich itself."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def show_runtime(runtime: Runtime) -> RenderableType:
    """Return where everything of a fleet is that has just come up."""
    lines = Table.grid(padding=(0, 2))
    places = {
        "API": runtime.api,
        "docs": runtime.docs,
        "data": runtime.data,
        "broker": runtime.nats_url,
    }
    for name, place in places.items():
        if place is not None:
            lines.add_row(f"  {name}", Text(place, style="cyan", overflow="fold"))
    headline = Text.assemble(
        ("flotilla is up", "bold green"), f": topology {runtime.topology}, process {runtime.pid}"
    )
    return Group(headline, lines, Text("Ctrl-C stops it.", style="dim"))


def show_status(status: Status) -> RenderableType:
    """Return the tables of `flotilla status`."""
    head = Text(f"topology {status.topology}, process {status.pid}, data {status.data}")
    broker = Text(f"broker {status.broker}: ").append(
        *(("reachable", "green") if status.broker_reachable else ("unreachable", "red"))
    )
    logs = _table("log", "committed", "offset", "waiting", "oldest waiting s", "stream sequence")
    for log in status.logs:
        sequence = log.stream_last_sequence
        logs.add_row(
            log.log,
            str(log.committed),
            str(log.offset),
            str(log.waiting),
            _seconds(log.oldest_waiting_s, status.lag_max_s),
            "unreachable" if sequence is None else str(sequence),
        )
    projections = _table("projection", "log", "checkpoint", "lag events", "lag s")
    for row in status.projections:
        projections.add_row(
            row.projection,
            row.log,
            str(row.checkpoint),
            "?" if row.lag_events is None else str(row.lag_events),
            _seconds(row.lag_s, status.lag_max_s),
        )
    verdict = (
        Text("healthy", style="green")
        if status.healthy
        else Text("\n".join(f"✗ {problem}" for problem in status.problems), style="red")
    )
    parts: list[RenderableType] = [head, broker, logs]
    parts += [projections] if status.projections else [Text("no projection has begun")]
    return Group(*parts, verdict)


def show_diagnosis(diagnosis: Diagnosis) -> RenderableType:
    """Return the table of `flotilla doctor`."""
    table = _table("", "check", "found", "cure")
    for check in diagnosis.checks:
        table.add_row(_mark(check), check.name, check.found, "" if check.ok else check.cure)
    verdict = (
        Text("This machine can run a fleet.", style="green")
        if diagnosis.healthy
        else Text("Cure what is marked ✗, then run `flotilla doctor` again.", style="red")
    )
    return Group(table, verdict)


def show_topologies(topologies: Sequence[Topology], default: str) -> RenderableType:
    """Return the table of `flotilla topologies`."""
    table = _table("topology", "kind", "store", "bus", "services", "summary")
    for topology in topologies:
        name = f"{topology.name} (default)" if topology.name == default else topology.name
        table.add_row(
            name,
            topology.kind,
            topology.resources.store.engine,
            topology.resources.bus.engine,
            ", ".join(topology.services),
            topology.summary,
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _mark(check: Check) -> Text:
    if check.ok:
        return Text("✓", style="green")
    return Text("✗", style="red") if check.required else Text("!", style="yellow")


def _seconds(value: float | None, limit: float) -> Text:
    if value is None:
        return Text("?")
    return Text(f"{value:.1f}", style="red" if value > limit else "")
