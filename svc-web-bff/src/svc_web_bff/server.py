"""granian in this event loop, with four things it does not do when embedded.

- It binds with SO_REUSEPORT, so a second server on a taken port starts and silently shares the
  traffic; and it never says which port 0 became. So we bind the socket and hand it over.
- It configures logging anew, which closes every handler that its host process has. Told to be
  incremental, it only sets the level of its own logger.
- Its graceful stop waits for requests under way, and for clients that sent half a head, without
  limit. So stopping has a deadline: then requests are cancelled (their callers get a 503), and
  after `_ABANDON_S` what is left is abandoned; its thread ends with the process.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from litestar import Litestar

from flotilla.service import HttpBinding
from flotilla.settings import StartRefused
from svc_web_bff.app import edge_of

BACKLOG = 1024
PORT_MAX = 65_535
HEAD_BYTES_MAX = 65_536
_ABANDON_S = 0.5

_log = structlog.get_logger(__name__)
_abandoned: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that accepts connections at `address`."""

    address: str
    task: asyncio.Task[None]

    @property
    def is_alive(self) -> bool:
        """Return whether it still serves."""
        return not self.task.done()


class _Embedded(Server):
    """granian on a socket of ours."""

    def __init__(self, app: Litestar, listening: socket.socket) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            log_enabled=False,
            log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},
            http1_settings=HTTP1Settings(max_buffer_size=HEAD_BYTES_MAX),
        )
        self._listening = listening

    def _init_shared_socket(self) -> None:
        # Its stub is out of date: it takes a file descriptor, "is it a unix socket", a backlog.
        holder: Any = SocketHolder
        self._shd = holder(self._listening.detach(), False, BACKLOG)


@asynccontextmanager
async def serving(
    app: Litestar, binding: HttpBinding, *, stop_timeout_s: float
) -> AsyncIterator[Serving]:
    """Serve `app` until the block ends.

    Raises:
        StartRefused: the port is taken, or the address cannot be used.
        RuntimeError: the server ended by itself; the block is cancelled.

    """
    listening = _listen(binding)
    host, port = listening.getsockname()[:2]
    server = _Embedded(app, listening)
    task = asyncio.create_task(server.serve(), name="web-bff http server")
    owner = asyncio.current_task()

    def died(_: asyncio.Task[None]) -> None:
        if owner:
            owner.cancel()

    task.add_done_callback(died)
    try:
        yield Serving(_url(host, port), task)
    except asyncio.CancelledError:
        if owner and task.done():
            owner.uncancel()
            raise RuntimeError("the HTTP server ended by itself") from task.exception()
        raise
    finally:
        task.remove_done_callback(died)
        server.stop()  # type: ignore[no-untyped-call] # granian has no types here
        await _stopped(task, app, stop_timeout_s)


async def _stopped(task: asyncio.Task[None], app: Litestar, stop_timeout_s: float) -> None:
    await asyncio.wait({task}, timeout=stop_timeout_s)
    if not task.done():
        edge_of(app).stop_now()
        await asyncio.wait({task}, timeout=_ABANDON_S)
    if task.done():
        if not task.cancelled() and (error := task.exception()):
            _log.warning("the HTTP server failed", error=repr(error))
        return
    # Cancelling it would make granian trip over its own future when the connection ends.
    _log.warning("some clients keep half a request open; their connections are abandoned")
    _abandoned.add(task)
    task.add_done_callback(_abandoned.discard)


def _listen(binding: HttpBinding) -> socket.socket:
    where = f"{binding.host}:{binding.port}"
    if not 0 <= binding.port <= PORT_MAX:
        raise StartRefused("address-unusable", f"{where}: a port is a number up to {PORT_MAX}")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            binding.host, binding.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise StartRefused("address-unusable", f"cannot listen at {where}: {error}") from error
    try:
        # Restart at once after a stop; a live listener still refuses us.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise StartRefused(
                "port-taken", f"{where} is taken: stop what listens there, or choose another port"
            ) from error
        raise StartRefused("address-unusable", f"cannot listen at {where}: {error}") from error
    return listening


def _url(host: str, port: int) -> str:
    """Return a URL that can be opened: a wildcard address is not one."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a comparison
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
