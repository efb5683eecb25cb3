"""The command `flotilla replay`: a part of a log folded again, onto the live view."""

import asyncio
import json as jsons
from collections.abc import Awaitable, Callable

import typer

from flotilla import telemetry
from flotilla.clock import SystemClock
from flotilla.outbox import Offset
from flotilla.replay import Replay, Replayed
from flotilla.store import tenant_of
from flotilla_platform.answering import finish
from flotilla_platform.asking import as_moment, as_stream
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.folding import find_projection, opened
from flotilla_platform.options import (
    TOPOLOGY,
    DataOption,
    DebugOption,
    FromOffsetOption,
    FromTimeOption,
    JsonLinesOption,
    ProjectionArgument,
    SourceOption,
    StreamOption,
    TenantOption,
    TopologyOption,
    data_directory,
)
from flotilla_platform.progress import reporting
from flotilla_platform.runtime import find_running

REPLAY_EXAMPLES = (
    "flotilla replay counters --from-offset 1200",
    "flotilla replay counters --from-time 2026-05-17T12:00:00Z",
    "flotilla replay counters --tenant acme",
    "flotilla replay counters --stream acme/counter/visits",
)

Choice = Callable[[Replay], Awaitable[Replayed]]
"""One replay or another, of what is already open."""


def replay(
    projection: ProjectionArgument,
    *,
    from_offset: FromOffsetOption = None,
    from_time: FromTimeOption = None,
    tenant: TenantOption = None,
    stream: StreamOption = None,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    source: SourceOption = "store",
    json: JsonLinesOption = False,
    debug: DebugOption = False,
) -> None:
    """Fold a part of the log again, onto the live view, while the fleet runs.

    --from-offset and --from-time fold everything from there on again, in
    batches: for projections in which folding an event twice is folding it
    once. --tenant and --stream forget those rows and fold their events again,
    in one transaction. The checkpoint stays where it is.

    A replay mends what is wrong in the rows that it folds. A view that may be
    wrong elsewhere, or whose code has changed, wants `flotilla rebuild`.

    Exit status: 0 when done, 15 when the projection does not support it (then
    rebuild it) or the view is not that far, 14 when an event cannot be folded.
    """

    def run() -> ExitCode:
        choose = _chosen(from_offset, from_time, tenant, stream)
        runtime = find_running(data_directory(data, topology))
        found = find_projection(runtime, projection)
        telemetry.configure("flotilla-replay", log_level="error")
        clock = SystemClock()

        async def work() -> Replayed:
            async with opened(runtime, found, clock, source) as these:
                with reporting(projection, clock, as_json=json) as report:
                    parts = (these.projection, these.places, these.ledger, these.source)
                    return await choose(Replay(*parts, report))

        try:
            replayed = asyncio.run(work())
        except KeyboardInterrupt:
            raise Failure(
                ExitCode.INTERRUPTED,
                "stopped; what was folded again stays, and may be folded again",
            ) from None
        _tell(projection, replayed, json=json)
        return ExitCode.OK

    finish(run, debug=debug)


def _chosen(
    from_offset: int | None, from_time: str | None, tenant: str | None, stream: str | None
) -> Choice:
    """Return which replay was asked for: exactly one."""
    asked = {
        "--from-offset": from_offset,
        "--from-time": from_time,
        "--tenant": tenant,
        "--stream": stream,
    }
    given = [option for option, value in asked.items() if value is not None]
    if len(given) != 1:
        said = " and ".join(given) if given else "nothing"
        raise Failure(ExitCode.USAGE, f"{said} was asked for: write one of {', '.join(asked)}")
    if from_offset is not None:
        first = Offset(from_offset)
        return lambda replay: replay.from_offset(first)
    if from_time is not None:
        moment = as_moment("--from-time", from_time)
        return lambda replay: replay.from_time(moment)
    if stream is not None:
        name = as_stream(stream)
        return lambda replay: replay.of(tenant_of(name), name)
    return lambda replay: replay.of(str(tenant))


def _tell(name: str, replayed: Replayed, *, json: bool) -> None:
    if json:
        document = {
            "kind": "replayed",
            "projection": name,
            "events": replayed.events,
            "offset": replayed.checkpoint.offset,
        }
        typer.echo(jsons.dumps(document, separators=(",", ":")))
    else:
        typer.echo(
            f"{name}: {replayed.events} events folded again; the view is at offset"
            f" {replayed.checkpoint.offset}, as it was"
        )
