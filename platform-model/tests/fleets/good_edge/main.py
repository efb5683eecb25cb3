"""The edge: asks the counter, and hears when something happened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flotilla import Bindings, Context, Health, Request, Running
from flotilla.doorbell import Ear
from flotilla.health import serve_health
from flotilla.nats import connected
from flotilla_contracts.health import health_subject
from flotilla_contracts.wire import doorbell_subject

from .asking import Gateway


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Serve what the model says."""

    async def health() -> Health:
        context = Context("-", "health")
        await Gateway(bindings.bus).count(context)
        await bindings.bus.request(Request(health_subject("counter"), b"{}", context))
        return Health()

    async with connected(bindings.nats_url, name="edge") as nats:
        for log in bindings.logs:
            async with Ear.at(nats, doorbell_subject(log)) as ear:
                await ear.hear(timeout_s=1.0)
        await serve_health(bindings.bus, health_subject("edge"), "edge", health)
        yield Running("edge", health)
