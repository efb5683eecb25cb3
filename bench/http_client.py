"""A keep-alive HTTP/1.1 client that costs little: one connection a caller, one request at a time.

It is a bare asyncio protocol, because httpx and aiohttp would themselves be the bottleneck. It reads
only what it needs: the status and the content length.
"""

import asyncio
from contextlib import suppress
from itertools import count
from urllib.parse import urlsplit

_LENGTH = b"content-length:"
_END = b"\r\n\r\n"
BODY = b'{"by":1}'


class HttpCallError(Exception):
    """The server answered with something other than 200, or hung up."""


class Caller(asyncio.Protocol):
    """One connection; `increment` sends one command and returns when it was answered."""

    def __init__(self, host: str, keys: "count[int]") -> None:
        self._host = host
        self._keys = keys
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Complete the request under way when its answer is whole."""
        self._received += data
        end = self._received.find(_END)
        if end < 0 or self._answered is None or self._answered.done():
            return
        head = self._received[:end].lower()
        at = head.find(_LENGTH)
        length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._received) >= end + len(_END) + length:
            answer, self._received = self._received, b""
            self._answered.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way."""
        if self._answered and not self._answered.done():
            self._answered.set_exception(HttpCallError(f"the server hung up: {exc}"))

    async def increment(self, counter: int) -> None:
        """Send one command. Raises as `_ask`."""
        head = (
            f"POST /v1/counters/c{counter}/increment HTTP/1.1\r\nHost: {self._host}\r\n"
            f"X-Tenant-Id: acme\r\nIdempotency-Key: k{next(self._keys)}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
        )
        await self._ask(head.encode() + BODY)

    async def read(self, counter: int) -> None:
        """Read one counter. Raises as `_ask`."""
        head = f"GET /v1/counters/c{counter} HTTP/1.1\r\nHost: {self._host}\r\nX-Tenant-Id: acme\r\n\r\n"
        await self._ask(head.encode())

    async def _ask(self, request: bytes) -> None:
        """Send a request and return when it was answered.

        Raises:
            HttpCallError: it was not answered with 200.

        """
        if self._transport is None or self._transport.is_closing():
            raise HttpCallError("not connected")
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        answer = await self._answered
        if not answer.startswith(b"HTTP/1.1 200"):
            raise HttpCallError(answer[:400].decode(errors="replace"))

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            if self._transport:
                self._transport.close()


async def connect(url: str, callers: int, keys: "count[int]") -> list[Caller]:
    """Open one connection a caller; `keys` makes their idempotency keys differ."""
    address = urlsplit(url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    loop = asyncio.get_running_loop()
    opened = []
    for _ in range(callers):
        _, caller = await loop.create_connection(lambda: Caller(address.netloc, keys), host, port)
        opened.append(caller)
    return opened
