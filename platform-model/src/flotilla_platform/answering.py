"""How a command ends: with its status, or with one clear line on stderr and that of its error."""

import traceback
from collections.abc import Callable
from typing import NoReturn

import typer

from flotilla_platform.exit_codes import ExitCode, Failure

PROGRAM = "flotilla"


def finish(run: Callable[[], ExitCode], *, debug: bool) -> NoReturn:
    """Run a command and end with its status; `debug` shows where an error came from."""
    try:
        code = run()
    except Exception as error:  # noqa: BLE001 - the one place where errors become a status
        failure = error if isinstance(error, Failure) else _failure_of(error)
        if debug:
            traceback.print_exception(error)
        complain(failure)
        code = failure.code
    raise typer.Exit(code)


def _failure_of(error: Exception) -> Failure:
    from flotilla_platform.failing import failure_of  # noqa: PLC0415 - knows all errors of the kernel

    return failure_of(error)


def complain(failure: Failure) -> None:
    """Tell a failure on stderr: one line, or one for each mistake of a model."""
    for line in str(failure).splitlines():
        typer.echo(f"{PROGRAM}: {line}", err=True)
