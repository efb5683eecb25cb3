"""The Litestar app: all routes, one error handler, the edge around it."""

from typing import Any

from litestar import Litestar

from flotilla.bus import Bus
from flotilla.clock import Clock, IdSource
from svc_web_bff.counters import counter_routes
from svc_web_bff.edge import Edge
from svc_web_bff.gateway import Gateway
from svc_web_bff.metrics import http_metrics
from svc_web_bff.operations import Fleet, operation_routes
from svc_web_bff.problems import on_error
from svc_web_bff.settings import Settings
from svc_web_bff.tenant_reads import tenant_read_routes
from svc_web_bff.tenants import tenant_command_routes

SERVICE = "web-bff"


def build(
    bus: Bus,
    *,
    clock: Clock,
    ids: IdSource,
    services: tuple[str, ...] = (),
    settings: Settings | None = None,
) -> Litestar:
    """Return the app. Its requests go to `bus`; readiness asks all `services` but this one."""
    settings = settings or Settings()
    others = tuple(service for service in services if service != SERVICE)
    options: dict[str, Any] = {
        "openapi_config": None,  # `svc_web_bff.openapi` says it, from the contracts
        "logging_config": None,  # whoever composes the process decides about logging
        "request_max_body_size": settings.body_bytes_max,
    }
    gateway = Gateway(bus, settings)
    app = Litestar(
        route_handlers=[
            *counter_routes(gateway),
            *tenant_command_routes(gateway),
            *tenant_read_routes(gateway),
            *operation_routes(Fleet(bus, others, settings.ready_timeout_s)),
        ],
        exception_handlers={Exception: on_error},
        **options,
    )
    app.asgi_handler = Edge(app.asgi_handler, clock=clock, ids=ids, metrics=http_metrics())
    return app


def edge_of(app: Litestar) -> Edge:
    """Return the edge around an app that `build` returned."""
    edge = app.asgi_handler
    if not isinstance(edge, Edge):
        raise TypeError("this app was not built by svc_web_bff.app.build")
    return edge
