"""`flotilla workflows list` and `show`: what runs, where it stands and why, in tables and pictures."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from flotilla import telemetry
from flotilla_contracts.workflow import (
    PAGE_SIZE_MAX,
    WorkflowDetail,
    WorkflowPage,
    WorkflowReply,
    WorkflowStatus,
)
from flotilla_platform.answering import finish
from flotilla_platform.asking import as_moment
from flotilla_platform.drawing import svg
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.options import (
    TOPOLOGY,
    DataOption,
    DebugOption,
    JsonOption,
    TopologyOption,
    data_directory,
)
from flotilla_platform.runtime import find_running
from flotilla_platform.showing import make_console, plain, table_of
from flotilla_platform.workflows import Filter, Operator, Which, operating, which

LIST_EXAMPLES = (
    "flotilla workflows list --status stuck",
    "flotilla workflows list --tenant acme --workflow ordering --since 2026-05-17T12:00:00Z",
    "flotilla workflows list --json | jq -r '.items[].instance'",
)
SHOW_EXAMPLES = (
    "flotilla workflows show acme/ordering:o-1",
    "flotilla workflows show acme/ordering:o-1 --svg o-1.svg     a picture that needs nothing else",
)
InstanceArgument = Annotated[
    str,
    typer.Argument(
        metavar="INSTANCE", help="Which one: <tenant>/<workflow>:<key>", show_default=False
    ),
]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", help="Only this tenant's. Default: all tenants'.")
]
StatusOption = Annotated[
    WorkflowStatus | None, typer.Option("--status", help="Only those that stand there.")
]
NameOption = Annotated[str | None, typer.Option("--workflow", help="Only of this workflow.")]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="ISO", help="Only started since then: 2026-05-17T12:00:00Z"),
]
AfterOption = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", help="The next page: what a page ends with."),
]
LimitOption = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=PAGE_SIZE_MAX, help="So many at most.")
]
SvgOption = Annotated[
    Path | None, typer.Option("--svg", dir_okay=False, help="Write the picture to this file, too.")
]


def workflows_list(
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    tenant: TenantOption = None,
    status: StatusOption = None,
    workflow: NameOption = None,
    since: SinceOption = None,
    after: AfterOption = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List workflows, the last started first.

    From the read model, which is a moment behind; `show` reads the history itself.
    Exit status: 0, whether there are any or none; 7 when nothing is running.
    """

    def run() -> ExitCode:
        moment = as_moment("--since", since) if since is not None else None
        wanted = Filter(tenant, status, workflow, moment)
        page = ask_fleet(
            data, topology, None, lambda fleet: fleet.list(wanted, after=after, limit=limit)
        )
        if json:
            typer.echo(page.model_dump_json())
        else:
            make_console().print(show_page(page))
        return ExitCode.OK

    finish(run, debug=debug)


def workflows_show(
    instance: InstanceArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    svg_file: SvgOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show one workflow: its steps, where each stands and why, and a Mermaid picture of it.

    Exit status: 0; 8 when it is stuck, 11 when there is no such workflow, 7 when
    nothing is running.
    """

    def run() -> ExitCode:
        one = which(instance)
        detail = ask_fleet(data, topology, None, lambda fleet: fleet.show(one))
        if svg_file is not None:
            _write(svg_file, svg(detail))
        if json:
            typer.echo(detail.model_dump_json())
        else:
            make_console().print(show_detail(one, detail))
            typer.echo(f"\n{detail.picture}", nl=False)
        return ExitCode.UNHEALTHY if detail.status == "stuck" else ExitCode.OK

    finish(run, debug=debug)


def ask_fleet[T](
    data: DataOption, topology: str, by: str | None, ask: Callable[[Operator], Awaitable[T]]
) -> T:
    """Ask a running fleet as an operator called `by`, and return the answer."""
    telemetry.configure("flotilla-workflows", log_level="error")
    runtime = find_running(data_directory(data, topology))

    async def talk() -> T:
        async with operating(runtime, by or getpass.getuser()) as fleet:
            return await ask(fleet)

    return asyncio.run(talk())


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(ExitCode.USAGE, f"{file} cannot be written: {error.strerror}") from error


_COLOURS = {"completed": "green", "stuck": "red", "done": "green", "failed": "red", "now": "yellow"}


def headline(one: Which, reply: WorkflowReply) -> Text:
    """Return where an instance stands, in one line."""
    why = f": {reply.reason}" if reply.reason else ""
    status = (reply.status, _COLOURS.get(reply.status, "yellow"))
    return Text.assemble(f"{one} (version {reply.version}) is ", status, why)


def show_page(page: WorkflowPage) -> RenderableType:
    """Return the table of instances."""
    if not page.items:
        return Text("no workflow is like that")
    table = table_of("instance", "version", "status", "started", "changed", "why")
    for row in page.items:
        table.add_row(
            plain(f"{row.tenant}/{row.instance}"),
            str(row.version),
            Text(row.status, _COLOURS.get(row.status, "")),
            row.started_at.isoformat(timespec="seconds"),
            row.changed_at.isoformat(timespec="seconds"),
            plain(row.reason),
        )
    more = page.next_cursor
    rest = [Text(f"there are more: --after {more}", style="dim")] if more else []
    return Group(table, *rest)


def show_detail(one: Which, detail: WorkflowDetail) -> RenderableType:
    """Return where an instance stands, and the table of its steps."""
    table = table_of("step", "does", "after", "stands", "why")
    for step in detail.steps:
        table.add_row(
            plain(step.name),
            plain(step.does),
            plain(", ".join(step.depends_on)),
            Text(step.standing, _COLOURS.get(step.standing, "dim")),
            plain(step.why),
        )
    return Group(headline(one, detail), table)
