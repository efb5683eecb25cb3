"""When we are killed, nothing stays behind that blocks the next start."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from flotilla.embedded import DataDirectory, run_nats, run_postgres, runtime_read

OWNER = """
import asyncio, sys
from pathlib import Path
from flotilla.embedded import DataDirectory, child, run_nats, run_postgres
import asyncpg

if sys.argv[2] == "untold":  # as on macOS, or as when the signal is lost
    child.death_signal = lambda number: None

async def main():
    with DataDirectory.claim(Path(sys.argv[1])) as directory:
        async with run_nats(directory.path) as nats, run_postgres(directory.path) as postgres:
            connection = await asyncpg.connect(postgres.dsn)
            await connection.execute("CREATE TABLE t AS SELECT 7 AS n")
            directory.runtime_write({"pids": [nats.pid, postgres.pid], "port": nats.port})
            await asyncio.Event().wait()

asyncio.run(main())
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # a zombie has none
    except OSError:
        return False


@pytest.mark.parametrize("children", ["told", "untold"])
async def test_a_killed_owner_leaves_nothing_that_blocks_the_next_start(
    tmp_path: Path,
    children: str,
    eventually: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]],
) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(tmp_path), children
    )
    try:

        async def is_up() -> bool:
            return runtime_read(tmp_path) is not None

        await eventually(is_up)
        runtime = runtime_read(tmp_path)
    finally:
        owner.send_signal(signal.SIGKILL)
        await owner.wait()
    assert runtime is not None
    pids = runtime["pids"]
    assert isinstance(pids, list)
    assert isinstance(runtime["port"], int)

    if children == "told":

        async def are_gone() -> bool:
            return not any(map(runs, pids))

        await eventually(are_gone)
    else:
        assert all(map(runs, pids))

    with DataDirectory.claim(tmp_path) as directory:
        async with (
            run_nats(directory.path, port=runtime["port"]),
            run_postgres(directory.path) as postgres,
        ):
            assert not any(map(runs, pids))
            connection = await asyncpg.connect(postgres.dsn)
            try:
                assert await connection.fetchval("SELECT n FROM t") == 7
            finally:
                await connection.close()


async def test_a_pid_that_now_belongs_to_somebody_else_is_left_alone(tmp_path: Path) -> None:
    somebody = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        (tmp_path / "nats.pid").write_text(str(somebody.pid))
        async with run_nats(tmp_path):
            assert somebody.returncode is None
            assert runs(somebody.pid)
    finally:
        somebody.kill()
        await somebody.wait()
