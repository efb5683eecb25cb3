"""Connections to NATS: how everybody here connects, so that the lessons are learned once.

    connecting --CONNECT--> connected --kill, EOF, silence, -ERR--> reconnecting
        |                       ^                                       |
        | CONNECT_TIMEOUT_S     +------- every RECONNECT_WAIT_S --------+
        v
    Unavailable            only `close` ends it; subscriptions come back by themselves

nats-py's defaults give up after 60 attempts, notice a dead peer after minutes (a half-open one with
unsent bytes: not within 40 s), and close for good on most `-ERR` lines. None of that is wanted by a
service that outlives its broker. What stays true: a message published during an outage is buffered
and sent *later*; whoever does not want that asks `is_connected` first.
"""

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import ParseResult, urlsplit

import nats.errors
import structlog
from nats.aio.client import PING_PROTO, Client, Srv
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport

from flotilla.errors import Unavailable

CONNECT_TIMEOUT_S = 10.0
"""How long `connect` tries; afterwards nobody ever gives up."""
RECONNECT_WAIT_S = 0.25
SILENCE_MAX_MS = 3000
"""How long sent bytes may stay unacknowledged before the kernel drops the connection."""
_ATTEMPT_TIMEOUT_S = 2
_CLOSE_TIMEOUT_S = 2.0
_PING_INTERVAL_S = 1
_PINGS_OUTSTANDING_MAX = 2

log = structlog.get_logger()


def connect_options(name: str) -> dict[str, Any]:
    """Return what both `nats.connect` and FastStream's `NatsBroker` must be told.

    `name` is the deployable's: servers show it, and its inboxes are `_INBOX_<name>.>`, so that an
    allow-list can keep services out of each other's answers. FastStream's JetStream subscribers
    ignore the connection's prefix: give them `inbox_prefix(name)`.
    """
    return {
        "name": name,
        "inbox_prefix": inbox_prefix(name),
        "allow_reconnect": True,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": RECONNECT_WAIT_S,
        "connect_timeout": _ATTEMPT_TIMEOUT_S,
        "ping_interval": _PING_INTERVAL_S,
        "max_outstanding_pings": _PINGS_OUTSTANDING_MAX,
        "flush_timeout": 2.0,
        "drain_timeout": 5,
    }


def inbox_prefix(name: str) -> bytes:
    """Return the first token of the inboxes of the deployable `name`."""
    return b"_INBOX_" + re.sub(r"[^A-Za-z0-9_-]", "_", name).encode()


async def connect(url: str, *, name: str) -> Client:
    """Return a connection that heals; `url` may list several servers, separated by commas.

    Raises:
        Unavailable: no server let us in within `CONNECT_TIMEOUT_S`; says why.
        ValueError: `url` is none.

    """
    client = _Client()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await client.connect(
                url.split(","),
                error_cb=client.on_error,
                disconnected_cb=client.on_disconnected,
                reconnected_cb=client.on_reconnected,
                **connect_options(name),
            )
    except TimeoutError as error:
        await close(client)
        reason = client.last_error or "it does not answer"
        raise Unavailable(f"cannot connect to NATS at {_places(url)}: {reason}") from error
    except nats.errors.Error as error:
        # With endless attempts nothing but an address that cannot be parsed ends here.
        raise ValueError(f"not the address of a NATS server: {_places(url)} ({error})") from error
    except BaseException:
        await close(client)
        raise
    return client


@asynccontextmanager
async def connected(url: str, *, name: str) -> AsyncIterator[Client]:
    """Lend a connection that heals for as long as the block runs. Raises as `connect`."""
    client = await connect(url, name=name)
    try:
        yield client
    finally:
        await close(client)


async def close(client: Client) -> None:
    """Close at once, whatever state the connection is in, within two seconds."""
    if client.is_closed:
        return
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await client.close()
    except (OSError, nats.errors.Error) as error:  # a TimeoutError is an OSError
        log.warning("nats.close_failed", error=repr(error))


@asynccontextmanager
async def while_connected(client: Client, *, within_s: float) -> AsyncIterator[None]:
    """Run the block, but no longer than `within_s`, and only until the connection is lost.

    Whoever asked something on a connection that is gone never hears the answer: nats-py would wait
    for it until the time-out. Raises TimeoutError in both cases.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(within_s) as limit:

        def give_up() -> None:
            limit.reschedule(loop.time())

        losses = client.losses if isinstance(client, _Client) else set()
        losses.add(give_up)
        try:
            yield
        finally:
            losses.discard(give_up)


async def send_frames(client: Client, frames: bytes, *, count: int) -> None:
    """Send `count` messages that the caller put into protocol lines (`hpub_frame`), in one write.

    nats-py encodes and checks every header of every message, which takes longer than the server
    needs for it. Nobody checks here: not the size, not the subject.
    """
    client.stats["out_msgs"] += count
    client.stats["out_bytes"] += len(frames)
    await client._send_command(frames)  # noqa: SLF001 - as its own publish does
    await client._flush_pending()  # noqa: SLF001 - as its own publish does


def hpub_frame(subject: str, headers: bytes, payload: bytes) -> bytes:
    """Return the protocol lines of one message without a reply; `headers` are lines with CRLF."""
    head = len(headers) + 12  # "NATS/1.0" and the two line ends around
    return b"HPUB %b %d %d\r\nNATS/1.0\r\n%b\r\n%b\r\n" % (
        subject.encode(),
        head,
        head + len(payload),
        headers,
        payload,
    )


@dataclass
class ArrivedMsg(Msg):
    """A message that knows when it reached this process: it may wait long for a worker."""

    arrived_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """By the event loop's clock, which `asyncio.timeout_at` goes by."""


class _Transport(TcpTransport):
    """A socket that notices that nobody is there."""

    def __bool__(self) -> bool:
        return True  # nats-py would replace one that is not connected yet

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        await super().connect(uri, buffer_size, connect_timeout)
        writer = self._io_writer
        if writer is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # Pings alone do not notice a peer that is gone while bytes of ours are on their way.
            writer.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MAX_MS
            )

    def writelines(self, payload: list[bytes]) -> None:
        if self._io_writer is None or self._io_writer.is_closing():
            # asyncio raises a TypeError here (3.13.0), which nobody takes for a lost connection.
            raise ConnectionResetError("the connection is closed")
        self._io_writer.writelines(payload)


class _Client(Client):
    """nats-py's client, minus what makes it deaf or dead. Each override has a test."""

    msg_class = ArrivedMsg

    def __init__(self) -> None:
        super().__init__()
        self.losses: set[Callable[[], None]] = set()
        """Called when the connection is lost."""

    async def _connect_to_server(self, s: Srv) -> None:
        if not self._transport and s.uri.scheme not in {"ws", "wss"}:
            self._transport = _Transport()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)

    async def _process_err(self, err_msg: str) -> None:
        # nats-py closes for good here, on errors that a later connection would not see again.
        # A missing permission concerns one subject only: the connection is fine.
        error = nats.errors.Error(f"nats: {err_msg.strip("'")}")
        if "permissions violation" in err_msg.lower():
            await self.on_error(error)
            return
        log.error("nats.refused", name=self.options["name"], error=err_msg)
        self._err = error
        await self._process_op_err(error)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        # nats-py looks at every character of every name, 40 % of what folding a log costs.
        try:
            return dict(line.split(": ", 1) for line in raw.decode("ascii").split("\r\n") if line)
        except ValueError:  # not as everybody writes them
            return Client._parse_header_lines(raw)  # noqa: SLF001 - the override's original

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # nats-py writes the PING past what is still buffered, so that the PONG that `flush` and
        # `drain` wait for says nothing about the SUB or UNSUB before it.
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if not self.is_connected:
            # Nobody can take what is still buffered, and trying to write it would end the closing.
            self._pending.clear()
            self._pending_data_size = 0
        await super()._close(status, do_cbs)

    async def on_error(self, error: Exception) -> None:
        """Log; loudly only what is not part of an outage that was logged already."""
        known = not self.is_connected or isinstance(error, nats.errors.UnexpectedEOF)
        level = logging.DEBUG if known else logging.WARNING
        if isinstance(error, nats.errors.SlowConsumerError):
            log.warning("nats.message_dropped", name=self.options["name"], subject=error.subject)
        else:
            log.log(level, "nats.error", name=self.options["name"], error=repr(error))

    async def on_disconnected(self) -> None:
        """Say once that the server is gone, and tell who waits for an answer of it.

        nats-py lets them wait for all of their time, for an answer that was most likely lost.
        """
        for give_up in list(self.losses):
            give_up()
        for waiting in list(self._resp_map.values()):
            if not waiting.done():
                waiting.set_exception(nats.errors.ConnectionReconnectingError())
        if not self.is_closed:
            log.warning("nats.disconnected", name=self.options["name"])

    async def on_reconnected(self) -> None:
        """Say once that it is back."""
        log.info("nats.reconnected", name=self.options["name"], count=self.stats["reconnects"])


def _places(url: str) -> str:
    """Return the servers of `url` without the secrets in it."""
    return ", ".join(urlsplit(part).netloc.rpartition("@")[2] or "?" for part in url.split(","))
