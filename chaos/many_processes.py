"""A fleet in many processes, on servers of this run, with a link before everything that listens.

    callers ──http──▶ bff ┐
                          ├──nats──▶ nats-server
    counter-1, counter-2  │
    relay-1, relay-2      ├──postgres──▶ postgres
    projector-1, -2       ┘

A process that ends is started again by its supervisor, as it would be anywhere; servers, too. Nothing
else helps: what a round leaves broken stays broken.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from chaos.links import HOST, tcp_link, unix_link
from chaos.processes import send
from chaos.worlds import FleetWorld, free_port
from flotilla import Clock
from flotilla.embedded import run_nats, run_postgres
from flotilla.embedded.child import ChildProcess

NODES: Mapping[str, Sequence[str]] = {
    "bff": ["web-bff"],
    "counter-1": ["counter"],
    "counter-2": ["counter"],
    "relay-1": ["outbox-relay"],
    "relay-2": ["outbox-relay"],
    "projector-1": ["projector"],
    "projector-2": ["projector"],
}
STORES = ("counter", "projector")
PROGRAM = Path(__file__).with_name("node.py")
SOCKET = ".s.PGSQL.5432"


@asynccontextmanager
async def many_processes(folder: Path, clock: Clock) -> AsyncIterator[FleetWorld]:
    """Run everything for the length of the block; it is well when the block begins.

    Raises:
        RuntimeError: it never was.

    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        postgres = await enter(run_postgres(folder))
        nats = await enter(run_nats(folder))
        sockets = parse_qs(urlsplit(postgres.dsn).query)["host"][0]
        near = folder / "link"
        near.mkdir()
        postgres_link = await enter(unix_link("postgres", Path(sockets) / SOCKET, near / SOCKET))
        nats_link, nats_port = await enter(tcp_link("nats", HOST, nats.port))
        http_port = await free_port()
        http_link, api_port = await enter(tcp_link("http", HOST, http_port))
        places = {
            "dsn": postgres.dsn.replace(quote(sockets), quote(str(near))),
            "nats_url": f"nats://{HOST}:{nats_port}",
            "http_port": http_port,
        }
        nodes = {
            name: child_node(folder, name, services, places) for name, services in NODES.items()
        }
        for node in nodes.values():
            stack.push_async_callback(node.stop)
        await asyncio.gather(*(node.start() for node in nodes.values()))
        world = FleetWorld(
            folder,
            clock,
            nats=lambda: [nats.pid],
            postgres=lambda: [postgres.pid],
            stores=dict.fromkeys(STORES, postgres.dsn),
            nats_url=nats.url,
            links={link.name: link for link in (http_link, nats_link, postgres_link)},
            nodes=nodes,
            api=f"http://{HOST}:{api_port}",
            direct_api=f"http://{HOST}:{http_port}",
        )
        await world.require_well()
        try:
            yield world
        finally:
            send([node.pid for node in nodes.values()], SIGKILL)  # it has nothing left to say


def child_node(
    folder: Path, name: str, services: Sequence[str], places: Mapping[str, Any]
) -> ChildProcess:
    """Return a process of `services`, not started yet, that is started again whenever it ends."""
    ready_file = folder / f"{name}.ready"
    given = {
        "name": name,
        "services": services,
        "places": {**places, "ready_file": str(ready_file)},
    }

    async def is_ready() -> bool:
        return ready_file.exists() and ready_file.read_text() == str(node.pid)

    node = ChildProcess(
        name=name,
        command=(sys.executable, "-P", PROGRAM, json.dumps(given)),
        is_ready=is_ready,
        log_file=folder / f"{name}.log",
        stop_signal=SIGTERM,
        harsher_signal=SIGKILL,
        important=r"Error|refused",
    )
    return node
