"""A child ends when it is told to, whether it wants to or not."""

import asyncio
import signal
import sys
from pathlib import Path

from flotilla.embedded.child import ChildProcess

STOP_LIMIT_S = 5.0
STUBBORN = """
import signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


def child_of(tmp_path: Path, program: str) -> ChildProcess:
    log_file = tmp_path / "log"

    async def is_ready() -> bool:
        return "ready" in log_file.read_text()

    return ChildProcess(
        name="child",
        command=(sys.executable, "-c", program),
        is_ready=is_ready,
        log_file=log_file,
        stop_signal=signal.SIGTERM,
        harsher_signal=signal.SIGQUIT,
        important="Error",
    )


async def test_a_child_that_ignores_every_polite_signal_is_gone_within_the_limit(
    tmp_path: Path,
) -> None:
    child = child_of(tmp_path, STUBBORN)
    await child.start()
    async with asyncio.timeout(STOP_LIMIT_S):
        await child.stop()
    assert not Path(f"/proc/{child.pid}").exists()


async def test_a_start_that_is_cancelled_leaves_no_child(tmp_path: Path) -> None:
    child = child_of(tmp_path, "import time; time.sleep(600)")
    start = asyncio.create_task(child.start())
    async with asyncio.timeout(STOP_LIMIT_S):
        while child._process is None:
            await asyncio.sleep(0.01)
    start.cancel()
    await asyncio.wait([start], timeout=STOP_LIMIT_S)
    assert start.cancelled()
    assert not Path(f"/proc/{child.pid}").exists()
