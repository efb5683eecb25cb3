"""`flotilla serve`: one deployable of a topology as a process of its own."""

import asyncio
import os
import sys
from typing import NoReturn

import typer

from flotilla import telemetry
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.options import (
    TOPOLOGY,
    DebugOption,
    DeployableArgument,
    JsonOption,
    LogFormatOption,
    LogLevelOption,
    ModelOption,
    OtlpOption,
    TopologyOption,
)
from flotilla_platform.planning import find_topology, make_part
from flotilla_platform.reading import find_model, read_platform
from flotilla_platform.runtime import Serving

SERVE_EXAMPLES = (
    "FLOTILLA_NATS_URL=nats://127.0.0.1:4222 flotilla serve web-bff --topology vps",
    "FLOTILLA_STORE_URL_FILE=/run/secrets/store FLOTILLA_NATS_URL=nats://nats:4222 \\",
    "    flotilla serve counter --topology vps --log-format json",
)
TELEMETRY_STOP_TIMEOUT_S = 1.0


def serve(
    *,
    deployable: DeployableArgument,
    topology: TopologyOption = TOPOLOGY,
    log_format: LogFormatOption = "auto",
    log_level: LogLevelOption = "info",
    otlp_endpoint: OtlpOption = None,
    model: ModelOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run one deployable of a topology, in the foreground, until SIGTERM.

    It starts no servers: the environment says where they are. They may come
    later than this process; it waits a minute for them. Any may be given as
    NAME_FILE, a path to the value.

      FLOTILLA_STORE_URL          postgresql://…, where its services keep things
      FLOTILLA_NATS_URL           nats://[user:password@]host:4222[,…]
      FLOTILLA_MASTER_KEY         unwraps the keys of personal data
      FLOTILLA_KEYS_URL           where those are, if not beside the store
      FLOTILLA_HTTP_HOST, _PORT   for a service that listens; 0.0.0.0, 8080
      FLOTILLA_ADMIN_HOST, _PORT  /healthz /readyz /metrics; 127.0.0.1, any
    """
    from flotilla_platform.deployable import run_deployable  # noqa: PLC0415 - slow to import
    from flotilla_platform.settings import read_places  # noqa: PLC0415 - slow to import

    def run() -> NoReturn:
        platform = read_platform(model or find_model())
        part = make_part(platform, find_topology(platform, topology), deployable)
        places = read_places(part.needs, {service.name for service in part.everywhere})
        try:
            telemetry.configure(
                part.deployable.name,
                log_format=log_format,
                log_level=log_level,
                otlp_endpoint=otlp_endpoint,
            )
        except ImportError as error:
            raise Failure(ExitCode.USAGE, f"--otlp-endpoint cannot be used: {error}") from error
        try:
            asyncio.run(run_deployable(part, places, lambda found: _announce(found, json=json)))
        finally:
            telemetry.shutdown(TELEMETRY_STOP_TIMEOUT_S)
        _leave()

    finish(run, debug=debug)


def _leave() -> NoReturn:
    """End with 0 now that everything is closed.

    Taking apart all the modules that were loaded took 0.4 s to 1 s a process on two busy cores: time
    that a fleet lacks when all of its processes have to stop within five.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ExitCode.OK)


def _announce(serving: Serving, *, json: bool) -> None:
    if json:
        typer.echo(serving.model_dump_json())
    else:
        where = f", {serving.api}" if serving.api else ""
        typer.echo(f"{serving.deployable} serves: process {serving.pid}, {serving.admin}{where}")
    sys.stdout.flush()
