"""One owner at a time, and never somebody else's files."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flotilla.embedded import DataDirectory, EmbeddedError, runtime_read

OWNER = """
import sys
from pathlib import Path
from flotilla.embedded import DataDirectory
with DataDirectory.claim(Path(sys.argv[1])) as directory:
    directory.runtime_write({"url": "nats://127.0.0.1:1"})
    sys.stdin.read()
"""


def refusal_of(path: Path, topology: str = "single") -> EmbeddedError:
    with pytest.raises(EmbeddedError) as caught, DataDirectory.claim(path, topology=topology):
        pass
    return caught.value


def content_of(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_a_new_directory_is_made_marked_and_can_be_claimed_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    with DataDirectory.claim(path, topology="vps") as directory:
        assert directory.path == path
        assert path.stat().st_mode & 0o777 == 0o700
    marker = json.loads((path / "flotilla-data.json").read_bytes())
    assert (marker["format"], marker["topology"]) == (1, "vps")
    with DataDirectory.claim(path, topology="vps"):
        assert json.loads((path / "flotilla-data.json").read_bytes()) == marker


def test_the_mount_point_of_a_fresh_volume_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    with DataDirectory.claim(tmp_path):
        assert (tmp_path / "flotilla-data.json").exists()


def test_an_owner_that_died_before_it_wrote_the_marker_does_not_lock_us_out(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "flotilla-data.json.new").write_text("{")
    with DataDirectory.claim(tmp_path):
        assert (tmp_path / "flotilla-data.json").exists()


async def test_a_second_process_learns_who_owns_the_directory_and_what_runs_there(
    tmp_path: Path, eventually: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(tmp_path), stdin=asyncio.subprocess.PIPE
    )
    try:

        async def runs() -> bool:
            return runtime_read(tmp_path) == {"url": "nats://127.0.0.1:1"}

        await eventually(runs)
        error = refusal_of(tmp_path)
        assert error.code == "data-directory-in-use"
        assert f"process {owner.pid}" in str(error)
    finally:
        owner.kill()
        await owner.wait()
    assert (tmp_path / "runtime.json").exists()
    assert runtime_read(tmp_path) is None, "what a dead owner wrote is not running"
    with DataDirectory.claim(tmp_path):
        assert runtime_read(tmp_path) is None


def test_what_runs_is_forgotten_on_release(tmp_path: Path) -> None:
    assert runtime_read(tmp_path) is None
    with DataDirectory.claim(tmp_path) as directory:
        directory.runtime_write({"port": 1})
        directory.runtime_write({"port": 2})
        assert runtime_read(tmp_path) == {"port": 2}
    assert not (tmp_path / "runtime.json").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param("holiday.jpg", "not ours", id="foreign files"),
        pytest.param("flotilla-data.json", '{"format": 1, "topo', id="half a marker"),
        pytest.param("flotilla-data.json", "[]", id="another kind of marker"),
        pytest.param("flotilla-data.json", '{"format": 2, "topology": "single"}', id="newer"),
    ],
)
def test_a_directory_that_is_not_ours_is_refused_and_left_alone(
    tmp_path: Path, file: str, content: str
) -> None:
    (tmp_path / file).write_text(content)
    before = content_of(tmp_path)
    error = refusal_of(tmp_path)
    assert error.code == "data-directory-corrupt"
    assert "choose" in str(error)
    assert content_of(tmp_path) == before


def test_a_directory_of_another_topology_is_refused_and_left_alone(tmp_path: Path) -> None:
    with DataDirectory.claim(tmp_path, topology="single"):
        pass
    before = content_of(tmp_path)
    error = refusal_of(tmp_path, topology="single-postgres")
    assert error.code == "data-directory-of-another-topology"
    assert "'single'" in str(error)
    assert content_of(tmp_path) == before


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refusal_of(tmp_path / "file" / "data").code == "data-directory-not-writable"
