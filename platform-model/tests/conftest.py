"""A model of one's own in a folder, and fleets that run it."""

import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import structlog

from flotilla.testing import servers
from flotilla_platform.cli import main
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
NEEDS = {
    "listens": "[bus, http]",
    "keeps": "[store]",
    "relays": "[bus]",
    "folds": "[views]",
    "seals": "[bus, keys]",
}

WriteModel = Callable[..., Path]
Run = Callable[..., subprocess.CompletedProcess[str]]
Begin = Callable[..., subprocess.Popen[str]]
Up = Callable[..., Fleet]


def write(root: Path, *names: str, engine: str = "libsql", **entrypoints: str) -> Path:
    """Write a model whose one topology runs the named services of `tiny_services`."""
    for folder in ("services", "deployables", "resources", "topologies"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        entrypoint = entrypoints.get(name, f"tiny_services:{name.replace('-', '_')}")
        (root / "services" / f"{name}.yaml").write_text(
            f"name: {name}\nsummary: A test's own.\nentrypoint: {entrypoint}\n"
            f"log: {'keeps' if name == 'keeps' else 'null'}\n"
            f"needs: {NEEDS.get(name, '[bus]')}\n"
            + ("read_models: tiny_services:read_models\n" if name == "folds" else "")
        )
    for name, server in (("store", engine), ("bus", "nats")):
        (root / "resources" / f"{name}.yaml").write_text(
            f"name: {name}\nsummary: A test's own.\nengine: {server}\nserver: embedded\n"
        )
    (root / "deployables" / "fleet.yaml").write_text(
        f"name: fleet\nsummary: A test's own.\nservices: [{', '.join(names)}]\n"
        + ("http_port: 8080\n" if "listens" in names else "")
        + "state: embedded\n"
    )
    (root / "topologies" / "single.yaml").write_text(
        "name: single\nsummary: A test's own.\nkind: one-process\n"
        "resources: { store: store, bus: bus }\nplacements:\n  - { deployable: fleet }\n"
    )
    return root


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Write a model, as `write` does, into the test's folder."""
    return partial(write, tmp_path / "model")


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for all tests of a module that only look: a log with two streams, told once."""
    folder = tmp_path_factory.mktemp("telling")
    root = write(folder / "model", "keeps", keeps="tiny_services:tells")
    with start_fleet(folder, "--model", root, "--port", 0, env=ENV) as fleet:
        fleet.runtime()
        yield fleet


@pytest.fixture
def write_processes(write_model: WriteModel) -> WriteModel:
    """Write a model whose topology `many` runs each of the named services as a process of its own."""

    def write_all(*names: str, **replicas: int) -> Path:
        root = write_model(*names)
        for name in names:
            port = "http_port: 8080\n" if name == "listens" else ""
            (root / "deployables" / f"{name}.yaml").write_text(
                f"name: {name}\nsummary: A test's own.\nservices: [{name}]\n{port}"
            )
        (root / "resources" / "server.yaml").write_text(
            "name: server\nsummary: A test's own.\nengine: postgres\nserver: embedded\n"
        )
        (root / "topologies" / "many.yaml").write_text(
            "name: many\nsummary: A test's own.\nkind: processes\n"
            "resources: { store: server, bus: bus }\nplacements:\n"
            + "".join(
                f"  - {{ deployable: {name}, replicas: {replicas.get(name.replace('-', '_'), 1)} }}\n"
                for name in names
            )
        )
        return root

    return write_all


@pytest.fixture
def run_process(tmp_path: Path) -> Run:
    """Run `flotilla` to its end, in the test's folder, as a process of its own."""

    def flotilla(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        return run_flotilla(tmp_path, *arguments, env=ENV | env)

    return flotilla


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_process: Run) -> Run:
    """Run `flotilla` to its end, in the test's folder: what `run_process` does, in this process.

    The same `main` gets the same arguments, folder and environment, and writes to the same places;
    only the interpreter is already there. Fleets that it asks are processes all the same, and `up`
    is one always: its signals are its process's, and its last resort is to end that at once.
    """
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def flotilla(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        if arguments[:1] == ("up",):
            return run_process(*arguments, **env)
        out, err = StringIO(), StringIO()
        with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(tmp_path)
            for name in set(os.environ) - set(wanted := environment(ENV | env)):
                patch.delenv(name)
            for name, value in wanted.items():
                patch.setenv(name, value)
            with unconfigured_logging(), pytest.raises(SystemExit) as end:
                main(list(map(str, arguments)))
        return subprocess.CompletedProcess(
            list(map(str, arguments)), int(str(end.value.code)), out.getvalue(), err.getvalue()
        )

    return flotilla


@contextmanager
def unconfigured_logging() -> Iterator[None]:
    """Forget what a command has configured for its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()


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
