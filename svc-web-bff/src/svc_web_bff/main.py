"""The composition root: REST in front of the fleet."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flotilla.health import serve_health
from flotilla.service import Bindings, Health, Running
from flotilla.settings import StartRefused
from flotilla_contracts.health import health_subject
from svc_web_bff.app import SERVICE, build
from svc_web_bff.server import serving
from svc_web_bff.settings import Settings, require_supported

NAME = "svc-web-bff"


@asynccontextmanager
async def compose(bindings: Bindings, settings: Settings | None = None) -> AsyncIterator[Running]:
    """Start the service; `Running.address` is where it really listens (port 0 works).

    Raises:
        StartRefused: a setting, the profile, the binding or the port does not allow it.

    """
    settings = settings or Settings.read()
    require_supported(settings)
    if bindings.http is None:
        raise StartRefused(
            "http-binding-missing", "web-bff needs an HTTP address: give its deployable one"
        )
    app = build(
        bindings.bus,
        clock=bindings.clock,
        ids=bindings.ids,
        services=bindings.services,
        settings=settings,
    )
    async with serving(app, bindings.http, stop_timeout_s=settings.stop_timeout_s) as server:

        async def health() -> Health:
            return Health() if server.is_alive else Health(missing=("the HTTP server ended",))

        await serve_health(bindings.bus, health_subject(SERVICE), NAME, health)
        yield Running(name=NAME, health=health, address=server.address)
