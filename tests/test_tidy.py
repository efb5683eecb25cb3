"""Properties of the code itself that no linter checks. A failure names file, line and cure."""

import ast
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FUNCTION_CODE_LINES_MAX = 54
MODULE_CODE_LINES_MAX = 260
LOOP_BUDGETS = {
    # Raising one takes an ADR: these files are what everything else rests on.
    "kernel/src/flotilla/execute.py": 110,
    "kernel/src/flotilla/commit.py": 95,
    "kernel/src/flotilla/lanes.py": 65,
    "kernel/src/flotilla/workflow/moving.py": 165,
    "kernel/src/flotilla/workflow/pump.py": 170,
    "svc-outbox-relay/src/svc_outbox_relay/relay.py": 115,
    "svc-outbox-relay/src/svc_outbox_relay/handshake.py": 85,
    "svc-projector/src/svc_projector/projector.py": 110,
}
"""Lines of code: neither blank nor comment nor docstring."""
JUNK_DRAWERS = {"utils", "util", "helpers", "common", "misc", "base", "manager"}
HOUSE = {
    # What a member has beside its tests: a newcomer finds the same rooms everywhere.
    "svc-counter": {"domain", "application.py", "settings.py", "main.py"},
    "svc-outbox-relay": {"settings.py", "main.py"},
    "svc-projector": {"settings.py", "main.py"},
    "svc-tenant": {"domain", "application.py", "settings.py", "main.py"},
    "svc-web-bff": {"settings.py", "main.py"},
}


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def sources() -> list[Path]:
    return [
        path
        for path in tracked(
            *("*/src/**/*.py", "*/src/*.py", "chaos/*.py", "simulation/*.py"),
            *("images/*.py", "deploy/docker/*.py"),
        )
        if path.suffix == ".py"
    ]


def code_lines(text: str) -> set[int]:
    """Return the numbers of the lines that are neither blank nor comment nor docstring."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documented |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return {
        n
        for n, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.strip().startswith("#") and n not in documented
    }


def complaints(path: Path) -> list[str]:
    text, where, found = path.read_text(), path.relative_to(ROOT), list[str]()
    code = code_lines(text)
    if path.stem in JUNK_DRAWERS:
        found.append(f"{where}: name it after what it does")
    if len(code) > MODULE_CODE_LINES_MAX and "testing" not in path.parts:
        found.append(f"{where}: {len(code)} lines of code; split along a seam, not in half")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = len(code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
            if length > FUNCTION_CODE_LINES_MAX:
                found.append(
                    f"{where}:{node.lineno}: {node.name} is {length} lines; name its parts"
                )
    return found


def test_modules_and_functions_stay_small_and_are_named_for_what_they_do() -> None:
    assert len(sources()) > 50
    assert [] == [complaint for path in sources() for complaint in complaints(path)]


def test_the_core_loops_stay_within_their_budgets() -> None:
    over = {
        name: f"{found} lines of code, {budget} allowed: simplify, or write an ADR"
        for name, budget in LOOP_BUDGETS.items()
        if (found := len(code_lines((ROOT / name).read_text()))) > budget
    }
    assert {} == over


def test_every_service_has_the_same_rooms() -> None:
    for member, rooms in HOUSE.items():
        package = ROOT / member / "src" / member.replace("-", "_")
        missing = rooms - {path.name for path in package.iterdir()}
        assert set() == missing, f"{member} lacks {missing}: see svc-counter"
        assert list((ROOT / member / "tests").glob("test_*.py")), f"{member} has no tests"


def test_every_member_is_known_to_everybody_who_lists_members() -> None:
    members = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]
    )
    folders = {path.parent.name for path in ROOT.glob("*/pyproject.toml")}
    makefile = next(
        line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("MEMBERS")
    )

    assert members == folders
    assert members == set(makefile.split(":=")[1].split())


def test_the_lock_file_knows_public_addresses_only() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    sources = {str(package["source"].get("registry", "local")) for package in lock["package"]}
    assert {"https://pypi.org/simple", "local"} == sources


def test_nobody_names_the_machine_it_was_written_on() -> None:
    places = ("/" + "work/", "/" + "root/")
    for path in tracked("*.py", "*.md", "*.yaml", "*.toml", "Makefile", "*.sql", ".ci/run"):
        text = path.read_text()
        assert not [place for place in places if place in text], path
