"""The commands `flotilla workflows …`: what runs, where it stands and why, and what people tell it."""

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

WORKFLOWS_HELP = (
    "Workflows: list them, show where one stands and why, let it go on, take it back.\n\n"
    "An instance is named <tenant>/<workflow>:<key>. What is stuck waits for you: `show` says why. Mend "
    "the service and `retry`: the same key is asked again, so what was done is not done twice. Where "
    "somebody has to say what to believe, `compensate --unknown done|not-done` takes all back."
)
LIST_EXAMPLES = (
    "flotilla workflows list --status stuck",
    "flotilla workflows list --tenant acme --workflow ordering --since 2026-05-17T12:00:00Z",
    "flotilla workflows list --json | jq -r '.items[].instance'",
)
SHOW_EXAMPLES = (
    "flotilla workflows show acme/ordering:o-1",
    "flotilla workflows show acme/ordering:o-1 --svg o-1.svg     a picture that needs nothing else",
)
RETRY_EXAMPLES = ("flotilla workflows retry acme/ordering:o-1",)
RESUME_EXAMPLES = ("flotilla workflows resume acme/ordering:o-1 --by ann",)
COMPENSATE_EXAMPLES = (
    "flotilla workflows compensate acme/ordering:o-1 --reason 'ordered twice'",
    "flotilla workflows compensate acme/ordering:o-1 --reason 'taken back by hand' --unknown done",
)
CANCEL_EXAMPLES = ("flotilla workflows cancel acme/ordering:o-1 --reason 'asked by the customer'",)
FORK_EXAMPLES = (
    "flotilla workflows fork-from acme/ordering:o-1 ship                  on the newest version",
    "flotilla workflows fork-from acme/ordering:o-1 ship --version 2",
)
ANSWER_EXAMPLES = (
    "flotilla workflows answer acme/ordering:o-1 agreed --yes",
    "flotilla workflows answer acme/ordering:o-1 agreed --no --reason 'too much'",
)

InstanceArgument = Annotated[
    str,
    typer.Argument(
        metavar="INSTANCE", help="Which one: <tenant>/<workflow>:<key>", show_default=False
    ),
]
StepArgument = Annotated[
    str, typer.Argument(metavar="STEP", help="A step of it: see `show`.", show_default=False)
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
ByOption = Annotated[
    str | None, typer.Option("--by", help="Who says so; kept in its history. Default: your login.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in its history.")]
UnknownOption = Annotated[
    str | None,
    typer.Option(
        "--unknown",
        metavar="done|not-done",
        help="What to believe of a step of which nobody knows whether it was done.",
    ),
]
VersionOption = Annotated[
    int | None, typer.Option("--version", min=1, help="On which version. Default: the newest.")
]
AnswerOption = Annotated[bool, typer.Option("--yes/--no", help="What the answer is.")]


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
        page = _asked(
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
        detail = _asked(data, topology, None, lambda fleet: fleet.show(one))
        if svg_file is not None:
            _write(svg_file, svg(detail))
        if json:
            typer.echo(detail.model_dump_json())
        else:
            make_console().print(show_detail(one, detail))
            typer.echo(f"\n{detail.picture}", nl=False)
        return ExitCode.UNHEALTHY if detail.status == "stuck" else ExitCode.OK

    finish(run, debug=debug)


def workflows_retry(
    instance: InstanceArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    by: ByOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask again for the step that is stuck: under the same key, so nothing is done twice.

    Exit status: 0 when it goes on, 15 when it is not stuck, 11 when there is no
    such workflow.
    """
    _tell(instance, data, topology, by, lambda fleet, one: fleet.retry(one), json=json, debug=debug)


def workflows_resume(
    instance: InstanceArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    by: ByOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a workflow go on where it stopped: stuck or cancelled.

    One that goes on already is left as it is.
    Exit status: 0 when it goes on, 15 when it has ended, 11 when there is no such
    workflow.
    """
    _tell(
        instance, data, topology, by, lambda fleet, one: fleet.resume(one), json=json, debug=debug
    )


def workflows_compensate(
    instance: InstanceArgument,
    *,
    reason: ReasonOption,
    unknown: UnknownOption = None,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    by: ByOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take everything back that a workflow has done, the last first.

    Where nobody knows whether a step was done, --unknown says what to believe.
    Exit status: 0 when it is being taken back, 15 when it is refused (it says why),
    11 when there is no such workflow.
    """

    def tell(fleet: Operator, one: Which) -> Awaitable[WorkflowReply]:
        if unknown not in {None, "done", "not-done"}:
            raise Failure(ExitCode.USAGE, f"--unknown {unknown!r}: write done or not-done")
        return fleet.compensate(one, reason, unknown)

    _tell(instance, data, topology, by, tell, json=json, debug=debug)


def workflows_cancel(
    instance: InstanceArgument,
    *,
    reason: ReasonOption,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    by: ByOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Stop a workflow where it is. Nothing is taken back; it can be resumed.

    Exit status: 0 when it is stopped, 15 when it has ended, 11 when there is no
    such workflow.
    """

    def tell(fleet: Operator, one: Which) -> Awaitable[WorkflowReply]:
        return fleet.cancel(one, reason)

    _tell(instance, data, topology, by, tell, json=json, debug=debug)


def workflows_fork(
    instance: InstanceArgument,
    step: StepArgument,
    *,
    version: VersionOption = None,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    by: ByOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Begin again from a step: what it builds on stays done, the rest is done anew.

    Exit status: 0 when it goes on, 15 when it is refused (it says why), 11 when
    there is no such workflow, step or version.
    """

    def tell(fleet: Operator, one: Which) -> Awaitable[WorkflowReply]:
        return fleet.fork(one, step, version)

    _tell(instance, data, topology, by, tell, json=json, debug=debug)


def workflows_answer(
    instance: InstanceArgument,
    step: StepArgument,
    *,
    yes: AnswerOption,
    reason: ReasonOption = "",
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    by: ByOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say yes or no to a step that asks somebody; a no takes everything back.

    Exit status: 0 when it was heard, 15 when the step does not ask, 11 when there
    is no such workflow.
    """

    def tell(fleet: Operator, one: Which) -> Awaitable[WorkflowReply]:
        return fleet.answer(one, step, reason, yes=yes)

    _tell(instance, data, topology, by, tell, json=json, debug=debug)


def _asked[T](
    data: DataOption, topology: str, by: str | None, ask: Callable[[Operator], Awaitable[T]]
) -> T:
    telemetry.configure("flotilla-workflows", log_level="error")
    runtime = find_running(data_directory(data, topology))

    async def talk() -> T:
        async with operating(runtime, by or getpass.getuser()) as fleet:
            return await ask(fleet)

    return asyncio.run(talk())


def _tell(
    instance: str,
    data: DataOption,
    topology: str,
    by: str | None,
    tell: Callable[[Operator, Which], Awaitable[WorkflowReply]],
    *,
    json: bool,
    debug: bool,
) -> None:
    def run() -> ExitCode:
        one = which(instance)
        reply = _asked(data, topology, by, lambda fleet: tell(fleet, one))
        if json:
            typer.echo(reply.model_dump_json())
        else:
            make_console().print(_headline(one, reply))
        return ExitCode.OK

    finish(run, debug=debug)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(ExitCode.USAGE, f"{file} cannot be written: {error.strerror}") from error


_COLOURS = {"completed": "green", "stuck": "red", "done": "green", "failed": "red", "now": "yellow"}


def _headline(one: Which, reply: WorkflowReply) -> Text:
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
    return Group(_headline(one, detail), table)


def workflows_app(make: Callable[..., str]) -> typer.Typer:
    """Return `flotilla workflows`; `make` makes an epilog of example lines."""
    commands = typer.Typer(help=WORKFLOWS_HELP, no_args_is_help=True, rich_markup_mode="rich")
    commands.command("list", epilog=make(*LIST_EXAMPLES))(workflows_list)
    commands.command("show", epilog=make(*SHOW_EXAMPLES))(workflows_show)
    commands.command("retry", epilog=make(*RETRY_EXAMPLES))(workflows_retry)
    commands.command("resume", epilog=make(*RESUME_EXAMPLES))(workflows_resume)
    commands.command("compensate", epilog=make(*COMPENSATE_EXAMPLES))(workflows_compensate)
    commands.command("cancel", epilog=make(*CANCEL_EXAMPLES))(workflows_cancel)
    commands.command("fork-from", epilog=make(*FORK_EXAMPLES))(workflows_fork)
    commands.command("answer", epilog=make(*ANSWER_EXAMPLES))(workflows_answer)
    return commands
