"""The command `flotilla`: options in, one result or one clear line out, and a status that means it.

The modules beside this one know the answers; here they are printed, and errors become a status.
What a command needs is imported when it runs: `flotilla --help` starts at once.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from typer.exceptions import Abort, TyperException

from flotilla_platform.answering import PROGRAM, complain, finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.limits import LAG_MAX_S
from flotilla_platform.on_demand import Later, OnDemandGroup
from flotilla_platform.options import (
    HOST,
    PORT,
    TOPOLOGY,
    DataOption,
    DebugOption,
    HostOption,
    JsonOption,
    LagOption,
    ModelOption,
    PortOption,
    TopologyOption,
    VersionOption,
    WatchOption,
    data_directory,
)

if TYPE_CHECKING:
    from flotilla_platform.status import Status


def _examples(*lines: str) -> str:
    return "\n".join(["[bold]Examples[/bold]", *(f"$ {escape(line)}" for line in lines)])


_EXIT_CODES = "\n".join(
    ["[bold]Exit status[/bold]", *(f"  {code.value:>3}  {code.meaning}" for code in ExitCode)]
)


class Commands(OnDemandGroup):
    """What `flotilla` can do besides what stands in this module."""

    epilog_of = staticmethod(_examples)
    later = (
        Later("up", "starting:up", "Run a fleet until Ctrl-C: its servers, its bus, its services."),
        Later(
            "serve",
            "serving:serve",
            "Run one deployable of a topology, in the foreground, until SIGTERM.",
        ),
        Later(
            "events",
            "recounting:events",
            "Show what happened in one stream of a running fleet, now or as of a moment in the past.",
        ),
        Later(
            "why-late",
            "looking:why_late",
            "Say why a projection is behind, and what helps; takes a second to look.",
        ),
        Later(
            "parked",
            "parking:parked_app",
            "What projections could not fold: list it, show it, try it again, give it up.",
        ),
        Later(
            "schedules",
            "scheduling:schedules_app",
            "What happens later, and when: list schedules, show, pause, resume, fire them.",
        ),
        Later(
            "rebuild",
            "rebuilding:rebuild",
            "Make a read model again, from the first event on, while the fleet runs.",
        ),
        Later(
            "replay",
            "replaying:replay",
            "Fold a part of the log again, onto the live view, while the fleet runs.",
        ),
        Later(
            "move",
            "moving:move",
            "Take what a fleet keeps to another store: libSQL files to PostgreSQL, or back.",
        ),
        Later(
            "readers",
            "readers:readers_app",
            "Who reads the logs, and how far it said it was.",
        ),
        Later(
            "audit",
            "audit_command:audit_app",
            "What happened to tenants, in chains of hashes: show it, and prove that nothing lacks.",
        ),
        Later(
            "keys",
            "keys_command:keys_app",
            "The keys of personal data: how many there are, and which master key wraps them.",
        ),
        Later(
            "model",
            "modelling:model_app",
            "The platform model: which services there are, what they may, and what runs where.",
        ),
        Later(
            "workflows",
            "steering:workflows_app",
            "Workflows: list them, show where one stands and why, let it go on, take it back.",
        ),
        Later(
            "new",
            "scaffolding.commands:new_app",
            "Start a new part of the fleet: all of its files, and every list that names it.",
        ),
        Later(
            "route",
            "harness.commands:route",
            "Say whose task a change is: role, write boundaries, reading list, gates.",
        ),
        Later(
            "gate",
            "harness.commands:gate",
            "Run the gates that a change can turn red, and those alone; what is green is not run again.",
        ),
        Later(
            "secrets",
            "secrets.commands:secrets_app",
            "Keep the secrets of deployables encrypted in Git, in the SOPS format with age keys.",
        ),
    )


app = typer.Typer(
    name=PROGRAM,
    cls=Commands,
    help="Run a fleet of event-sourced services from its platform model, and see how it is.",
    epilog=_examples(
        "flotilla doctor                        can this machine run a fleet?",
        "flotilla up                            run the topology `single`",
        "flotilla up -t single-postgres -p 0    on PostgreSQL, on any free port",
        "flotilla up -t vps                     a process a service, supervised",
        "flotilla status --watch                how far every log and projection is",
        "flotilla events acme/counter/visits    what happened to one aggregate",
        "flotilla why-late counters             why is a projection behind?",
        "flotilla parked list                   what could no projection fold?",
        "flotilla rebuild counters              make a read model again, and swap it in",
        "flotilla move -t single-postgres --from-data .flotilla/single    to another store",
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
    import asyncio

    from flotilla import telemetry
    from flotilla.clock import SystemClock
    from flotilla_platform.runtime import find_running
    from flotilla_platform.status import read_status
    from flotilla_platform.watching import keep_showing, show

    where = data_directory(data, topology)

    def read() -> "Status":
        return asyncio.run(read_status(find_running(where), SystemClock(), lag_max_s=lag_max_s))

    def run() -> ExitCode:
        telemetry.configure("flotilla-status", log_level="error")
        if watch:
            keep_showing(read, SystemClock(), json=json)
            return ExitCode.OK
        found = read()
        show(found, json=json)
        return ExitCode.OK if found.healthy else ExitCode.UNHEALTHY

    finish(run, debug=debug)


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
        from flotilla.clock import SystemClock
        from flotilla.service import HttpBinding
        from flotilla_platform.doctor import examine
        from flotilla_platform.showing import make_console, show_diagnosis

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
        from flotilla_platform.reading import find_model, read_platform
        from flotilla_platform.showing import (
            describe_topology,
            make_console,
            print_json,
            show_topologies,
        )

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
