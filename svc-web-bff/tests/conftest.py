"""A client whose every answer is held against the OpenAPI document."""

import json
import random
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from litestar import Litestar

from flotilla.buses.local import LocalBus
from flotilla.clock import SystemClock, uuid7
from flotilla.service import Bindings, HttpBinding
from flotilla_contracts import PROBLEMS, ErrorCode
from svc_web_bff.app import build
from svc_web_bff.openapi import document
from svc_web_bff.settings import Settings
from svc_web_bff.testing import InMemoryFleet

DOCUMENT = document()
OUTSIDE_ROUTES = {"route-not-found", "method-not-allowed"}


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def _validate(schema: dict[str, Any], value: object) -> None:
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def _operation(request: httpx.Request) -> dict[str, Any] | None:
    method = "get" if request.method == "HEAD" else request.method.lower()
    for template, methods in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), request.url.path):
            found: dict[str, Any] | None = methods.get(method)
            return found
    return None


async def conforms(response: httpx.Response) -> None:
    """Fail unless the document knows this answer: its status, headers, media type and body."""
    await response.aread()
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-correlation-id"]
    assert "cache-control" in response.headers
    media_type = response.headers.get("content-type", "").split(";")[0]
    body = response.content
    if media_type == "application/problem+json" and body:
        problem = json.loads(body)
        _validate({"$ref": "#/components/schemas/Problem"}, problem)
        spec = PROBLEMS[ErrorCode(problem["code"])]
        assert problem["status"] == response.status_code == spec.status
    elif response.status_code >= 400 and response.request.url.path != "/readyz":
        assert response.request.method == "HEAD" or media_type == "application/problem+json"
    operation = _operation(response.request)
    if operation is None or response.request.method == "OPTIONS":
        return
    documented = operation["responses"].get(str(response.status_code))
    if media_type == "application/problem+json" and body:
        if json.loads(body)["code"] in OUTSIDE_ROUTES:
            return
        assert documented, f"{response.status_code} is not documented: {body!r}"
        examples = documented["content"][media_type]["examples"]
        assert json.loads(body)["code"] in examples
    assert documented, f"{response.status_code} is not documented"
    ours = {"etag", "x-consistency-token", "idempotency-replayed", "retry-after"}
    for name in ours & set(response.headers):
        assert name in {header.lower() for header in documented["headers"]}
        header = _resolve(next(v for k, v in documented["headers"].items() if k.lower() == name))
        value = response.headers[name]
        _validate(header["schema"], int(value) if name == "retry-after" else value)
    if body:
        media = documented["content"][media_type]
        _validate(media["schema"], response.json() if media_type.endswith("json") else "text")


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def fleet() -> InMemoryFleet:
    return InMemoryFleet()


@pytest.fixture
async def bus(fleet: InMemoryFleet) -> LocalBus:
    bus = LocalBus()
    await fleet.serve(bus)
    return bus


@pytest.fixture
def app(bus: LocalBus, settings: Settings) -> Litestar:
    services = ("web-bff", "counter")
    return build(bus, clock=SystemClock(), ids=uuid7, services=services, settings=settings)


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),  # type: ignore[arg-type] # Litestar's types differ
        base_url="http://flotilla.test",
        headers={"X-Tenant-Id": "acme"},
        event_hooks={"response": [conforms]},
    ) as client:
        yield client


@pytest.fixture
def bindings(bus: LocalBus) -> Bindings:
    return Bindings(
        stores={},
        nats_url="",
        bus=bus,
        clock=SystemClock(),
        ids=uuid7,
        chance=random.Random(0),
        services=("web-bff", "counter"),
        logs=(),
        http=HttpBinding("127.0.0.1", 0),
    )
