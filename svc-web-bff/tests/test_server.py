import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from flotilla.bus import Answer, Context, Request
from flotilla.buses.local import LocalBus
from flotilla.clock import SystemClock, uuid7
from flotilla.service import Bindings, HttpBinding, Running
from flotilla.settings import StartRefused
from flotilla_contracts.health import health_subject
from svc_web_bff.app import build
from svc_web_bff.main import compose
from svc_web_bff.server import _Embedded, serving
from svc_web_bff.settings import Settings

HEAD = b"Host: x\r\nX-Tenant-Id: acme\r\nIdempotency-Key: k\r\nContent-Type: application/json\r\n"
POST = b"POST /v1/counters/visits/increment HTTP/1.1\r\n" + HEAD


@pytest.fixture
async def running(bindings: Bindings) -> AsyncIterator[Running]:
    async with compose(bindings, Settings(body_timeout_s=0.3)) as running:
        yield running


def port_of(running: Running) -> int:
    port = urlsplit(running.address or "").port
    assert port
    return port


async def raw(running: Running, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are; return what came until the server closed or fell silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
    try:
        writer.write(data)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body
    finally:
        writer.transport.abort()


async def test_it_serves_where_it_says_it_does(running: Running, bus: LocalBus) -> None:
    assert running.name == "svc-web-bff"
    async with httpx.AsyncClient(base_url=running.address or "") as client:
        assert (await client.get("/readyz")).json()["ready"] is True
        response = await client.post(
            "/v1/counters/visits/increment",
            json={"by": 5},
            headers={"X-Tenant-Id": "acme", "Idempotency-Key": "k"},
        )
        assert response.json()["value"] == 5
    assert not (await running.health()).missing
    context = Context(tenant="-", correlation_id="c")
    answer = await bus.request(Request(health_subject("web-bff"), b"{}", context))
    assert json.loads(answer.body)["ready"] is True


async def test_a_taken_port_is_said_in_one_line(running: Running, bindings: Bindings) -> None:
    taken = dataclasses.replace(bindings, http=HttpBinding("127.0.0.1", port_of(running)))
    with pytest.raises(StartRefused) as refused:
        async with compose(taken):
            raise AssertionError("two servers share a port")
    assert refused.value.code == "port-taken"
    assert "\n" not in str(refused.value)
    assert str(port_of(running)) in str(refused.value)


@pytest.mark.parametrize(
    ("http", "code"),
    [
        (None, "http-binding-missing"),
        (HttpBinding("203.0.113.1", 0), "address-unusable"),
        (HttpBinding("no-such-host.invalid", 0), "address-unusable"),
        (HttpBinding("127.0.0.1", 70_000), "address-unusable"),
    ],
)
async def test_an_address_that_cannot_be_used_is_said(
    bindings: Bindings, http: HttpBinding | None, code: str
) -> None:
    with pytest.raises(StartRefused) as refused:
        async with compose(dataclasses.replace(bindings, http=http)):
            raise AssertionError
    assert refused.value.code == code


async def test_a_wildcard_address_is_shown_as_one_that_can_be_opened(bindings: Bindings) -> None:
    async with compose(dataclasses.replace(bindings, http=HttpBinding("0.0.0.0", 0))) as running:
        assert (running.address or "").startswith("http://127.0.0.1:")
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{running.address}/healthz")).status_code == 200


async def test_after_a_stop_the_port_is_free_at_once(bindings: Bindings) -> None:
    async with compose(bindings) as running:
        port = port_of(running)
        async with httpx.AsyncClient() as client:
            await client.get(f"{running.address}/healthz")
    again = dataclasses.replace(bindings, http=HttpBinding("127.0.0.1", port))
    async with compose(again) as running:
        assert port_of(running) == port


async def test_an_idle_connection_does_not_delay_the_stop(bindings: Bindings) -> None:
    async with httpx.AsyncClient() as client:
        async with compose(bindings) as running:
            await client.get(f"{running.address}/healthz")
            started_s = time.monotonic()
        assert time.monotonic() - started_s < 1


async def test_a_request_under_way_is_answered_before_the_stop(
    bindings: Bindings, bus: LocalBus
) -> None:
    arrived = asyncio.Event()

    async def slow(_request: Request) -> Answer:
        arrived.set()
        await asyncio.sleep(0.5)
        return Answer(b'{"counter_id":"visits","value":5,"version":2}')

    await bus.serve("cmd.counter.increment", slow)
    async with compose(bindings) as running:
        asked = asyncio.create_task(raw(running, POST + b'Content-Length: 8\r\n\r\n{"by":5}'))
        await arrived.wait()
    assert (await asked)[0] == 200


async def test_a_request_that_takes_too_long_gets_a_503_when_the_service_stops(
    bindings: Bindings, bus: LocalBus
) -> None:
    arrived = asyncio.Event()

    async def stuck(_request: Request) -> Answer:
        arrived.set()
        await asyncio.sleep(60)
        raise AssertionError

    await bus.serve("cmd.counter.increment", stuck)
    async with compose(bindings, Settings(stop_timeout_s=0.2, request_timeout_s=60)) as running:
        asked = asyncio.create_task(raw(running, POST + b'Content-Length: 8\r\n\r\n{"by":5}'))
        await arrived.wait()
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 2
    status, headers, body = await asked
    assert (status, json.loads(body)["code"]) == (503, "unavailable")
    assert headers["retry-after"] == "1"


async def test_a_client_that_sends_half_a_head_cannot_hold_the_service(bindings: Bindings) -> None:
    async with compose(bindings, Settings(stop_timeout_s=0.2)) as running:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
        writer.write(b"GET /heal")
        await asyncio.sleep(0.1)
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 2
    writer.transport.abort()
    await asyncio.sleep(0.1)  # granian's thread notices and ends


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"GET /" + b"a" * 66_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 600_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET v1 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET http://evil/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /v1/counters/\xff\xfe HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: a\r\n\r\n", 400),
        (b"GET /v1/counters/%00 HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: a\r\n\r\n", 422),
        (b"GET /v1/counters/.. HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: a\r\n\r\n", 422),
        (b"GET /v1/counters/./x HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: a\r\n\r\n", 404),
        (b"GET /v1/counters HTTP/1.1\r\nHost: x y\r\nX-Tenant-Id: a\r\n\r\n", 422),
        (POST + b"Content-Length: 8\r\nContent-Length: 9\r\n\r\n" + b'{"by":5} ', 400),
        (POST + b"Content-Length: -8\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (POST + b"Content-Length: 10\r\n\r\n{", 400),
        (POST + b'Transfer-Encoding: chunked\r\n\r\n8\r\n{"by":5}\r\n0\r\n\r\n', 200),
    ],
)
async def test_a_hostile_request_is_refused_and_the_server_lives(
    running: Running, request_bytes: bytes, status: int
) -> None:
    found, headers, body = await raw(running, request_bytes)
    assert found == status
    if found >= 400 and body:
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["status"] == status
    assert (await raw(running, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200


async def test_an_endless_chunked_body_is_refused_before_it_ends(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
    writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    sent = 0
    answered = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    while not answered.done() and sent < 50_000_000:
        writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        sent += 4096
        await asyncio.sleep(0)
    head = await asyncio.wait_for(answered, 5)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in head
    writer.transport.abort()


@pytest.mark.parametrize("path", ["/nope", "/healthz", "/v1/counters/a*b/increment"])
async def test_an_error_reaches_a_client_that_is_still_sending(running: Running, path: str) -> None:
    async with httpx.AsyncClient(base_url=running.address or "") as client:
        for _ in range(5):
            response = await client.post(path, content=b"x" * 1_000_000)
            assert response.headers["content-type"] == "application/problem+json"


async def test_a_client_that_stops_sending_is_not_waited_for(running: Running) -> None:
    status, _, body = await raw(running, POST + b"Content-Length: 10\r\n\r\n{")
    assert (status, json.loads(body)["code"]) == (400, "malformed-json")


async def test_a_large_declared_body_is_refused_unread(running: Running) -> None:
    status, _, body = await raw(running, POST + b"Content-Length: 100000000000\r\n\r\n")
    assert (status, json.loads(body)["code"]) == (413, "body-too-large")


async def test_a_header_cannot_inject_another(running: Running) -> None:
    request = POST.replace(b"k\r\n", b"k\r\nX-Correlation-Id: a%0d%0aX-Evil: 1\r\n")
    _, headers, _ = await raw(running, request + b'Content-Length: 8\r\n\r\n{"by":5}')
    assert "x-evil" not in headers


async def test_starting_leaves_the_logging_of_the_process_alone(
    bindings: Bindings, tmp_path: Path
) -> None:
    handler = logging.FileHandler(tmp_path / "log")
    try:
        async with compose(bindings):
            assert handler.stream is not None, "granian closed a handler that is not its own"
            assert not logging.getLogger("_granian").handlers
    finally:
        handler.close()


async def test_a_server_that_dies_ends_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(server: _Embedded) -> None:
        server._listening.close()
        await asyncio.sleep(0)
        raise OSError("on purpose")

    monkeypatch.setattr(_Embedded, "serve", die)
    app = build(LocalBus(), clock=SystemClock(), ids=uuid7, services=(), settings=Settings())
    binding = HttpBinding("127.0.0.1", 0)

    with pytest.raises(RuntimeError, match="ended by itself"):
        async with asyncio.timeout(10), serving(app, binding, stop_timeout_s=1):
            await asyncio.Event().wait()
