"""The commands `flotilla model …`: check the platform model, show it, write its schemas."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.generate_command import GENERATE_EXAMPLES, generate
from flotilla_platform.loading import suggest
from flotilla_platform.model import KINDS, Platform
from flotilla_platform.options import DebugOption, JsonOption, ModelOption
from flotilla_platform.plan_command import PLAN_EXAMPLES, plan_topologies
from flotilla_platform.reading import find_model, inspect_platform, read_platform
from flotilla_platform.schemas import FOLDER, stale_schemas, write_schemas
from flotilla_platform.showing import make_console, plain, print_json, table_of
from flotilla_platform.validators import (
    VALIDATORS,
    Finding,
    Validator,
    exit_code_of,
    run_validators,
)

MODEL_HELP = (
    "The platform model: which services there are, what they may, and what runs where.\n\n"
    "One YAML document a file, in services/, deployables/, topologies/, resources/, environments/, "
    "workflows/, policies/, capabilities/ and owners/."
)
CHECK_EXAMPLES = (
    "flotilla model check",
    "flotilla model check --model ./my-model --only topology-check",
    "flotilla model check --json | jq -r '.validators[].mistakes[]?.instead'",
)
SHOW_EXAMPLES = (
    "flotilla model show",
    "flotilla model show --json | jq '.deployables[].state'",
)
SCHEMA_EXAMPLES = (
    "flotilla model schema --check               are platform-model/schemas/ fresh?",
    "flotilla model schema --write",
)
_STATUSES = "\n".join(
    [
        "[bold]Validators, and the exit status when one finds something[/bold]",
        *(f"  {v.code.value:>3}  {v.name:<16} {v.holds}" for v in VALIDATORS),
        "When several find something, the status is that of the first.",
    ]
)

OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", help="Run this validator alone; may be given several times."),
]
WriteOption = Annotated[bool, typer.Option("--write", help="Write what is not fresh.")]
CheckOption = Annotated[bool, typer.Option("--check", help="Change nothing; 3 when not fresh.")]


def model_app(examples: Callable[..., str]) -> typer.Typer:
    """Return the group of commands; `examples` renders an epilog."""
    app = typer.Typer(help=MODEL_HELP, no_args_is_help=True, rich_markup_mode="rich")
    app.command(epilog=examples(*CHECK_EXAMPLES) + "\n\n" + _STATUSES)(check)
    app.command(epilog=examples(*SHOW_EXAMPLES))(show)
    app.command(epilog=examples(*SCHEMA_EXAMPLES))(schema)
    app.command(epilog=examples(*GENERATE_EXAMPLES))(generate)
    app.command("plan", epilog=examples(*PLAN_EXAMPLES))(plan_topologies)
    return app


def check(
    *,
    only: OnlyOption = None,
    model: ModelOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check the model: can it be read, does it fit together, can every topology be run?

    All mistakes are told, each with file:line:column and what to write instead.
    """

    def run() -> ExitCode:
        findings = run_validators(inspect_platform(model or find_model()), _chosen(only))
        code = exit_code_of(findings)
        if json:
            print_json({"format": 1, "ok": code == ExitCode.OK, "validators": _told(findings)})
        else:
            make_console().print(_show_findings(findings), soft_wrap=True)
        return code

    finish(run, debug=debug)


def show(
    *, model: ModelOption = None, json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Show the model: every part of it, by kind. It must be without mistakes."""

    def run() -> ExitCode:
        platform = read_platform(model or find_model())
        if json:
            print_json({"format": 1, **_as_json(platform)})
        else:
            make_console().print(_show_platform(platform))
        return ExitCode.OK

    finish(run, debug=debug)


def schema(
    *,
    write: WriteOption = False,
    check: CheckOption = False,
    model: ModelOption = None,
    debug: DebugOption = False,
) -> None:
    """Write the JSON Schemas of all kinds beside the model, or check that they are fresh.

    Editors find them by the first line of a file:
    # yaml-language-server: $schema=../schemas/service.json
    """

    def run() -> ExitCode:
        if write == check:
            raise Failure(ExitCode.USAGE, "say what to do with the schemas: --write or --check")
        root = model or find_model()
        if write:
            for name in write_schemas(root):
                typer.echo(f"wrote {name}")
            return ExitCode.OK
        stale = stale_schemas(root)
        if stale:
            told = f"{FOLDER}/ is stale ({', '.join(stale)}): run `flotilla model schema --write`"
            raise Failure(ExitCode.MODEL_INVALID, told)
        return ExitCode.OK

    finish(run, debug=debug)


def _chosen(only: Sequence[str] | None) -> Sequence[Validator]:
    known = [validator.name for validator in VALIDATORS]
    for name in only or ():
        if name not in known:
            told = f"there is no validator {name!r}: {suggest(name, known)}"
            raise Failure(ExitCode.USAGE, told)
    return [validator for validator in VALIDATORS if not only or validator.name in only]


def _told(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [
        {
            "name": finding.validator.name,
            "holds": finding.validator.holds,
            "exit_status": int(finding.validator.code),
            "status": _status(finding),
            "mistakes": [
                {
                    "file": str(mistake.position.file),
                    "line": mistake.position.line,
                    "column": mistake.position.column,
                    "wrong": mistake.wrong,
                    "instead": mistake.instead,
                }
                for mistake in finding.mistakes or ()
            ],
        }
        for finding in findings
    ]


def _status(finding: Finding) -> str:
    if finding.mistakes is None:
        return "skipped"
    return "failed" if finding.mistakes else "passed"


def _show_findings(findings: Sequence[Finding]) -> RenderableType:
    lines: list[RenderableType] = []
    for finding in findings:
        name, mistakes = finding.validator.name, finding.mistakes
        if mistakes is None:
            lines.append(Text(f"- {name}  not run: the model has to be right first", style="dim"))
        elif mistakes:
            many = "mistake" if len(mistakes) == 1 else "mistakes"
            lines.append(Text(f"✗ {name}  {len(mistakes)} {many}", style="red"))
            lines += [Text(f"  {mistake}") for mistake in mistakes]
        else:
            lines.append(Text(f"✓ {name}", style="green"))
    return Group(*lines)


def _as_json(platform: Platform) -> dict[str, Any]:
    return {
        kind.folder: [part.model_dump(mode="json") for part in platform.parts(name).values()]
        for name, kind in KINDS.items()
    }


def _show_platform(platform: Platform) -> RenderableType:
    services = table_of("service", "owner", "log", "commands", "queries", "projections", "needs")
    for service in platform.services.values():
        services.add_row(
            service.name,
            service.owner or "",
            service.log or "",
            str(len(service.commands)),
            str(len(service.queries)),
            ", ".join(projection.name for projection in service.projections),
            ", ".join(service.needs),
        )
    deployables = table_of("deployable", "services", "state", "port", "memory MiB", "image")
    for one in platform.deployables.values():
        given = one.resources
        deployables.add_row(
            one.name,
            ", ".join(one.services),
            one.state,
            str(one.http_port or ""),
            f"{given.memory_request_mib} to {given.memory_limit_mib}",
            one.image_name,
        )
    topologies = table_of("topology", "kind", "runs", "store", "bus")
    for layout in platform.layouts.values():
        topologies.add_row(
            layout.name,
            layout.kind,
            ", ".join(f"{p.name} ×{p.replicas}" for p in layout.deployables),  # noqa: RUF001 - times
            layout.resources.store.name,
            layout.resources.bus.name,
        )
    environments = table_of("environment", "topology", "namespace", "host", "profile")
    for place in platform.environments.values():
        environments.add_row(
            place.name, place.topology, place.namespace_name, place.host, place.profile
        )
    capabilities = table_of("capability", *platform.topologies)
    for capability in platform.capabilities.values():
        states = (capability.state_in(topology) for topology in platform.topologies)
        capabilities.add_row(capability.name, *states)
    rest = table_of("kind", "name", "summary")
    for kind in ("resource", "policy", "workflow", "owner"):
        for name, part in platform.parts(kind).items():
            rest.add_row(kind, name, plain(part.summary))
    tables = (services, deployables, topologies, environments, capabilities, rest)
    return Group(*(table for table in tables if table.row_count))
