"""A whole fleet in this process, with real stores and a real broker, asked over real connections."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from flotilla import Bindings, SystemClock, uuid7
from flotilla.bus import Bus, Context, Request
from flotilla.buses.local import LocalBus
from flotilla.embedded.nats import run_nats
from flotilla.master_key import MasterKeys, new_master_key
from flotilla.service import Compose, HttpBinding, KeysBinding
from flotilla_contracts.message import Command
from svc_counter.main import compose as counter
from svc_outbox_relay.main import compose as outbox_relay
from svc_projector.main import compose as projector
from svc_tenant.main import compose as tenant
from svc_web_bff.main import compose as web_bff
from svc_web_bff.settings import Settings

LOGS = ("counter", "tenant")
SERVICES: dict[str, Compose] = {
    "counter": counter,
    "tenant": tenant,
    "outbox-relay": outbox_relay,
    "projector": projector,
}


@dataclass(frozen=True, slots=True)
class Inside:
    """A running fleet, and the way past its edge."""

    api: str
    bus: Bus

    async def tell(self, tenant: str, command: Command, key: str) -> None:
        """Send a command as a workflow does."""
        context = Context(tenant, "test", idempotency_key=key)
        await self.bus.request(
            Request(command.subject, command.model_dump_json().encode(), context)
        )

    @asynccontextmanager
    async def client(self, connections_max: int) -> AsyncIterator[httpx.AsyncClient]:
        """Lend a client that has so many connections and no more."""
        limits = httpx.Limits(max_connections=connections_max)
        async with httpx.AsyncClient(base_url=self.api, limits=limits, timeout=30.0) as client:
            yield client


@asynccontextmanager
async def run_inside(folder: Path, store: str | None, settings: Settings) -> AsyncIterator[Inside]:
    """Run the fleet; `store` is where all keep what they keep, None: files in `folder`."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(run_nats(folder))
        bindings = Bindings(
            stores={name: store or f"libsql://{folder}/{name}.db" for name in SERVICES},
            nats_url=server.url,
            bus=LocalBus(),
            clock=SystemClock(),
            ids=uuid7,
            chance=random.Random(1),
            services=(*SERVICES, "web-bff"),
            logs=LOGS,
            http=HttpBinding("127.0.0.1", 0),
            keys=KeysBinding(
                store or f"libsql://{folder}/keys.db", MasterKeys.parse(new_master_key(b"k" * 32))
            ),
        )
        for run in SERVICES.values():
            await stack.enter_async_context(run(bindings))
        edge = await stack.enter_async_context(web_bff(bindings, settings))
        yield Inside(str(edge.address), bindings.bus)
