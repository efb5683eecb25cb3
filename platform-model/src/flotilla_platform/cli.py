"""The command `flotilla`: options in, one result or one clear line out, and a status that means it.

The modules beside this one know the answers; here they are printed, and errors become a status.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

import typer
from rich.live import Live
from rich.markup import escape
from typer.exceptions import Abort, TyperException

from flotilla import telemetry
from flotilla.clock import SystemClock
from flotilla.service import HttpBinding
from flotilla_platform.answering import PROGRAM, complain, finish
from flotilla_platform.doctor import examine
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.looking import WHY_LATE_EXAMPLES, why_late
from flotilla_platform.modelling import model_app
from flotilla_platform.options import (
    HOST,
    PORT,
    TOPOLOGY,
    DataOption,
    DebugOption,
    HostOption,
    JsonOption,
    LagOption,
    LogFormatOption,
    LogLevelOption,
    ModelOption,
    OtlpOption,
    PortOption,
    TopologyOption,
    VersionOption,
    WatchOption,
    data_directory,
)
from flotilla_platform.parking import parked_app
from flotilla_platform.planning import find_topology, make_plan
from flotilla_platform.reading import find_model, read_platform
from flotilla_platform.rebuilding import REBUILD_EXAMPLES, rebuild
from flotilla_platform.recounting import EVENTS_EXAMPLES, events
from flotilla_platform.replaying import REPLAY_EXAMPLES, replay
from flotilla_platform.runtime import Runtime, find_running
from flotilla_platform.secrets.commands import secrets_app
from flotilla_platform.showing import (
    describe_topology,
    make_console,
    print_json,
    show_diagnosis,
    show_runtime,
    show_status,
    show_topologies,
)
from flotilla_platform.status import LAG_MAX_S, Status, read_status

WATCH_INTERVAL_S = 1.0
TELEMETRY_STOP_TIMEOUT_S = 1.0


def _examples(*lines: str) -> str:
    return "\n".join(["[bold]Examples[/bold]", *(f"$ {escape(line)}" for line in lines)])


_EXIT_CODES = "\n".join(
    ["[bold]Exit status[/bold]", *(f"  {code.value:>3}  {code.meaning}" for code in ExitCode)]
)

app = typer.Typer(
    name=PROGRAM,
    help="Run a fleet of event-sourced services from its platform model, and see how it is.",
    epilog=_examples(
        "flotilla doctor                        can this machine run a fleet?",
        "flotilla up                            run the topology `single`",
        "flotilla up -t single-postgres -p 0    on PostgreSQL, on any free port",
        "flotilla status --watch                how far every log and projection is",
        "flotilla events acme/counter/visits    what happened to one aggregate",
        "flotilla why-late counters             why is a projection behind?",
        "flotilla parked list                   what could no projection fold?",
        "flotilla rebuild counters              make a read model again, and swap it in",
        "flotilla model check                   is the platform model right?",
        "flotilla secrets init dev              secrets of a deployable, encrypted in Git",
    )
    + "\n\n"
    + _EXIT_CODES,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(context: typer.Context, *, show_version: VersionOption = False) -> None:
    """Print the version, or the help when there is no command."""
    if show_version:
        typer.echo(f"{PROGRAM} {version('flotilla-platform')}")
        raise typer.Exit(ExitCode.OK)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(ExitCode.USAGE)


@app.command(
    epilog=_examples(
        "flotilla up",
        "flotilla up --topology single-postgres --data /var/lib/flotilla",
        "flotilla up --port 0 --json | head -1 | jq -r .api",
        "FLOTILLA_PORT=9000 flotilla up --log-format json",
    )
)
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
    """
    from flotilla_platform.launch import run_fleet  # noqa: PLC0415 - slow, and only needed here

    def run() -> ExitCode:
        platform = read_platform(model or find_model())
        chosen = find_topology(platform, topology)
        where = data_directory(data, topology)
        plan = make_plan(platform, chosen, where, HttpBinding(host, port))
        try:
            telemetry.configure(
                chosen.deployables[0].name,
                log_format=log_format,
                log_level=log_level,
                otlp_endpoint=otlp_endpoint,
            )
        except ImportError as error:
            raise Failure(ExitCode.USAGE, f"--otlp-endpoint cannot be used: {error}") from error
        try:
            asyncio.run(run_fleet(plan, lambda runtime: _announce(runtime, json=json)))
        finally:
            telemetry.shutdown(TELEMETRY_STOP_TIMEOUT_S)
        return ExitCode.OK

    finish(run, debug=debug)


def _announce(runtime: Runtime, *, json: bool) -> None:
    if json:
        typer.echo(runtime.model_dump_json())
    else:
        make_console().print(show_runtime(runtime))
    sys.stdout.flush()


@app.command(
    epilog=_examples(
        "flotilla status",
        "flotilla status --watch",
        "flotilla status --data /var/lib/flotilla --json | jq '.projections[].lag_events'",
        "flotilla status --lag-max-s 60 || echo 'more than a minute behind'",
    )
)
def status(
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    lag_max_s: LagOption = LAG_MAX_S,
    watch: WatchOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show how far every log and every projection of a running fleet is.

    Read from the tables, so that it is right even when the relay is dead.
    The lag of a projection is its log's committed head less its checkpoint.

    Exit status: 0 when everything answers and nothing is more than --lag-max-s
    behind, 8 when not, 7 when nothing is running. With --watch: 0 on Ctrl-C.
    """
    where = data_directory(data, topology)

    def read() -> Status:
        return asyncio.run(read_status(find_running(where), SystemClock(), lag_max_s=lag_max_s))

    def run() -> ExitCode:
        telemetry.configure("flotilla-status", log_level="error")
        if watch:
            _watch(read, json=json)
            return ExitCode.OK
        found = read()
        _print_status(found, json=json)
        return ExitCode.OK if found.healthy else ExitCode.UNHEALTHY

    finish(run, debug=debug)


def _print_status(found: Status, *, json: bool) -> None:
    if json:
        typer.echo(found.model_dump_json())
    else:
        make_console().print(show_status(found))


def _watch(read: Callable[[], Status], *, json: bool) -> None:
    """Show the status again and again; Ctrl-C is how it ends, and no error."""
    clock = SystemClock()
    console = make_console()
    try:
        if json or not console.is_terminal:
            while True:
                _print_status(read(), json=json)
                sys.stdout.flush()
                asyncio.run(clock.sleep(WATCH_INTERVAL_S))
        with Live(show_status(read()), console=console, auto_refresh=False) as live:
            while True:
                asyncio.run(clock.sleep(WATCH_INTERVAL_S))
                live.update(show_status(read()), refresh=True)
    except KeyboardInterrupt:
        return


app.command(epilog=_examples(*EVENTS_EXAMPLES))(events)
app.command("why-late", epilog=_examples(*WHY_LATE_EXAMPLES))(why_late)
app.add_typer(parked_app(_examples), name="parked")
app.add_typer(model_app(_examples), name="model")
app.add_typer(secrets_app(_examples), name="secrets")
app.command(epilog=_examples(*REBUILD_EXAMPLES))(rebuild)
app.command(epilog=_examples(*REPLAY_EXAMPLES))(replay)


@app.command(
    epilog=_examples(
        "flotilla doctor",
        "flotilla doctor --port 9000 --data /var/lib/flotilla",
        "flotilla doctor --json | jq '.checks[] | select(.ok | not)'",
    )
)
def doctor(
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    port: PortOption = PORT,
    host: HostOption = HOST,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check whether this machine can run a fleet, and name the cure for what is missing.

    ✓ is fine, ✗ must be cured, ! is worth knowing.
    Exit status: 0 when there is no ✗, else 8.
    """

    def run() -> ExitCode:
        diagnosis = examine(data_directory(data, topology), HttpBinding(host, port), SystemClock())
        if json:
            typer.echo(diagnosis.model_dump_json())
        else:
            make_console().print(show_diagnosis(diagnosis))
        return ExitCode.OK if diagnosis.healthy else ExitCode.UNHEALTHY

    finish(run, debug=debug)


@app.command(epilog=_examples("flotilla topologies", "flotilla topologies --model ./my-model"))
def topologies(
    *, model: ModelOption = None, json: JsonOption = False, debug: DebugOption = False
) -> None:
    """List the topologies of the platform model: where the same services can run."""

    def run() -> ExitCode:
        platform = read_platform(model or find_model())
        found = list(platform.layouts.values())
        if json:
            print_json({"format": 1, "topologies": [describe_topology(one) for one in found]})
        else:
            make_console().print(show_topologies(found, TOPOLOGY))
        return ExitCode.OK

    finish(run, debug=debug)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name=PROGRAM, standalone_mode=False)
    except TyperException as error:  # a wrong command line: one line, as for every other error
        path = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        message = " ".join(error.format_message().split())
        complain(Failure(ExitCode.USAGE, f"{message} (see `{path} --help`)"))
        code = ExitCode.USAGE
    except (Abort, KeyboardInterrupt):
        code = ExitCode.INTERRUPTED
    sys.exit(int(code or ExitCode.OK))
