"""The commands `flotilla schedules …`: what happens later, told, held back, and done now."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from flotilla import telemetry
from flotilla_contracts.scheduler import PLATFORM_TENANT
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.options import (
    TOPOLOGY,
    DataOption,
    DebugOption,
    JsonOption,
    ParkedLimitOption,
    TopologyOption,
    data_directory,
)
from flotilla_platform.runtime import Runtime, find_running
from flotilla_platform.schedules import ScheduleDetail, ScheduleList, Verb, schedules_of
from flotilla_platform.showing import make_console, plain, table_of

SCHEDULES_HELP = (
    "What happens later, and when: list schedules, show, pause, resume, fire them.\n\n"
    "An occurrence is decided once, by whichever replica comes first, and goes out as "
    "`schedule.fired.v1`. What came too late is counted as missed and told, never left out silently."
)
LIST_EXAMPLES = (
    "flotilla schedules list                       those of the platform",
    "flotilla schedules list --tenant acme --json | jq '.schedules[].next'",
)
SHOW_EXAMPLES = ("flotilla schedules show workflow.nightly-quota-reset",)
PAUSE_EXAMPLES = ("flotilla schedules pause reminders --tenant acme",)
RESUME_EXAMPLES = ("flotilla schedules resume reminders --tenant acme",)
FIRE_EXAMPLES = (
    "flotilla schedules fire workflow.nightly-quota-reset      once more than planned",
)

TenantOption = Annotated[
    str, typer.Option("--tenant", help="Whose; `-` is the platform's own.", show_default=True)
]
NameArgument = Annotated[
    str, typer.Argument(metavar="SCHEDULE", help="Its id: see `list`.", show_default=False)
]


def _running(data: DataOption, topology: str) -> Runtime:
    telemetry.configure("flotilla-schedules", log_level="error")
    return find_running(data_directory(data, topology))


def schedules_list(
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    tenant: TenantOption = PLATFORM_TENANT,
    limit: ParkedLimitOption = 100,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List a tenant's schedules, by id.

    It is a read model: what was changed a moment ago may be missing.
    Exit status: 0, whether there are any or none; 7 when nothing is running.
    """

    def run() -> ExitCode:
        runtime = _running(data, topology)

        async def read() -> ScheduleList:
            async with schedules_of(runtime, tenant) as schedules:
                return await schedules.read(limit)

        found = asyncio.run(read())
        if json:
            typer.echo(found.model_dump_json())
        else:
            make_console().print(show_list(found))
        return ExitCode.OK

    finish(run, debug=debug)


def schedules_show(
    schedule: NameArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    tenant: TenantOption = PLATFORM_TENANT,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show one schedule: its terms, where it stands, when it fires next.

    Exit status: 0 when it is there, 11 when not, 7 when nothing is running.
    """

    def run() -> ExitCode:
        runtime = _running(data, topology)

        async def look() -> ScheduleDetail:
            async with schedules_of(runtime, tenant) as schedules:
                return await schedules.look(schedule)

        found = asyncio.run(look())
        if json:
            typer.echo(found.model_dump_json())
        else:
            make_console().print(show_detail(found))
        return ExitCode.OK

    finish(run, debug=debug)


def schedules_pause(
    schedule: NameArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    tenant: TenantOption = PLATFORM_TENANT,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a schedule fire no more, until it is resumed.

    What was due before is settled first. Nothing in the pause counts as missed.
    Exit status: 0 when it is paused, 11 when it is not there, 15 when it is still
    catching up: try again.
    """
    _tell("pause", schedule, (topology, data, tenant), json=json, debug=debug)


def schedules_resume(
    schedule: NameArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    tenant: TenantOption = PLATFORM_TENANT,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a schedule fire again, from its next occurrence on.

    Exit status: 0 when it is active, or done; 11 when it is not there.
    """
    _tell("resume", schedule, (topology, data, tenant), json=json, debug=debug)


def schedules_fire(
    schedule: NameArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    tenant: TenantOption = PLATFORM_TENANT,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Fire a schedule now, once more than planned. Its plan stays as it is.

    Exit status: 0 when it has fired, 11 when it is not there.
    """
    _tell("fire", schedule, (topology, data, tenant), json=json, debug=debug)


def _tell(
    verb: Verb, name: str, where: tuple[str, DataOption, str], *, json: bool, debug: bool
) -> None:
    topology, data, tenant = where

    def run() -> ExitCode:
        runtime = _running(data, topology)

        async def tell() -> ScheduleDetail:
            async with schedules_of(runtime, tenant) as schedules:
                told = await schedules.tell(verb, name)
            return ScheduleDetail(tenant=tenant, schedule=told, coming=())

        found = asyncio.run(tell())
        if json:
            typer.echo(found.model_dump_json())
        else:
            make_console().print(show_detail(found))
        return ExitCode.OK

    finish(run, debug=debug)


def show_list(found: ScheduleList) -> RenderableType:
    """Return the table of schedules."""
    if not found.schedules:
        return Text("there are no schedules")
    table = table_of("schedule", "status", "timing", "next", "last", "fired", "missed")
    for row in found.schedules:
        table.add_row(
            plain(row.schedule_id),
            row.status,
            plain(row.timing),
            _moment(row.next),
            _moment(row.last),
            str(row.fired),
            str(row.missed),
        )
    more = [Text("there are more: raise --limit", style="dim")] if found.more else []
    return Group(table, *more)


def show_detail(found: ScheduleDetail) -> RenderableType:
    """Return everything about a schedule, a line a field."""
    grid = table_of("field", "value")
    told = found.schedule.model_dump(mode="json", exclude={"terms"}) | {"tenant": found.tenant}
    terms = found.schedule.terms.model_dump(mode="json", exclude_none=True)
    for name, value in {**told, **terms}.items():
        grid.add_row(name, plain("" if value is None else str(value)))
    for n, occurrence in enumerate(found.coming, start=1):
        grid.add_row(f"coming {n}", plain(occurrence.local))
    return grid


def _moment(at: datetime | None) -> str:
    return at.isoformat(timespec="seconds") if at else ""


def schedules_app(make: Callable[..., str]) -> typer.Typer:
    """Return `flotilla schedules`; `make` makes an epilog of example lines."""
    commands = typer.Typer(help=SCHEDULES_HELP, no_args_is_help=True, rich_markup_mode="rich")
    commands.command("list", epilog=make(*LIST_EXAMPLES))(schedules_list)
    commands.command("show", epilog=make(*SHOW_EXAMPLES))(schedules_show)
    commands.command("pause", epilog=make(*PAUSE_EXAMPLES))(schedules_pause)
    commands.command("resume", epilog=make(*RESUME_EXAMPLES))(schedules_resume)
    commands.command("fire", epilog=make(*FIRE_EXAMPLES))(schedules_fire)
    return commands
