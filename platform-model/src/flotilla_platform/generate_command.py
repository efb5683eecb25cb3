"""The command `flotilla model generate`: what is deployed, written from the model."""

from pathlib import Path
from typing import Annotated

import typer

from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.generating import (
    DEPLOY,
    GENERATORS,
    artifacts,
    stale_artifacts,
    write_artifacts,
)
from flotilla_platform.options import DebugOption, JsonOption, ModelOption
from flotilla_platform.reading import find_model, read_platform
from flotilla_platform.showing import make_console, print_json, table_of

GENERATE_EXAMPLES = (
    "flotilla model generate                            what would be written?",
    "flotilla model generate --write                    write deploy/",
    "flotilla model generate --check                    is deploy/ what the model says?",
    "flotilla model generate --write --out /tmp/deploy",
)
STALE_SHOWN_MAX = 20

WriteOption = Annotated[bool, typer.Option("--write", help="Write what is stale, delete the rest.")]
CheckOption = Annotated[bool, typer.Option("--check", help="Change nothing; 30 when it is stale.")]
OutOption = Annotated[
    Path, typer.Option("--out", file_okay=False, help="The folder that everything goes to.")
]


def generate(
    *,
    write: WriteOption = False,
    check: CheckOption = False,
    out: OutOption = Path(DEPLOY),
    model: ModelOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Generate what is deployed from the model: containers, units, clusters, servers, alerts.

    Without --write or --check it lists what the model gives. The same model gives the same bytes.
    """

    def run() -> ExitCode:
        platform = read_platform(model or find_model())
        if write and check:
            raise Failure(ExitCode.USAGE, "--write and --check exclude each other")
        if write:
            for path in write_artifacts(platform, out):
                typer.echo(f"wrote {out / path}")
            return ExitCode.OK
        if check:
            _require_fresh(stale_artifacts(platform, out), out)
            return ExitCode.OK
        found = artifacts(platform)
        if json:
            print_json({"format": 1, "files": list(found)})
            return ExitCode.OK
        table = table_of("generator", "makes", "files")
        for one in GENERATORS:
            table.add_row(one.name, one.makes, str(len(one.generate(platform))))
        make_console().print(table)
        return ExitCode.OK

    finish(run, debug=debug)


def _require_fresh(stale: list[str], out: Path) -> None:
    if stale:
        shown = ", ".join(stale[:STALE_SHOWN_MAX]) + (" …" if len(stale) > STALE_SHOWN_MAX else "")
        raise Failure(
            ExitCode.ARTIFACTS_STALE,
            f"{out} is not what the model says ({shown}): run `flotilla model generate --write`, and"
            " change the model instead of these files",
        )
