"""`flotilla move` from the command line: what it refuses, and that it says what to do instead."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flotilla_platform.exit_codes import ExitCode

Run = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "hunter2"

REFUSED = [
    ([], ExitCode.USAGE, "--from-data or --from-store"),
    (["--from-data", "a", "--from-store", "x"], ExitCode.USAGE, "--from-data or --from-store"),
    (["--from-data", "ours"], ExitCode.USAGE, "say where to"),
    (["--from-data", "ours", "-t", "singel"], ExitCode.USAGE, "did you mean 'single'?"),
    (["--from-data", "ours", "--to-data", "new"], ExitCode.USAGE, "say with --topology"),
    (["--from-data", "ours", "--to-data", "ours"], ExitCode.USAGE, "are the same"),
    (["--from-data", "ours", "-t", "compose"], ExitCode.USAGE, "name its database"),
    (["--from-data", "ours", "--to-data", "x", "--to-store", "y"], ExitCode.USAGE, "one of them"),
    (["--from-data", "nowhere", "-t", "vps"], ExitCode.NOT_FOUND, "there is no data in nowhere"),
    (["--from-data", "theirs", "-t", "vps"], ExitCode.DATA_DIRECTORY, "holds other files"),
    (
        ["--from-data", "ours", "-t", "vps", "--to-data", "postgres"],
        ExitCode.DATA_DIRECTORY,
        "belongs to the topology 'single-postgres'",
    ),
    (
        ["--from-data", "ours", "--to-store", f"mysql://me:{SECRET}@host/db"],
        ExitCode.USAGE,
        "--to-store is no address of a PostgreSQL server",
    ),
    (
        ["--from-data", "never-started", "-t", "vps"],
        ExitCode.SERVER_FAILED,
        "counter.db does not exist",
    ),
]
"""What is asked, how it ends, and the cure that is named."""


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Data directories that were claimed and never used, and one of somebody else."""
    owners = {"ours": "single", "never-started": "single", "postgres": "single-postgres"}
    for name, topology in owners.items():
        (tmp_path / name).mkdir()
        marker = {"format": 1, "topology": topology, "created_at": "2026-01-01T00:00:00Z"}
        (tmp_path / name / "flotilla-data.json").write_text(json.dumps(marker))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "letters.txt").touch()
    return tmp_path


@pytest.mark.parametrize(("arguments", "code", "cure"), REFUSED)
def test_what_cannot_be_moved_is_refused_with_its_cure_and_nothing_is_made(
    folders: Path, run: Run, arguments: list[str], code: ExitCode, cure: str
) -> None:
    before = sorted(folders.iterdir())

    refused = run("move", *arguments)

    [line] = refused.stderr.splitlines()
    assert (refused.returncode, cure in line, refused.stdout) == (code, True, ""), line
    assert SECRET not in line
    assert before == sorted(folders.iterdir())


def test_the_help_teaches(run: Run) -> None:
    shown = run("move", "--help")

    assert shown.returncode == ExitCode.OK
    assert "The source is only read" in " ".join(shown.stdout.split())
    assert "Examples" in shown.stdout
