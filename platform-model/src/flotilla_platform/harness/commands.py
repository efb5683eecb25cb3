"""The commands `flotilla route` and `flotilla gate`."""

import asyncio
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

from flotilla.clock import SystemClock
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.harness.parts import STAGES, Role
from flotilla_platform.harness.reading import (
    Harness,
    changed_since,
    find_root,
    read_harness,
    tracked,
)
from flotilla_platform.harness.reporting import as_data, as_junit, as_sarif
from flotilla_platform.harness.routing import boundary_mistakes, role_of_text
from flotilla_platform.harness.routing import route as route_of
from flotilla_platform.harness.running import Result, Runner
from flotilla_platform.harness.selecting import SHOWN_MAX, Gate, gates_of, input_hash
from flotilla_platform.loading import suggest
from flotilla_platform.options import DebugOption, JsonOption
from flotilla_platform.showing import print_json

ROUTE_EXAMPLES = (
    "flotilla route svc-counter/src/svc_counter/main.py",
    "flotilla route --diff main                     may this change go in as one?",
    'flotilla route --task "a new projection"',
    "flotilla route --check                         every path, every import, every kind",
)
GATE_EXAMPLES = (
    "flotilla gate --diff main --explain            what would run, and why?",
    "flotilla gate --diff main",
    "flotilla gate service                          what a role's modules need",
    "flotilla gate --all --junit gates.xml",
    "flotilla gate --all --stage check --fresh",
)
_SUMMARY = re.compile(r"^=*\s*(\d+ (passed|failed).* in [\d.]+s.*?)\s*=*$", re.MULTILINE)

PathsArgument = Annotated[list[str] | None, typer.Argument(metavar="PATHS", show_default=False)]
RoleArgument = Annotated[str | None, typer.Argument(metavar="ROLE", show_default=False)]
DiffOption = Annotated[
    str | None, typer.Option("--diff", metavar="BASE", help="What changed since BASE.")
]
TaskOption = Annotated[str | None, typer.Option("--task", help="What is to be done, in words.")]
RoleOption = Annotated[str | None, typer.Option("--role", help="Whose change it is.")]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Check every tracked path, import and module.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every gate.")]
StageOption = Annotated[
    list[str] | None, typer.Option("--stage", help="Only of this stage: check, test, break.")
]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="Only this gate, or kind.")]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Run nothing; say why each would.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Run also what is known to be green.")]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, max=16, help="So many at once.")]
BudgetOption = Annotated[
    float, typer.Option("--budget-s", min=1, help="Begin nothing, end everything after this.")
]
JunitOption = Annotated[Path | None, typer.Option("--junit", help="Write a JUnit file.")]
SarifOption = Annotated[Path | None, typer.Option("--sarif", help="Write a SARIF file.")]


def route(
    paths: PathsArgument = None,
    *,
    diff: DiffOption = None,
    task: TaskOption = None,
    role: RoleOption = None,
    check: CheckOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say whose task a change is: role, write boundaries, reading list, gates.

    Exit status: 50 when a path has not exactly one owner, crosses a boundary or is generated.
    """

    def run() -> ExitCode:
        harness = read_harness(find_root())
        known = tracked(harness.root)
        if check:
            _refuse([*harness.check_paths(known), *boundary_mistakes(harness, known)])
            return ExitCode.OK
        if sum((bool(paths), diff is not None, task is not None)) != 1:
            raise Failure(ExitCode.USAGE, "give paths, or --diff BASE, or --task TEXT, or --check")
        touched = changed_since(harness.root, diff) if diff is not None else list(paths or ())
        chosen = _role(harness, role) if role else role_of_text(harness, task) if task else None
        found = route_of(
            harness, touched, gates_of(harness, known), role=chosen, is_diff=diff is not None
        )
        told = {
            "role": found.role.name,
            "summary": found.role.summary,
            "reads": [*found.role.reads, f"agent/skills/{found.role.name}/SKILL.md"],
            "writes": list(found.writes),
            "owners": found.owners,
            "gates": list(found.gates),
            "parallel": list(found.parallel),
            "refused": list(found.refused),
        }
        if json:
            print_json({"format": 1, **told})
        else:
            for key, value in told.items():
                typer.echo(f"{key:<9} {', '.join(value) if not isinstance(value, str) else value}")
        _refuse(found.refused)
        return ExitCode.OK

    finish(run, debug=debug)


def gate(
    role: RoleArgument = None,
    *,
    diff: DiffOption = None,
    everything: AllOption = False,
    stage: StageOption = None,
    only: OnlyOption = None,
    explain: ExplainOption = False,
    fresh: FreshOption = False,
    jobs: JobsOption = 2,
    budget_s: BudgetOption = 7200.0,
    junit: JunitOption = None,
    sarif: SarifOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the gates that a change can turn red, and those alone; what is green is not run again.

    Exit status: 51 when one is red, took too long or was not begun in time.
    """

    def run() -> ExitCode:
        harness = read_harness(find_root())
        known = tracked(harness.root)
        if sum((role is not None, diff is not None, everything)) != 1:
            raise Failure(ExitCode.USAGE, "give a ROLE, or --diff BASE, or --all")
        gates = _of(gates_of(harness, known), stage, only)
        changed: Sequence[str] = known
        if diff is not None:
            changed = changed_since(harness.root, diff)
        elif role is not None:
            own = _role(harness, role).owns
            changed = [path for path in known if harness.owner(path).name in own]
        why = {one.name: one.why(changed) for one in gates}
        results = [Result(one, "unaffected") for one in gates if not why[one.name]]
        if explain:
            _explain(gates, why)
            return ExitCode.OK
        wanted = [(one, input_hash(harness, one)) for one in gates if why[one.name]]
        done = _run(harness, wanted, jobs, budget_s, fresh=fresh)
        results += [replace(result, why=why[result.gate.name]) for result in done]
        if json:
            print_json(as_data(results))
        for file, text in ((junit, as_junit), (sarif, as_sarif)):
            if file is not None:
                file.write_text(text(results), encoding="utf-8")
        red = [result.gate.name for result in results if result.bad]
        if red:
            raise Failure(
                ExitCode.GATE_RED, f"red: {', '.join(red)} (logs: .flotilla-gates/<gate>/log)"
            )
        return ExitCode.OK

    finish(run, debug=debug)


def _run(
    harness: Harness,
    wanted: Sequence[tuple[Gate, str]],
    jobs: int,
    budget_s: float,
    *,
    fresh: bool,
) -> list[Result]:
    console, words = Console(stderr=True), _words(harness.root)
    with console.status("gates") as status:
        told = _teller(console, status)
        runner = Runner(harness.root, words, SystemClock(), jobs, budget_s, fresh, told)
        return asyncio.run(runner.run(wanted))


def _of(gates: list[Gate], stage: list[str] | None, only: list[str] | None) -> list[Gate]:
    names = [name for one in gates for name in (one.name, one.rule.name)]
    for given, choices in ((stage or (), STAGES), (only or (), names)):
        for one in given:
            if one not in choices:
                wrong = f"there is no {one!r}: {suggest(one, list(dict.fromkeys(choices)))}"
                raise Failure(ExitCode.USAGE, wrong)
    return [
        one
        for one in gates
        if (not stage or one.stage in stage) and (not only or {one.name, one.rule.name} & {*only})
    ]


def _role(harness: Harness, name: str) -> Role:
    roles = {role.name: role for role in harness.routing.roles}
    if name not in roles:
        raise Failure(ExitCode.USAGE, f"there is no role {name!r}: {suggest(name, list(roles))}")
    return roles[name]


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        raise Failure(ExitCode.ROUTE_REFUSED, "\n".join(wrong))


def _words(root: Path) -> dict[str, str]:
    uv = shutil.which("uv") or str(root / ".tools" / "bin" / "uv")
    return {"bin": str(Path(sys.executable).parent), "uv": uv}


def _explain(gates: Sequence[Gate], why: dict[str, tuple[str, ...]]) -> None:
    for one in gates:
        found = why[one.name]
        more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
        said = f"reads {', '.join(found[:SHOWN_MAX])}{more}" if found else "reads nothing of it"
        typer.echo(f"{'run ' if found else 'skip'} {one.name:<24} {said}")


class _teller:  # noqa: N801 - called like a function
    """Tells what runs, and of each gate how it ended: lines that a log keeps."""

    def __init__(self, console: Console, status: Status) -> None:
        self.console, self.status, self.running = console, status, set[str]()

    def __call__(self, name: str, result: Result | None) -> None:
        """Tell that a gate began, or how it ended."""
        if result is None:
            self.running.add(name)
        else:
            self.running.discard(name)
            tail = result.tail()
            said = "; ".join(found[0] for found in _SUMMARY.findall(tail))
            how = "cached" if result.cached else f"{result.seconds:.1f} s"
            line = f"{result.outcome:<8} {name} ({how}) {said}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
            if result.bad:
                self.console.print(tail, markup=False, highlight=False, soft_wrap=True)
        self.status.update(f"gates: {', '.join(sorted(self.running))}")
