"""The command `flotilla events`: what happened in one stream, told to people or to programs."""

import asyncio

import typer

from flotilla import telemetry
from flotilla_platform.answering import finish
from flotilla_platform.asking import understand
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.history import read_history
from flotilla_platform.options import (
    TOPOLOGY,
    AfterOption,
    AtTimeOption,
    AtVersionOption,
    DataOption,
    DebugOption,
    DiffOption,
    JsonLinesOption,
    LimitOption,
    ServiceOption,
    StreamArgument,
    TopologyOption,
    data_directory,
)
from flotilla_platform.runtime import find_running
from flotilla_platform.showing import make_console, show_history

EVENTS_EXAMPLES = (
    "flotilla events acme/counter/visits",
    "flotilla events acme/counter/visits --at-time 2026-05-17T12:00:00Z",
    "flotilla events acme/counter/visits --diff 3..7",
    "flotilla events acme/counter/visits --json | jq -c .data",
)


def events(
    stream: StreamArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    service: ServiceOption = None,
    after: AfterOption = None,
    limit: LimitOption = None,
    at_version: AtVersionOption = None,
    at_time: AtTimeOption = None,
    diff: DiffOption = None,
    json: JsonLinesOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what happened in one stream of a running fleet, now or as of a moment in the past.

    Read from the store, published or not, and shown as it was stored. With
    --at-version and --at-time the last line says where the stream stood then.

    Exit status: 0 when the stream is there, 11 when it or a version is not,
    2 when the question cannot be understood, 7 when nothing is running.
    """

    def run() -> ExitCode:
        wanted = understand(
            stream,
            service=service,
            after=after,
            limit=limit,
            at_version=at_version,
            at_time=at_time,
            diff=diff,
        )
        runtime = find_running(data_directory(data, topology))
        telemetry.configure("flotilla-events", log_level="error")
        history = asyncio.run(read_history(runtime, wanted))
        if json:
            for line in history.lines():
                typer.echo(line)
        else:
            make_console().print(show_history(history))
        return ExitCode.OK

    finish(run, debug=debug)
