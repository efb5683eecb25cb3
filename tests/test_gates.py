"""The harness of this repository: every path has an owner, and no gate that matters is left out."""

import configparser
from pathlib import Path

import grimp
import pytest

from flotilla_platform.harness.importing import import_graph
from flotilla_platform.harness.reading import read_harness, tracked
from flotilla_platform.harness.routing import boundary_mistakes
from flotilla_platform.harness.selecting import gates_of

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def paths() -> list[str]:
    return tracked(ROOT)


def test_every_path_has_one_owner_and_every_import_is_allowed(paths: list[str]) -> None:
    harness = read_harness(ROOT)
    assert [] == harness.check_paths(paths)
    assert [] == boundary_mistakes(harness, paths)


def test_the_import_contracts_are_about_the_packages_of_the_code_map() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    members = {
        package
        for module in read_harness(ROOT).codemap.modules
        for package in module.packages
        if module.kind in ("library", "service")
    }
    assert members == set(parser["importlinter"]["root_packages"].split())


def test_the_graph_of_texts_knows_every_import_that_grimp_knows(paths: list[str]) -> None:
    graph = import_graph(ROOT, paths)
    files = {
        path.partition("/src/")[2]
        .removesuffix(".py")
        .removesuffix("/__init__")
        .replace("/", "."): path
        for path in paths
        if "/src/" in path and path.endswith(".py")
    }
    real = grimp.build_graph(
        "flotilla",
        "flotilla_contracts",
        "flotilla_platform",
        "svc_counter",
        "svc_outbox_relay",
        "svc_projector",
        "svc_web_bff",
        cache_dir=None,
    )
    missing = [
        (module, needed)
        for module in real.modules & files.keys()
        for needed in real.find_modules_directly_imported_by(module) & files.keys()
        if files[needed] not in graph[files[module]]
    ]
    assert len(real.modules) > 100
    assert [] == missing


def test_a_change_of_any_file_is_looked_at_by_some_gate(paths: list[str]) -> None:
    gates = gates_of(read_harness(ROOT), paths)
    chosen = {path: {gate.rule.name for gate in gates if path in gate.reads} for path in paths}
    assert [] == [
        path
        for path, names in chosen.items()
        if not names - {"owners", "docs", "tidy"}
        and "/adr/" not in path
        and not path.startswith(("agent/skills/", "bench/results/"))
    ]
