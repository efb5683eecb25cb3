"""A fleet in one process, as `flotilla up` runs it, with its servers as its children.

    callers ──http──▶ flotilla up ──▶ nats-server, postgres or libSQL files

Whoever starts it again when it ends is a supervisor that the platform does not bring (systemd, say).
"""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM

import httpx

from chaos.links import HOST, tcp_link
from chaos.processes import child_named
from chaos.worlds import READY_TIMEOUT_S, FleetWorld, free_port
from flotilla import Clock
from flotilla.embedded import runtime_read
from flotilla.embedded.child import ChildProcess

FLOTILLA = Path(sys.executable).with_name("flotilla")


def one_process(
    topology: str,
) -> Callable[[Path, Clock], AbstractAsyncContextManager[FleetWorld]]:
    """Return what runs a fleet of this topology."""
    return partial(_run, topology)


@asynccontextmanager
async def _run(topology: str, folder: Path, clock: Clock) -> AsyncIterator[FleetWorld]:
    """Run it for the length of the block; it is well when the block begins.

    Raises:
        RuntimeError: it never was.

    """
    data, port = folder / "data", await free_port()
    direct = f"http://{HOST}:{port}"
    fleet = ChildProcess(
        name="fleet",
        command=(
            *(FLOTILLA, "up", "--topology", topology, "--data", data),
            *("--port", str(port), "--log-format", "json"),
        ),
        is_ready=partial(_answers, f"{direct}/healthz"),
        log_file=folder / "fleet.log",
        stop_signal=SIGTERM,
        harsher_signal=SIGKILL,
        important=r"Error|refused",
    )
    async with AsyncExitStack() as stack:
        link, api_port = await stack.enter_async_context(tcp_link("http", HOST, port))
        stack.push_async_callback(fleet.stop)
        await fleet.start()
        runtime = runtime_read(data) or {}
        stores, nats_url = runtime["stores"], runtime["nats_url"]
        assert isinstance(stores, dict)  # noqa: S101 - says the model of runtime.json
        world = FleetWorld(
            data,
            clock,
            nats=lambda: child_named("nats-server", fleet.pid),
            postgres=lambda: child_named("bin/postgres", fleet.pid),
            stores=stores,
            nats_url=str(nats_url),
            links={"http": link},
            nodes={"fleet": fleet},
            api=f"http://{HOST}:{api_port}",
            direct_api=direct,
        )
        await world.require_well()
        yield world


async def _answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=READY_TIMEOUT_S) as client:
            return (await client.get(url)).is_success
    except (httpx.HTTPError, OSError):
        return False
