"""The admin pages of a process: small, bounded, and honest about what is missing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from flotilla.service import HttpBinding
from flotilla_platform import admin
from flotilla_platform.admin import CONNECTIONS_MAX, open_admin
from flotilla_platform.exit_codes import ExitCode, Failure

LIMIT_S = 5.0
LOOPBACK = HttpBinding("127.0.0.1", 0)


class Lacking(list[str]):
    async def __call__(self) -> list[str]:
        return self


@pytest.fixture
def lacking() -> Lacking:
    return Lacking()


@pytest_asyncio.fixture
async def address(lacking: Lacking) -> AsyncIterator[str]:
    async with open_admin(LOOPBACK, lacking) as address:
        yield address


async def said(address: str, request: bytes) -> bytes:
    place = urlsplit(address)
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            writer.write(request)
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def get(address: str, path: str) -> tuple[int, str]:
    answer = await said(address, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split(" ")[1]), body


async def test_it_is_alive_whatever_is_missing(address: str, lacking: Lacking) -> None:
    lacking.append("a spanner")
    assert await get(address, "/healthz") == (200, '{"status":"ok"}')


async def test_it_is_ready_when_nothing_is_missing_and_says_what_is(
    address: str, lacking: Lacking
) -> None:
    assert await get(address, "/readyz?verbose") == (200, '{"ready": true, "missing": []}')
    lacking.append("a spanner")
    status, body = await get(address, "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "missing": ["a spanner"]})


async def test_prometheus_finds_its_metrics(address: str) -> None:
    status, body = await get(address, "/metrics")
    assert status == 200
    assert "process_resident_memory_bytes" in body


async def test_whoever_reads_the_metrics_learns_whether_it_is_ready_now(
    address: str, lacking: Lacking
) -> None:
    assert "\nflotilla_ready 1.0\n" in (await get(address, "/metrics"))[1]
    lacking.append("a spanner")
    assert "\nflotilla_ready 0.0\n" in (await get(address, "/metrics"))[1], "nobody asked /readyz"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"405"),
        (b"HEAD /healthz HTTP/1.1\r\n\r\n", b"200"),
    ],
)
async def test_other_requests_are_answered_too(
    address: str, request_: bytes, status: bytes
) -> None:
    answer = await said(address, request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.endswith(b"\r\n\r\n") is request_.startswith(b"HEAD")


async def test_what_is_no_request_is_hung_up_on(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "TIMEOUT_S", 0.1)
    for noise in (b"", b"\x00" * 100_000, b"GET /healthz HTTP/1.1\r\nno end"):
        assert await said(address, noise) == b""
    assert (await get(address, "/healthz"))[0] == 200


async def test_it_takes_so_many_connections_and_no_more(address: str) -> None:
    place = urlsplit(address)
    idle = [
        await asyncio.open_connection(place.hostname, place.port) for _ in range(CONNECTIONS_MAX)
    ]
    assert await said(address, b"GET /healthz HTTP/1.1\r\n\r\n") == b""
    for _, writer in idle:
        writer.close()
    async with asyncio.timeout(LIMIT_S):
        while await said(address, b"GET /healthz HTTP/1.1\r\n\r\n") == b"":
            pass


async def test_a_taken_port_is_told_with_its_cure(address: str, lacking: Lacking) -> None:
    port = urlsplit(address).port or 0
    with pytest.raises(Failure, match="FLOTILLA_ADMIN_PORT") as caught:
        async with open_admin(HttpBinding("127.0.0.1", port), lacking):
            pass
    assert caught.value.code == ExitCode.PORT_TAKEN
