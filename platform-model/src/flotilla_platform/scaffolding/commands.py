"""The commands `flotilla new …`."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.harness.reading import find_root
from flotilla_platform.options import DebugOption
from flotilla_platform.scaffolding.answers import checked, read_answers, told
from flotilla_platform.scaffolding.changes import Changes
from flotilla_platform.scaffolding.service import plan_service

NEW_HELP = "Start a new part of the fleet: all of its files, and every list that names it."
SERVICE_EXAMPLES = (
    "flotilla new service --answers invoice.yaml --dry-run",
    "flotilla new service invoice --aggregate invoice --owner billing-team \\",
    "    --summary 'Invoices.' --command 'issue=issued(amount:integer)' --command pay=paid",
)
STEP_S = 300
AnswersOption = Annotated[
    Path | None, typer.Option("--answers", help="A YAML file with the answer set.")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Write nothing; list the files.")]


def new_app(epilog: Callable[..., str]) -> typer.Typer:
    """Return the group of commands."""
    app = typer.Typer(help=NEW_HELP, no_args_is_help=True, rich_markup_mode="rich")
    app.callback()(_group)
    app.command("service", epilog=epilog(*SERVICE_EXAMPLES))(new_service)
    return app


def _group() -> None:
    """Keep `service` a command of its own: Typer would make the only command the group."""


_group.__doc__ = NEW_HELP


def new_service(
    name: Annotated[str | None, typer.Argument(metavar="NAME", show_default=False)] = None,
    *,
    answers: AnswersOption = None,
    summary: Annotated[str | None, typer.Option(help="One sentence.")] = None,
    owner: Annotated[str | None, typer.Option(help="The team.")] = None,
    aggregate: Annotated[str | None, typer.Option(help="What is decided on.")] = None,
    command: Annotated[
        list[str] | None, typer.Option(help="`asked=happened(field:integer,field:text)`.")
    ] = None,
    dry_run: DryOption = False,
    debug: DebugOption = False,
) -> None:
    """Start a service with one aggregate: model, contracts, rules, tests, image, secrets, runbook.

    Exit status: 2 when an answer is wrong, 15 when something of that name is there.
    """

    def run() -> ExitCode:
        if (answers is None) == (name is None):
            raise Failure(ExitCode.USAGE, "give --answers FILE, or a NAME and what it is")
        if answers is not None:
            found = read_answers(answers)
        else:
            given = {"service": name, "summary": summary, "owner": owner, "aggregate": aggregate}
            content = {key: value for key, value in given.items() if value is not None}
            content = {"aggregate": str(name), **content}
            found = checked(content | {"commands": [told(one) for one in command or ()]})
        changes = plan_service(find_root(), found)
        for path in sorted(changes.created):
            typer.echo(f"new     {path}")
        for path in sorted(changes.edited):
            typer.echo(f"edited  {path}")
        if not dry_run:
            uv = find_uv(changes.root)
            changes.write()
            generate(changes, uv)
        return ExitCode.OK

    finish(run, debug=debug)


def find_uv(root: Path) -> str:
    """Return the program that keeps the lock file; asked before anything is written."""
    found = shutil.which("uv") or shutil.which("uv", path=root / ".tools" / "bin")
    if found is None:
        raise Failure(ExitCode.USAGE, "uv is not here: run `make setup`, or put it on the PATH")
    return found


def generate(changes: Changes, uv: str) -> None:
    """Format what was written, and make what is generated from it.

    Raises:
        Failure: a step failed; what it said is told, and it can be run again by hand.

    """
    bin_folder, root = Path(sys.executable).parent, changes.root
    python, written = (
        [str(bin_folder / "python")],
        [path for path in (*changes.created, *changes.edited) if path.endswith(".py")],
    )
    for step in (
        [str(bin_folder / "ruff"), "check", "--fix", "--quiet", "--select", "I", *written],
        [str(bin_folder / "ruff"), "format", "--quiet", *written],
        [uv, "lock", "--quiet"],
        [uv, "sync", "--locked", "--all-packages", "--quiet"],
        [*python, "-m", "flotilla_contracts.generate"],
        [*python, "-m", "svc_web_bff.openapi"],
        [str(bin_folder / "flotilla"), "model", "generate", "--write"],
        [*python, "tests/emitted.py"],
    ):
        done = subprocess.run(  # noqa: S603 - programs of this checkout, no shell
            step, cwd=root, capture_output=True, text=True, timeout=STEP_S, check=False
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            wrong = f"all files are written, but this failed; mend it and run it again: {step}"
            raise Failure(ExitCode.UNEXPECTED, f"{wrong}\n{said}")
