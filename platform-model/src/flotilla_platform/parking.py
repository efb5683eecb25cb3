"""The commands `flotilla parked …`: what could not be folded, told, tried again, or given up."""

import asyncio
from collections.abc import Callable

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from flotilla import telemetry
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.options import (
    TOPOLOGY,
    DataOption,
    DebugOption,
    JsonOption,
    KeyOption,
    OffsetArgument,
    OffsetOption,
    ParkedLimitOption,
    ProjectionArgument,
    ProjectionOption,
    TopologyOption,
    YesOption,
    data_directory,
)
from flotilla_platform.parked import (
    ParkedDetail,
    ParkedList,
    Retried,
    discard_parked,
    read_one,
    read_parked,
    retry_parked,
)
from flotilla_platform.runtime import Runtime, find_running
from flotilla_platform.showing import make_console, plain, shortened, table_of

PARKED_HELP = (
    "What projections could not fold: list it, show it, try it again, give it up.\n\n"
    "An event that fails for a reason of its own is parked with all later ones of its key, and the "
    "other keys flow. The view lacks what is parked. Deploy a projection that can fold it, then "
    "`retry`; `discard` only what the view may lack for ever."
)
LIST_EXAMPLES = (
    "flotilla parked list",
    "flotilla parked list --projection counters --json | jq '.events[].key'",
)
SHOW_EXAMPLES = ("flotilla parked show counters 4711",)
RETRY_EXAMPLES = (
    "flotilla parked retry counters                               every key of it",
    "flotilla parked retry counters --key acme/counter/visits     one key",
)
DISCARD_EXAMPLES = (
    "flotilla parked discard counters --offset 4711               what would be lost?",
    "flotilla parked discard counters --offset 4711 --yes         lose one event",
    "flotilla parked discard counters --key acme/counter/visits --yes",
)


def _running(data: DataOption, topology: str) -> Runtime:
    telemetry.configure("flotilla-parked", log_level="error")
    return find_running(data_directory(data, topology))


def parked_list(
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    projection: ProjectionOption = None,
    key: KeyOption = None,
    limit: ParkedLimitOption = 100,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List parked events, by projection and offset.

    One without an error waits behind an earlier one of its key.
    Exit status: 0, whether there are any or none; 7 when nothing is running.
    """

    def run() -> ExitCode:
        runtime = _running(data, topology)
        found = asyncio.run(read_parked(runtime, projection=projection, key=key, limit=limit))
        if json:
            typer.echo(found.model_dump_json())
        else:
            make_console().print(show_parked(found))
        return ExitCode.OK

    finish(run, debug=debug)


def parked_show(
    projection: ProjectionArgument,
    offset: OffsetArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show one parked event with its payload and all of its error.

    Exit status: 0 when it is parked, 11 when not, 7 when nothing is running.
    """

    def run() -> ExitCode:
        found = asyncio.run(read_one(_running(data, topology), projection, offset))
        if json:
            typer.echo(found.model_dump_json())
        else:
            make_console().print(show_detail(found))
        return ExitCode.OK

    finish(run, debug=debug)


def parked_retry(
    projection: ProjectionArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Fold what is parked again: of one key, or of every key of a projection.

    All of a key in one transaction and in order, or nothing of it. What arrives
    meanwhile is folded after it. The running projector does the work.

    Exit status: 0 when every key is free, 8 when one stays parked, 11 when
    nothing like that is parked, 6 when nobody runs the projection.
    """

    def run() -> ExitCode:
        found = asyncio.run(retry_parked(_running(data, topology), projection, key))
        if json:
            typer.echo(found.model_dump_json())
        else:
            make_console().print(show_retried(found))
        return ExitCode.OK if found.is_free else ExitCode.UNHEALTHY

    finish(run, debug=debug)


def parked_discard(
    projection: ProjectionArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    key: KeyOption = None,
    offset: OffsetOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Give up parked events: the view lacks them until it is rebuilt. The log keeps them.

    Name what: --offset for one event, --key for all of a key. Without --yes it
    only says what would be lost. While others of its key are parked the key stays
    parked: retry it then.

    Exit status: 0 when it is done, 2 without --yes, 11 when nothing like that is
    parked.
    """

    def run() -> ExitCode:
        if (key is None) == (offset is None):
            message = "say what to give up: either --key or --offset (see `flotilla parked list`)"
            raise Failure(ExitCode.USAGE, message)
        runtime = _running(data, topology)
        found = asyncio.run(discard_parked(runtime, projection, key=key, offset=offset, sure=yes))
        if json:
            typer.echo(found.model_dump_json())
        else:
            make_console().print(show_parked(found))
        lost = f"{len(found.events)} event(s) of the log that {projection!r} has not folded"
        if not yes:
            raise Failure(
                ExitCode.USAGE, f"nothing is discarded: --yes would give up {lost} for ever"
            )
        if not json:
            make_console().print(f"given up: {lost}; only a rebuild of the view brings them back")
        return ExitCode.OK

    finish(run, debug=debug)


def show_parked(found: ParkedList) -> RenderableType:
    """Return the table of parked events."""
    if not found.events:
        return Text("nothing is parked")
    table = table_of("projection", "offset", "key", "type", "tries", "parked at", "error")
    for row in found.events:
        table.add_row(
            plain(row.projection),
            str(row.offset),
            plain(row.key),
            plain(row.type),
            str(row.tries),
            row.parked_at.isoformat(timespec="seconds"),
            plain(shortened(row.error)) if row.error else Text("behind", style="dim"),
        )
    more = [Text("there are more: raise --limit", style="dim")] if found.more else []
    return Group(table, *more)


def show_detail(found: ParkedDetail) -> RenderableType:
    """Return everything about a parked event, a line a field."""
    grid = table_of("field", "value")
    for name, value in found.model_dump(mode="json", exclude={"format", "data"}).items():
        grid.add_row(name, plain(str(value)))
    grid.add_row("data", plain(shortened(found.data, characters_max=100_000)))
    return grid


def show_retried(found: Retried) -> RenderableType:
    """Return what became of each key."""
    table = table_of("projection", "key", "folded", "")
    for key in found.keys:
        said = Text("free", "green") if key.error is None else plain(key.error)
        table.add_row(plain(key.projection), plain(key.key), str(key.folded), said)
    return table


def parked_app(make: Callable[..., str]) -> typer.Typer:
    """Return `flotilla parked`; `make` makes an epilog of example lines."""
    commands = typer.Typer(help=PARKED_HELP, no_args_is_help=True, rich_markup_mode="rich")
    commands.command("list", epilog=make(*LIST_EXAMPLES))(parked_list)
    commands.command("show", epilog=make(*SHOW_EXAMPLES))(parked_show)
    commands.command("retry", epilog=make(*RETRY_EXAMPLES))(parked_retry)
    commands.command("discard", epilog=make(*DISCARD_EXAMPLES))(parked_discard)
    return commands
