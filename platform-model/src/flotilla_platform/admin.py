"""The pages of one process for whoever operates it: `/healthz`, `/readyz`, `/metrics`.

    /healthz   200 while the event loop turns: restart me when it does not answer
    /readyz    200, or 503 and a JSON list of what is missing: send me no work
    /metrics   what Prometheus reads, looked at now

Three pages need no framework: the head of a request is read within a limit and a deadline, answered,
and the connection is closed. Nothing is taken but GET and HEAD; a body is never read.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

from prometheus_client import generate_latest

from flotilla.metrics import READY
from flotilla.service import HttpBinding
from flotilla_platform.exit_codes import ExitCode, Failure

CONNECTIONS_MAX = 16
"""At a time; further ones are closed at once."""
HEAD_BYTES_MAX = 8192
TIMEOUT_S = 5.0
"""For a whole exchange; a client that is slower is hung up on."""

Missing = Callable[[], Awaitable[Sequence[str]]]
"""What is missing before this process can do its work, in words; nothing: it is ready."""

_JSON = "application/json"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def open_admin(binding: HttpBinding, missing: Missing) -> AsyncIterator[str]:
    """Answer while the block runs; yields the address.

    Raises:
        Failure: nothing can listen there (`PORT_TAKEN`).

    """
    pages = _Pages(missing)
    try:
        server = await asyncio.start_server(
            pages.answer, binding.host, binding.port, limit=HEAD_BYTES_MAX
        )
    except OSError as error:
        raise Failure(
            ExitCode.PORT_TAKEN,
            f"the admin pages cannot listen at {binding.host}:{binding.port}: "
            f"{error.strerror or error}; set FLOTILLA_ADMIN_HOST and FLOTILLA_ADMIN_PORT",
        ) from error
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        server.close()


class _Pages:
    def __init__(self, missing: Missing) -> None:
        self._missing = missing
        self._open = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                async with asyncio.timeout(TIMEOUT_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._reply(head))
                    await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError):  # a TimeoutError is an OSError
            pass  # it hung up, was too slow, or speaks no HTTP
        finally:
            self._open -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _reply(self, head: bytes) -> bytes:
        method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
        path = rest.split(b" ")[0].partition(b"?")[0]
        if method not in {b"GET", b"HEAD"}:
            return _http(HTTPStatus.METHOD_NOT_ALLOWED, _JSON, b"{}")
        match path:
            case b"/healthz":
                status, kind, body = HTTPStatus.OK, _JSON, b'{"status":"ok"}'
            case b"/readyz":
                missing = await self._look()
                status = HTTPStatus.SERVICE_UNAVAILABLE if missing else HTTPStatus.OK
                kind = _JSON
                body = json.dumps({"ready": not missing, "missing": missing}).encode()
            case b"/metrics":
                await self._look()  # lags and leases are as old as the last look at them
                status, kind, body = HTTPStatus.OK, _METRICS, generate_latest()
            case _:
                status, kind = HTTPStatus.NOT_FOUND, _JSON
                body = b'{"pages":["/healthz","/readyz","/metrics"]}'
        return _http(status, kind, body, head_only=method == b"HEAD")

    async def _look(self) -> list[str]:
        """Return what is missing; what services show of themselves is fresh then."""
        missing = list(await self._missing())
        READY.set(not missing)
        return missing


def _http(status: HTTPStatus, kind: str, body: bytes, *, head_only: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else body)
