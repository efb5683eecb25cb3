"""What a fleet suite sees of a fleet, whatever it is made of: things to break, and ways to look."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nats
from nats.aio.client import Client

from chaos.links import HOST, Link
from flotilla import Clock
from flotilla.embedded.child import ChildProcess

READY_TIMEOUT_S = 2.0
LOOK_AGAIN_S = 0.1
START_WELL_S = 30.0
HTTP_PORTS = range(20_000, 30_000)
"""Below the range from which Linux picks ports for outgoing connections."""

Server = Callable[[], list[int]]
"""Return the process of a server, if it is there right now."""


@dataclass(frozen=True, slots=True)
class Breakable:
    """What faults can choose from."""

    nodes: tuple[str, ...]
    links: tuple[str, ...]
    has_postgres: bool


@dataclass(eq=False)
class FleetWorld:
    """Servers, links and nodes; addresses of servers are those past the links."""

    folder: Path
    clock: Clock
    nats: Server
    postgres: Server
    stores: Mapping[str, str]
    nats_url: str
    links: Mapping[str, Link]
    nodes: Mapping[str, ChildProcess]
    api: str
    """Where callers go: through the link."""
    direct_api: str
    judged_upto: int = 0
    """Up to which offset ledger and log were compared already."""
    logs_read: dict[str, int] = field(default_factory=dict)
    """How far the nodes' logs were read, in bytes."""

    @property
    def breakable(self) -> Breakable:
        """Return what faults can choose from."""
        has_postgres = any(url.startswith("postgresql") for url in self.stores.values())
        return Breakable(tuple(self.nodes), tuple(self.links), has_postgres)

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

    async def require_well(self) -> None:
        """Return when everything runs.

        Raises:
            RuntimeError: it did not start.

        """
        if missing := await self.until_well(START_WELL_S):
            raise RuntimeError(f"the fleet did not start: {missing}; see {self.folder}")

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
async def past_the_links(world: FleetWorld) -> AsyncIterator[Client]:
    """Lend a connection to the broker that no fault touches."""
    client = await nats.connect(world.nats_url)
    try:
        yield client
    finally:
        await client.close()


async def free_port() -> int:
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
