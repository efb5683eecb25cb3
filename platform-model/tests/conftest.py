"""A model of one's own in a folder, and fleets that run it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flotilla.testing import servers
from flotilla_platform.testing import (
    COMMAND,
    Fleet,
    environment,
    run_flotilla,
    start_fleet,
)

ENV = {
    "PYTHONPATH": os.pathsep.join(
        filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
    )
}
NEEDS = {"listens": "[bus, http]", "keeps": "[store]", "relays": "[bus]", "folds": "[views]"}

WriteModel = Callable[..., Path]
Run = Callable[..., subprocess.CompletedProcess[str]]
Begin = Callable[..., subprocess.Popen[str]]
Up = Callable[..., Fleet]


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Write a model whose one topology runs the named services of `tiny_services`."""

    def write(*names: str, engine: str = "libsql", **entrypoints: str) -> Path:
        root = tmp_path / "model"
        for folder in ("services", "topologies"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            entrypoint = entrypoints.get(name, f"tiny_services:{name.replace('-', '_')}")
            (root / "services" / f"{name}.yaml").write_text(
                f"name: {name}\nsummary: A test's own.\nentrypoint: {entrypoint}\n"
                f"log: {'keeps' if name == 'keeps' else 'null'}\n"
                f"needs: {NEEDS.get(name, '[bus]')}\n"
                + ("read_models: tiny_services:read_models\n" if name == "folds" else "")
            )
        (root / "topologies" / "single.yaml").write_text(
            "name: single\nsummary: A test's own.\nkind: one-process\nresources:\n"
            f"  store: {{ engine: {engine}, server: embedded }}\n"
            "  bus: { engine: nats, server: embedded }\ndeployables:\n"
            f"  - name: fleet\n    services: [{', '.join(names)}]\n"
        )
        return root

    return write


@pytest.fixture
def write_processes(write_model: WriteModel) -> WriteModel:
    """Write a model whose topology `many` runs each of the named services as a process of its own."""

    def write(*names: str, **replicas: int) -> Path:
        root = write_model(*names)
        (root / "topologies" / "many.yaml").write_text(
            "name: many\nsummary: A test's own.\nkind: processes\nresources:\n"
            "  store: { engine: postgres, server: embedded }\n"
            "  bus: { engine: nats, server: embedded }\ndeployables:\n"
            + "".join(
                f"  - name: {name}\n    services: [{name}]\n"
                f"    replicas: {replicas.get(name.replace('-', '_'), 1)}\n"
                for name in names
            )
        )
        return root

    return write


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `flotilla` to its end, in the test's folder."""

    def flotilla(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        return run_flotilla(tmp_path, *arguments, env=ENV | env)

    return flotilla


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Start `flotilla` in the test's folder, to be interrupted."""

    def flotilla(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            env=environment(ENV),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return flotilla


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user may pass; pytest closes its own to everybody, again and again."""
    with servers.open_folder() as folder:
        yield folder


@pytest.fixture
def up(tmp_path: Path, write_model: WriteModel) -> Iterator[Up]:
    """Start fleets, as many as a test wants, on any free port; all are ended with the test."""
    with ExitStack() as stack:

        def start(*names: str, arguments: tuple[object, ...] = (), **entrypoints: str) -> Fleet:
            root = write_model(*names, **entrypoints)
            given = ("--model", root, "--port", 0, *arguments)
            return stack.enter_context(start_fleet(tmp_path, *given, env=ENV))

        yield start
