"""How results look to people: tables with colours on a terminal, plain lines everywhere else."""

from __future__ import (
    annotations,
)  # results are known by type only: who shows one need not import all

import json
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flotilla_platform.doctor import Check, Diagnosis
    from flotilla_platform.history import Changes, History, Standing
    from flotilla_platform.model import Layout
    from flotilla_platform.runtime import Runtime
    from flotilla_platform.status import Status

_PLAIN_WIDTH = 200
"""Where there is no terminal there is nobody to wrap lines for."""
_DATA_CHARACTERS_MAX = 72
"""How much of a payload a line shows; --json shows all of it."""


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
    processes = table_of("process", "state", "pid", "restarts", "last exit", "admin pages")
    for process in status.processes:
        processes.add_row(
            process.name,
            Text(process.state, style="" if process.state == "running" else "red"),
            str(process.pid or ""),
            str(process.restarts),
            "" if process.last_exit is None else str(process.last_exit),
            process.admin or "",
        )
    logs = table_of("log", "committed", "offset", "waiting", "oldest waiting s", "stream sequence")
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
    projections = table_of("projection", "log", "checkpoint", "lag events", "lag s", "parked")
    for row in status.projections:
        projections.add_row(
            row.projection,
            row.log,
            str(row.checkpoint),
            "?" if row.lag_events is None else str(row.lag_events),
            _seconds(row.lag_s, status.lag_max_s),
            Text(str(row.parked_events), style="red" if row.parked_events else ""),
        )
    verdict = (
        Text("healthy", style="green")
        if status.healthy
        else Text("\n".join(f"✗ {problem}" for problem in status.problems), style="red")
    )
    parts: list[RenderableType] = [head, broker, *([processes] if status.processes else []), logs]
    parts += [projections] if status.projections else [Text("no projection has begun")]
    return Group(*parts, verdict)


def show_diagnosis(diagnosis: Diagnosis) -> RenderableType:
    """Return the table of `flotilla doctor`."""
    table = table_of("", "check", "found", "cure")
    for check in diagnosis.checks:
        table.add_row(_mark(check), check.name, check.found, "" if check.ok else check.cure)
    verdict = (
        Text("This machine can run a fleet.", style="green")
        if diagnosis.healthy
        else Text("Cure what is marked ✗, then run `flotilla doctor` again.", style="red")
    )
    return Group(table, verdict)


def show_history(history: History) -> RenderableType:
    """Return the tables of `flotilla events`; where the stream stood is told at the end."""
    table = table_of("version", "recorded at", "type", "data", "correlation")
    for row in history.events:
        table.add_row(
            str(row.version),
            row.recorded_at.isoformat(timespec="milliseconds"),
            plain(row.type),
            plain(shortened(row.data)),
            plain(row.correlation or ""),
        )
    parts: list[RenderableType] = [table] if history.events else [Text("no events")]
    if history.more and history.events:
        last = history.events[-1].version
        parts.append(Text(f"{history.more} more: go on with --after {last}", style="dim"))
    if history.changes:
        parts += _show_changes(history.changes)
    if history.standing:
        parts.append(_show_standing(history.standing))
    return Group(*parts)


def _show_changes(changes: Changes) -> list[RenderableType]:
    span = f"versions {changes.from_version} to {changes.to_version}"
    if not changes.fields:
        return [Text(f"no field is carried by several of the events of {span}")]
    table = table_of("field", "events", "first", "", "last", "")
    for change in changes.fields:
        table.add_row(
            plain(change.field),
            str(change.events),
            plain(shortened(change.first)),
            Text(f"@{change.first_version}", style="dim"),
            plain(shortened(change.last)),
            Text(f"@{change.last_version}", style="dim"),
        )
    return [Text(f"what {span} did to fields that several events carry"), table]


def _show_standing(standing: Standing) -> Text:
    now = f"it stands at {standing.head} now"
    if standing.at is None:
        return plain(f"{standing.stream} had no events yet; {now}")
    return plain(
        f"{standing.stream} stood at version {standing.version}: its last event then was "
        f"{standing.type}, recorded at {standing.at.isoformat()}; {now}"
    )


def shortened(value: Any, *, characters_max: int = _DATA_CHARACTERS_MAX) -> str:
    """Return a value as JSON on one line, cut where it becomes long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= characters_max else f"{text[: characters_max - 1]}…"


def plain(text: str) -> Text:
    """Return what others wrote as text that steers no terminal and is no markup."""
    return Text("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


def show_topologies(layouts: Sequence[Layout], default: str) -> RenderableType:
    """Return the table of `flotilla topologies`."""
    table = table_of("topology", "kind", "store", "bus", "services", "summary")
    for layout in layouts:
        name = f"{layout.name} (default)" if layout.name == default else layout.name
        table.add_row(
            name,
            layout.kind,
            layout.resources.store.engine,
            layout.resources.bus.engine,
            ", ".join(layout.services),
            layout.summary,
        )
    return table


def describe_topology(layout: Layout) -> dict[str, Any]:
    """Return a topology as `flotilla topologies --json` has it."""
    bound = {"store": layout.resources.store, "bus": layout.resources.bus}
    return {
        "name": layout.name,
        "summary": layout.summary,
        "kind": layout.kind,
        "resources": {
            key: {"engine": resource.engine, "server": resource.server}
            for key, resource in bound.items()
        },
        "deployables": [
            {"name": one.name, "services": one.services, "replicas": one.replicas}
            for one in layout.deployables
        ],
    }


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON document on one line, as all commands do for programs."""
    typer.echo(json.dumps(content, ensure_ascii=False, separators=(",", ":")))


def table_of(*columns: str) -> Table:
    """Return an empty table in the house style."""
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
