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
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import nats
from nats.aio.client import Client

from chaos.links import HOST, Link, tcp_link, unix_link
from chaos.processes import send
from flotilla import Clock
from flotilla.embedded import NatsServer, PostgresServer, run_nats, run_postgres
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
PROGRAM = Path(__file__).with_name("node.py")
HTTP_PORTS = range(20_000, 30_000)
"""Below the range from which Linux picks ports for outgoing connections."""
READY_TIMEOUT_S = 2.0
LOOK_AGAIN_S = 0.1
PORT = 5432


@dataclass(eq=False)
class FleetWorld:
    """Servers, links and nodes; the tests' own way to each of them goes past the links."""

    folder: Path
    clock: Clock
    postgres: PostgresServer
    nats: NatsServer
    links: Mapping[str, Link]
    nodes: Mapping[str, ChildProcess]
    api: str
    """Where callers go: through the link."""
    direct_api: str
    judged_upto: int = 0
    """Up to which offset ledger and log were compared already."""
    logs_read: dict[str, int] = field(default_factory=dict)
    """How far the nodes' logs were read, in bytes."""

    async def missing(self) -> list[str]:
        """Return what keeps the fleet from being well: ready, and nothing behind anything."""
        try:
            async with httpx.AsyncClient(timeout=READY_TIMEOUT_S) as client:
                said = (await client.get(f"{self.direct_api}/readyz")).json()
        except (httpx.HTTPError, OSError, ValueError) as error:
            return [f"/readyz: {error!r}"]
        behind = [
            f"{name} is {lag['events']} events behind"
            for service in said["lag"].values()
            for name, lag in service.items()
            if lag["events"]
        ]
        return [*said["missing"], *behind]

    async def until_well(self, within_s: float) -> list[str]:
        """Return when nothing is missing any more; after `within_s`, what still is."""
        deadline_s = self.clock.monotonic_s() + within_s
        while missing := await self.missing():
            if self.clock.monotonic_s() > deadline_s:
                return missing
            await self.clock.sleep(LOOK_AGAIN_S)
        return []

    def news(self) -> list[dict[str, Any]]:
        """Return what the nodes logged since this was asked last."""
        found: list[dict[str, Any]] = []
        for name, node in self.nodes.items():
            with node.log_file.open("rb") as log:
                log.seek(self.logs_read.get(name, 0))
                text = log.read()
                self.logs_read[name] = log.tell()
            for line in text.splitlines():
                with suppress(ValueError):
                    entry = json.loads(line)
                    found.append({"node": name, **entry})
        return found


@asynccontextmanager
async def fleet_world(folder: Path, clock: Clock) -> AsyncIterator[FleetWorld]:
    """Run everything for the length of the block; it is well when the block begins.

    Raises:
        RuntimeError: it never was.

    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        postgres = await enter(run_postgres(folder))
        nats_server = await enter(run_nats(folder))
        sockets = Path(parse_qs(urlsplit(postgres.dsn).query)["host"][0])
        (folder / "link").mkdir()
        place = f".s.PGSQL.{PORT}"
        postgres_link = await enter(unix_link("postgres", sockets / place, folder / "link" / place))
        nats_link, nats_port = await enter(tcp_link("nats", HOST, nats_server.port))
        http_port = await _free_port()
        http_link, api_port = await enter(tcp_link("http", HOST, http_port))
        places = {
            "dsn": postgres.dsn.replace(quote(str(sockets)), quote(str(folder / "link"))),
            "nats_url": f"nats://{HOST}:{nats_port}",
            "http_port": http_port,
        }
        nodes = {name: _node(folder, name, services, places) for name, services in NODES.items()}
        for node in nodes.values():
            stack.push_async_callback(node.stop)
        await asyncio.gather(*(node.start() for node in nodes.values()))
        links = {link.name: link for link in (http_link, nats_link, postgres_link)}
        world = FleetWorld(
            folder,
            clock,
            postgres,
            nats_server,
            links,
            nodes,
            f"http://{HOST}:{api_port}",
            f"http://{HOST}:{http_port}",
        )
        if missing := await world.until_well(30):
            raise RuntimeError(f"the fleet did not start: {missing}")
        try:
            yield world
        finally:
            send([node.pid for node in nodes.values()], SIGKILL)  # it has nothing left to say


@asynccontextmanager
async def past_the_links(world: FleetWorld) -> AsyncIterator[Client]:
    """Lend a connection to the broker that no fault touches."""
    client = await nats.connect(world.nats.url)
    try:
        yield client
    finally:
        await client.close()


def _node(
    folder: Path, name: str, services: Sequence[str], places: Mapping[str, Any]
) -> ChildProcess:
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


async def _free_port() -> int:
    """Return a port that nobody has now: a node is to find it again after each of its deaths."""
    for port in HTTP_PORTS:
        try:
            server = await asyncio.start_server(lambda _reader, _writer: None, HOST, port)
        except OSError:
            continue
        server.close()
        await server.wait_closed()
        return port
    raise RuntimeError(f"no free port in {HTTP_PORTS}")
