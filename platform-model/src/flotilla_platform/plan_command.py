"""The command `flotilla model plan`: what it takes to get from one topology to another."""

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from flotilla_platform.answering import finish
from flotilla_platform.changing import Plan, plan
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.loading import suggest
from flotilla_platform.model import Layout, Platform
from flotilla_platform.options import DebugOption, JsonOption, ModelOption
from flotilla_platform.reading import find_model, read_platform
from flotilla_platform.showing import make_console, print_json, table_of

PLAN_EXAMPLES = (
    "flotilla model plan single vps",
    "flotilla model plan compose k3s --json | jq -r '.risks[]'",
)
BeforeArgument = Annotated[str, typer.Argument(help="The topology that runs.")]
AfterArgument = Annotated[str, typer.Argument(help="The topology that is to run.")]


def plan_topologies(
    before: BeforeArgument,
    after: AfterArgument,
    *,
    model: ModelOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Plan how to get from one topology to another: changes, moves, steps, risks. Nothing is done."""

    def run() -> ExitCode:
        platform = read_platform(model or find_model())
        found = plan(platform, _layout(platform, before), _layout(platform, after))
        if json:
            print_json(found.as_json())
        else:
            make_console().print(_show(found), soft_wrap=True)
        return ExitCode.OK

    finish(run, debug=debug)


def _layout(platform: Platform, name: str) -> Layout:
    layouts = platform.layouts
    if name not in layouts:
        told = f"there is no topology {name!r}: {suggest(name, list(layouts))}"
        raise Failure(ExitCode.USAGE, told)
    return layouts[name]


def _show(found: Plan) -> RenderableType:
    if not found.steps:
        return Text(f"{found.before} is {found.after}: there is nothing to do")
    table = table_of("what changes", found.before, found.after)
    for change in found.changes:
        table.add_row(change.what, change.before, change.after)
    lines: list[RenderableType] = [table]
    for title, told in (
        ("What moves", [f"- {one}" for one in found.moves] or ["- nothing"]),
        ("In this order", [f"{at:>2}. {one}" for at, one in enumerate(found.steps, start=1)]),
        ("What may go wrong", [f"- {one}" for one in found.risks]),
    ):
        lines += [Text(f"\n{title}", style="bold"), *(Text(one) for one in told)]
    return Group(*lines)
