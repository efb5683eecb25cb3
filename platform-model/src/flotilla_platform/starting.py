"""The command `flotilla up`: a whole fleet, in this process or in several."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import typer

from flotilla import telemetry
from flotilla.service import HttpBinding
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.lines import Logging, resolved
from flotilla_platform.model import Layout, Platform
from flotilla_platform.options import (
    HOST,
    PORT,
    TOPOLOGY,
    DataOption,
    DebugOption,
    HostOption,
    JsonOption,
    LogFormatOption,
    LogLevelOption,
    ModelOption,
    OtlpOption,
    PortOption,
    TopologyOption,
    data_directory,
)
from flotilla_platform.planning import find_topology, make_plan
from flotilla_platform.reading import find_model, read_platform
from flotilla_platform.runtime import Runtime
from flotilla_platform.showing import make_console, show_runtime

TELEMETRY_STOP_TIMEOUT_S = 1.0
UP_EXAMPLES = (
    "flotilla up",
    "flotilla up --topology single-postgres --data /var/lib/flotilla",
    "flotilla up --port 0 --json | head -1 | jq -r .api",
    "FLOTILLA_PORT=9000 flotilla up --log-format json",
)

type Fleet = Callable[[Callable[[Runtime], None]], Coroutine[Any, Any, None]]


def up(
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    port: PortOption = PORT,
    host: HostOption = HOST,
    log_format: LogFormatOption = "auto",
    log_level: LogLevelOption = "info",
    otlp_endpoint: OtlpOption = None,
    model: ModelOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run a fleet until Ctrl-C: its servers, its bus, its services.

    Prints where the API, its documentation, the data and the broker are.
    One process owns a data directory at a time. Stopping takes less than
    five seconds; a second Ctrl-C ends it at once, and loses nothing either.
    A topology of several processes runs them as children, and starts again
    what ends; their lines come out here, each with the name of its process.
    """

    def run() -> ExitCode:
        platform = read_platform(model or find_model())
        chosen = find_topology(platform, topology)
        where, http = data_directory(data, topology), HttpBinding(host, port)
        logging = Logging(resolved(log_format), log_level, otlp_endpoint)
        name, fleet = _prepare(platform, chosen, where, http, logging)
        try:
            telemetry.configure(
                name,
                log_format=log_format,
                log_level=log_level,
                otlp_endpoint=otlp_endpoint,
            )
        except ImportError as error:
            raise Failure(ExitCode.USAGE, f"--otlp-endpoint cannot be used: {error}") from error
        try:
            asyncio.run(fleet(lambda runtime: _announce(runtime, json=json)))
        finally:
            telemetry.shutdown(TELEMETRY_STOP_TIMEOUT_S)
        return ExitCode.OK

    finish(run, debug=debug)


def _prepare(
    platform: Platform, topology: Layout, data: Path, http: HttpBinding, logging: Logging
) -> tuple[str, Fleet]:
    """Return what our own log lines are called, and what runs the fleet."""
    if topology.kind == "processes":
        from flotilla_platform.supervising import (  # noqa: PLC0415 - slow, and only needed here
            make_processes_plan,
            run_processes,
        )

        processes = make_processes_plan(platform, topology, data, http, logging)
        return "supervisor", partial(run_processes, processes)
    from flotilla_platform.launch import run_fleet  # noqa: PLC0415 - as above

    plan = make_plan(platform, topology, data, http)
    return topology.deployables[0].name, partial(run_fleet, plan)


def _announce(runtime: Runtime, *, json: bool) -> None:
    if json:
        typer.echo(runtime.model_dump_json())
    else:
        make_console().print(show_runtime(runtime))
    sys.stdout.flush()
