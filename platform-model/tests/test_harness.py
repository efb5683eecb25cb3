"""Routes and gates: on a small checkout of its own, with a violation that each must catch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flotilla.clock import SystemClock
from flotilla_platform.exit_codes import Failure
from flotilla_platform.harness.importing import closure, import_graph
from flotilla_platform.harness.reading import Harness, read_harness, tracked
from flotilla_platform.harness.reporting import as_data, as_junit, as_sarif
from flotilla_platform.harness.routing import boundary_mistakes, route
from flotilla_platform.harness.running import Result, Runner
from flotilla_platform.harness.selecting import Gate, gates_of, input_hash
from flotilla_platform.loading import ModelInvalid

FILES = {
    "pyproject.toml": "[tool.uv.workspace]\nmembers = []\n",
    "lib/src/lib/__init__.py": "",
    "lib/src/lib/core.py": "ONE = 1\n",
    "lib/src/lib/read.sql": "select 1",
    "svc/src/svc/__init__.py": "",
    "svc/src/svc/main.py": "def run():\n    from lib import core\n    return core.ONE\n",
    "svc/tests/test_svc.py": "ENTRY = 'svc.main:run'\n",
    "out/made.json": "{}",
    "agent/codemap.yml": """
kinds: [{name: code}]
modules:
  - {name: lib, kind: code, paths: [lib/], packages: [lib]}
  - {name: svc, kind: code, paths: [svc/], packages: [svc], may_import: [lib]}
  - {name: rest, kind: code, paths: [agent/, out/, pyproject.toml]}
generated: [{paths: [out/], sources: [lib/], cure: make out}]
""",
    "agent/manifests/routing-rules.yml": """
roles:
  - {name: keeper, summary: Keeps., owns: [lib, rest], reads: [README.md], words: [keep]}
  - {name: writer, summary: Writes., owns: [svc], reads: [README.md], words: [write]}
""",
    "agent/manifests/gate-matrix.yml": """
everything: [pyproject.toml]
gates:
  - {name: svc, holds: It works., stage: test, imports: [svc/tests/],
     run: [["{python}", svc/src/svc/main.py]]}
  - {name: lib, holds: It works., stage: check, reads: [lib/], run: [["{python}", lib/src/lib/core.py]]}
""",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def gates(harness: Harness) -> list[Gate]:
    return gates_of(harness, tracked(harness.root))


async def run(harness: Harness, **how: float) -> list[Result]:
    runner = Runner(harness.root, {"python": sys.executable}, SystemClock(), **how)  # type: ignore[arg-type]
    return await runner.run([(gate, input_hash(harness, gate)) for gate in gates(harness)])


def test_a_path_has_exactly_one_owner(checkout: Path) -> None:
    harness = read_harness(checkout)
    assert [] == harness.check_paths(tracked(checkout))
    with pytest.raises(Failure, match="nobody's"):
        harness.owner("lost.py")


def test_a_name_that_is_nobodys_is_told_with_its_place(checkout: Path) -> None:
    file = checkout / "agent/codemap.yml"
    file.write_text(file.read_text().replace("may_import: [lib]", "may_import: [lab]"))
    with pytest.raises(
        ModelInvalid, match=r"codemap.yml:5:\d+: there is no 'lab'; did you mean 'lib'"
    ):
        read_harness(checkout)


def test_a_change_across_a_boundary_or_of_what_is_generated_is_refused(checkout: Path) -> None:
    harness = read_harness(checkout)
    crossing = route(harness, ["svc/src/svc/main.py", "lib/src/lib/core.py"], [], is_diff=True)
    edited = route(harness, ["out/made.json"], [], is_diff=True)
    made = route(harness, ["out/made.json", "lib/src/lib/core.py"], [], is_diff=True)

    assert "as a change of its own" in crossing.refused[0]
    assert "make out" in edited.refused[0]
    assert () == made.refused


def test_an_import_that_the_map_does_not_allow_is_a_mistake(checkout: Path) -> None:
    (checkout / "lib/src/lib/core.py").write_text("import svc.main\n")
    found = boundary_mistakes(read_harness(checkout), tracked(checkout))
    assert "lib may not import svc" in found[0]


def test_imports_in_functions_texts_and_data_of_packages_are_followed(checkout: Path) -> None:
    found = closure(import_graph(checkout, tracked(checkout)), ["svc/tests/test_svc.py"])
    assert {"svc/src/svc/main.py", "lib/src/lib/core.py", "lib/src/lib/read.sql"} <= found


async def test_a_red_gate_is_red_every_time_and_a_green_one_runs_once(checkout: Path) -> None:
    (checkout / "svc/src/svc/main.py").write_text("import lib\nraise SystemExit('broken')\n")
    for cached in (False, True):
        lib, svc = await run(read_harness(checkout))
        assert ("green", cached) == (lib.outcome, lib.cached)
        assert ("red", False) == (svc.outcome, svc.cached)
        assert "import" in svc.tail() or "broken" in svc.tail()
    assert not as_data([lib, svc])["green"]
    assert 'failures="1"' in as_junit([lib, svc])
    assert ["svc"] == [r["ruleId"] for r in json.loads(as_sarif([lib, svc]))["runs"][0]["results"]]


async def test_what_had_no_time_is_not_green(checkout: Path) -> None:
    assert {"not-run"} == {r.outcome for r in await run(read_harness(checkout), budget_s=0.0)}
