"""Routes for those who operate it: is it alive, is it ready, how busy, how is it used."""

import asyncio
from dataclasses import dataclass

from litestar import HttpMethod, route
from litestar.handlers import HTTPRouteHandler
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from pydantic import ValidationError

import flotilla.bus
from flotilla.bus import Bus, Context
from flotilla.errors import KernelError
from flotilla_contracts.health import HealthReply, health_subject
from svc_web_bff.docs import DocsPage
from svc_web_bff.exchange import AnyRequest, Exchange
from svc_web_bff.gateway import NOBODY
from svc_web_bff.openapi import document_bytes
from svc_web_bff.reply import Reply, json_reply

_READ = [HttpMethod.GET, HttpMethod.HEAD]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The other services of this topology, and how long they may take to say how they are."""

    bus: Bus
    services: tuple[str, ...]
    timeout_s: float

    async def healths(self, correlation_id: str) -> list[HealthReply]:
        """Return how every service is; one that does not answer is not ready."""
        asked = (self._health(service, correlation_id) for service in self.services)
        return await asyncio.gather(*asked)

    async def _health(self, service: str, correlation_id: str) -> HealthReply:
        context = Context(NOBODY, correlation_id, timeout_s=self.timeout_s)
        request = flotilla.bus.Request(health_subject(service), b"{}", context)
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await self.bus.request(request)
            health = HealthReply.model_validate_json(answer.body)
            return health.model_copy(update={"service": service})
        except (KernelError, TimeoutError) as error:
            reason = str(error) or f"no answer within {self.timeout_s} s"
        except ValidationError:
            reason = "it answered what nobody understands"
        return HealthReply(service=service, ready=False, missing=(reason,))


def operation_routes(fleet: Fleet) -> list[HTTPRouteHandler]:
    """Return `/healthz`, `/readyz`, `/metrics`, `/openapi.json` and `/docs`."""
    return [_healthz_route(), _readyz_route(fleet), _metrics_route(fleet), *_document_routes()]


def _healthz_route() -> HTTPRouteHandler:
    @route("/healthz", http_method=_READ, name="healthz")
    async def healthz() -> Reply:
        return json_reply({"status": "ok"})

    return healthz


def _readyz_route(fleet: Fleet) -> HTTPRouteHandler:
    @route("/readyz", http_method=_READ, name="readyz")
    async def readyz(request: AnyRequest) -> Reply:
        healths = await fleet.healths(Exchange.of(request.scope).correlation_id)
        missing = [
            f"{health.service}: {what}"
            for health in healths
            if not health.ready
            for what in health.missing or ("it is not ready",)
        ]
        lag = {
            health.service: {name: behind.model_dump() for name, behind in health.lag.items()}
            for health in healths
            if health.lag
        }
        return json_reply(
            {"ready": not missing, "missing": missing, "lag": lag}, status=503 if missing else 200
        )

    return readyz


def _metrics_route(fleet: Fleet) -> HTTPRouteHandler:
    @route("/metrics", http_method=_READ, name="metrics")
    async def metrics(request: AnyRequest) -> Reply:
        # In one process this page is that of all services: lags are as old as the last look at them.
        await fleet.healths(Exchange.of(request.scope).correlation_id)
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Reply(encode(REGISTRY), media_type=content_type.encode())

    return metrics


def _document_routes() -> list[HTTPRouteHandler]:
    document, page = document_bytes(), DocsPage()
    revalidate = (b"cache-control", b"no-cache")

    @route("/openapi.json", http_method=_READ, name="openapi")
    async def openapi() -> Reply:
        return Reply(document, revalidate)

    @route("/docs", http_method=_READ, name="docs")
    async def docs(request: AnyRequest) -> Reply:
        return Reply(
            page.render(request.scope),
            (b"content-security-policy", page.content_security_policy),
            (b"referrer-policy", b"no-referrer"),
            revalidate,
            media_type=b"text/html; charset=utf-8",
        )

    return [openapi, docs]
