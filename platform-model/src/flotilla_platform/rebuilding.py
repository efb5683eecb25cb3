"""The command `flotilla rebuild`: a read model made again beside the live one, compared, and swapped."""

import asyncio
import json as jsons
from collections.abc import Callable, Coroutine
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from flotilla import telemetry
from flotilla.clock import Clock, SystemClock
from flotilla.partition import Partitioned
from flotilla.rebuild import Rebuild, Rebuilt
from flotilla.shadow import Comparison, Difference, Swapped
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.folding import Opened, find_projection, opened
from flotilla_platform.options import (
    TOPOLOGY,
    CancelOption,
    CheckOption,
    DataOption,
    DebugOption,
    DiscardOption,
    ForgetOldOption,
    JsonLinesOption,
    PartitionsOption,
    ProjectionArgument,
    RollbackOption,
    SourceOption,
    TopologyOption,
    data_directory,
)
from flotilla_platform.progress import reporting
from flotilla_platform.runtime import find_running
from flotilla_platform.showing import make_console, plain, shortened

REBUILD_EXAMPLES = (
    "flotilla rebuild counters                  build, compare, swap; again after Ctrl-C: goes on",
    "flotilla rebuild counters --check          is the live view what the log says?",
    "flotilla rebuild counters --rollback       back to the view before the last swap",
    "flotilla rebuild counters --partitions 4   and fold it in four parts from then on",
    "flotilla rebuild counters --json | tail -1 | jq .swapped",
)


def rebuild(
    projection: ProjectionArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    source: SourceOption = "store",
    partitions: PartitionsOption = None,
    check: CheckOption = False,
    discard: DiscardOption = False,
    cancel: CancelOption = False,
    rollback: RollbackOption = False,
    forget_old: ForgetOldOption = False,
    json: JsonLinesOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a read model again, from the first event on, while the fleet runs.

    It is built beside the live view, which is read and goes on meanwhile;
    compared with it at one offset; and swapped in within one transaction:
    readers see the one or the other, never an empty or a partial view.
    The old view is kept until the next rebuild, or --forget-old.

    Ctrl-C, a crash or a kill leave a shadow that the same command goes on
    with. --discard begins anew: do that after a change of the projection's code.

    --partitions changes in how many parts it is folded, for projections that
    declare `partitions`. From the swap on, projectors of the number before fold
    nothing: start them again with the new one.

    Exit status: 0 when done, 13 when --check found a difference, 14 when an
    event cannot be folded, 11 when there is nothing to cancel or to roll back to.
    """

    def run() -> ExitCode:
        one = _one_of(check=check, cancel=cancel, rollback=rollback, forget_old=forget_old)
        if discard and one not in (None, "check"):
            raise Failure(ExitCode.USAGE, "--discard is for building: leave it out")
        runtime = find_running(data_directory(data, topology))
        found = find_projection(runtime, projection)
        if partitions and (one or not isinstance(found.projection, Partitioned)):
            raise Failure(
                ExitCode.USAGE,
                "--partitions is for a rebuild that swaps, of a projection that declares `partitions`",
            )
        telemetry.configure("flotilla-rebuild", log_level="error")
        clock = SystemClock()

        async def work() -> ExitCode:
            async with opened(runtime, found, clock, source) as these:
                if one in _CHORES:
                    async with these.places.claim():
                        return await _CHORES[one](these, json)
                if discard:
                    async with these.places.claim():
                        await these.places.forget("shadow")
                return await _rebuild(
                    these, clock, swap=not check, partitions=partitions, json=json
                )

        return _interruptible(work(), projection)

    finish(run, debug=debug)


def _interruptible(work: Coroutine[Any, Any, ExitCode], name: str) -> ExitCode:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise Failure(
            ExitCode.INTERRUPTED,
            f"stopped; nothing was swapped. `flotilla rebuild {name}` goes on from here,"
            " and with --cancel drops what was built",
        ) from None


def _one_of(**asked: bool) -> str | None:
    given = [name for name, wanted in asked.items() if wanted]
    if len(given) > 1:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise Failure(ExitCode.USAGE, f"{options} are different things: ask for one of them")
    return given[0] if given else None


async def _rebuild(
    these: Opened, clock: Clock, *, swap: bool, partitions: int | None, json: bool
) -> ExitCode:
    name = these.projection.name
    started_s = clock.monotonic_s()
    with reporting(name, clock, as_json=json) as report:
        parts = (these.projection, these.places, these.ledger, these.source)
        rebuild = Rebuild(*parts, report, partitions)
        rebuilt = await rebuild.run(swap=swap)
    took_s = clock.monotonic_s() - started_s
    same = rebuilt.comparison.same
    if not swap and same:
        await these.places.forget("shadow")
    if json:
        typer.echo(jsons.dumps(_document(name, rebuilt, took_s), default=str))
    else:
        make_console().print(_show(name, rebuilt, took_s))
    return ExitCode.OK if swap or same else ExitCode.DIFFERENT


async def _cancel(these: Opened, json: bool) -> ExitCode:
    if not await these.places.forget("shadow"):
        name = these.projection.name
        raise Failure(ExitCode.NOT_FOUND, f"{name} has no shadow: nothing to cancel")
    return _told(these, "cancelled", "the shadow is dropped; the live view was not touched", json)


async def _forget_old(these: Opened, json: bool) -> ExitCode:
    if not await these.places.forget("old"):
        raise Failure(ExitCode.NOT_FOUND, f"{these.projection.name} has no old view to forget")
    return _told(these, "forgotten", "the old view is dropped; there is no way back now", json)


async def _roll_back(these: Opened, json: bool) -> ExitCode:
    swapped = await these.places.roll_back()
    text = (
        f"the old view is live again, at offset {swapped.checkpoint.offset}, and catches up by itself;"
        " the other is kept: --rollback again exchanges them"
    )
    return _told(these, "rolled-back", text, json, swapped=_swapped(swapped))


_CHORES: dict[str | None, Callable[[Opened, bool], Coroutine[Any, Any, ExitCode]]] = {
    "cancel": _cancel,
    "rollback": _roll_back,
    "forget_old": _forget_old,
}


def _told(
    these: Opened,
    kind: str,
    text: str,
    json: bool,
    **more: object,
) -> ExitCode:
    name = these.projection.name
    if json:
        typer.echo(jsons.dumps({"kind": kind, "projection": name} | more))
    else:
        typer.echo(f"{name}: {text}")
    return ExitCode.OK


def _document(name: str, rebuilt: Rebuilt, took_s: float) -> dict[str, object]:
    """Return what `--json` prints last; fields are only added."""
    found = rebuilt.comparison
    return {
        "kind": "rebuilt" if rebuilt.swapped else "checked",
        "projection": name,
        "resumed_at": rebuilt.started,
        "events": rebuilt.events,
        "took_s": round(took_s, 3),
        "compared_at": found.checkpoint.offset,
        "same": found.same,
        "not_compared": found.reason,
        "tables": [
            {
                "table": table.table,
                "live_rows": table.live_rows,
                "shadow_rows": table.shadow_rows,
                "live_sha256": table.live_hash,
                "shadow_sha256": table.shadow_hash,
            }
            for table in found.tables
        ],
        "different": found.different,
        "differences": [
            {"table": row.table, "key": row.key, "live": _row(row, row.live)}
            | {"shadow": _row(row, row.shadow)}
            for row in found.differences
        ],
        "swapped": _swapped(rebuilt.swapped) if rebuilt.swapped else None,
    }


def _row(difference: Difference, row: tuple[Any, ...] | None) -> dict[str, Any] | None:
    return None if row is None else dict(zip(difference.columns, row, strict=True))


def _swapped(swapped: Swapped) -> dict[str, object]:
    return {
        "offset": swapped.checkpoint.offset,
        "events": swapped.events,
        "projector_waited_ms": round(swapped.projector_waited_ms, 2),
        "readers_waited_ms": round(swapped.readers_waited_ms, 2),
    }


def _show(name: str, rebuilt: Rebuilt, took_s: float) -> RenderableType:
    resumed = f", from {rebuilt.started} on where it was" if rebuilt.started else ""
    rate = rebuilt.events / max(took_s, 1e-6)
    lines: list[RenderableType] = [
        f"{name}: {rebuilt.events} events folded in {took_s:.1f} s ({rate:,.0f} a second){resumed}",
        *_show_comparison(rebuilt.comparison),
    ]
    if swapped := rebuilt.swapped:
        lines.append(
            f"swapped at offset {swapped.checkpoint.offset}: readers waited at most"
            f" {swapped.readers_waited_ms:.1f} ms, the projector {swapped.projector_waited_ms:.1f} ms,"
            f" {swapped.events} events were folded inside"
        )
        lines.append(f"the old view is kept: `flotilla rebuild {name} --rollback` goes back to it")
    elif not rebuilt.comparison.same:
        lines.append(f"nothing was swapped; the shadow is kept: `flotilla rebuild {name}` swaps it")
    return Group(*lines)


def _show_comparison(found: Comparison) -> list[RenderableType]:
    if found.reason:
        return [f"not compared: {found.reason}"]
    at = found.checkpoint.offset
    counts = ", ".join(
        f"{table.table} {table.live_rows} rows, sha256 {table.live_hash[:16]}"
        if table.live_hash == table.shadow_hash
        else f"{table.table} {table.live_rows} rows live, {table.shadow_rows} in the shadow"
        for table in found.tables
    )
    if found.same:
        return [f"the live view is what the log says, at offset {at}: {counts}"]
    table = Table("table", "key", "live", "shadow", box=None, pad_edge=False)
    for row in found.differences:
        table.add_row(
            plain(row.table),
            plain(shortened([str(part) for part in row.key])),
            *(_cell(row, side) for side in (row.live, row.shadow)),
        )
    more = found.different - len(found.differences)
    lines: list[RenderableType] = [
        f"the live view is not what the log says, at offset {at}: {counts}",
        f"{found.different} rows differ" + (f"; {more} more than are shown" if more else ""),
        table,
    ]
    return lines


def _cell(difference: Difference, row: tuple[Any, ...] | None) -> RenderableType:
    if row is None:
        return "(no such row)"
    other = difference.shadow if row is difference.live else difference.live
    changed = {
        name: value if isinstance(value, int | str | float | None) else str(value)
        for n, (name, value) in enumerate(zip(difference.columns, row, strict=True))
        if other is None or value != other[n]
    }
    return plain(shortened(changed))
