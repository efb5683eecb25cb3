"""The commands `flotilla workflows …`: what people tell a workflow; `listing` shows them."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from flotilla_contracts.workflow import WorkflowReply
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.listing import (
    LIST_EXAMPLES,
    SHOW_EXAMPLES,
    InstanceArgument,
    ask_fleet,
    headline,
    workflows_list,
    workflows_show,
)
from flotilla_platform.options import (
    TOPOLOGY,
    DataOption,
    DebugOption,
    JsonOption,
    TopologyOption,
)
from flotilla_platform.showing import make_console
from flotilla_platform.workflows import Operator, Which, which

WORKFLOWS_HELP = (
    "Workflows: list them, show where one stands and why, let it go on, take it back.\n\n"
    "An instance is named <tenant>/<workflow>:<key>. What is stuck waits for you: `show` says why. Mend "
    "the service and `retry`: the same key is asked again, so what was done is not done twice. Where "
    "somebody has to say what to believe, `compensate --unknown done|not-done` takes all back."
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

StepArgument = Annotated[
    str, typer.Argument(metavar="STEP", help="A step of it: see `show`.", show_default=False)
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
        reply = ask_fleet(data, topology, by, lambda fleet: tell(fleet, one))
        if json:
            typer.echo(reply.model_dump_json())
        else:
            make_console().print(headline(one, reply))
        return ExitCode.OK

    finish(run, debug=debug)


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
