"""A link that can be cut: a proxy between two processes, and the ways in which a network fails.

    open ──slow──▶ every chunk arrives later
         ──stall─▶ nothing passes, and all of it arrives when the link heals
         ──deaf──▶ requests arrive, answers are lost; cut when it heals
         ──half_open─▶ the far side is gone and the near side was not told; cut when it heals
         ──down──▶ every connection is reset, and so is every new one

Bytes are lost with their connection only, as TCP has it. Links are on loopback or on unix sockets.
"""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

HOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
SLOW_S = 0.08
"""By how much a slow link delays each chunk."""
CONNECT_TIMEOUT_S = 5.0

Mode = Literal["open", "slow", "stall", "deaf", "half-open", "down"]
FAILURES: tuple[Mode, ...] = ("slow", "stall", "deaf", "half-open", "down")
Dial = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]


@dataclass(eq=False)
class _Connection:
    near: StreamWriter
    far: StreamWriter
    is_cut: bool = False
    """The far side is gone and the near side does not know."""
    is_deaf: bool = False
    """Answers were lost: no later one may arrive, until it is reset."""


@dataclass(eq=False)
class Link:
    """Everything that passes through one address."""

    name: str
    dial: Dial
    mode: Mode = "open"
    _connections: set[_Connection] = field(default_factory=set)
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Begin open."""
        self._flowing.set()

    def fail(self, mode: Mode) -> None:
        """Begin to fail in this way."""
        self.mode = mode
        if mode == "stall":
            self._flowing.clear()
        elif mode == "down":
            self._reset(self._connections)
        elif mode == "half-open":
            for connection in self._connections:
                connection.is_cut = True
                connection.far.transport.abort()

    def heal(self) -> None:
        """Be open again; what lost bytes is reset, as TCP would in the end."""
        self.mode = "open"
        self._reset({each for each in self._connections if each.is_deaf or each.is_cut})
        self._flowing.set()

    async def accept(self, reader: StreamReader, near: StreamWriter) -> None:
        """Connect a new near side with the far side, until one of them ends."""
        if self.mode == "down":
            _abort(near)
            return
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far_reader, far = await self.dial()
        except OSError:  # a TimeoutError is one
            _abort(near)
            return
        connection = _Connection(near, far)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(connection, reader, far))
                group.create_task(self._pump(connection, far_reader, near, answers=True))
        finally:
            self._connections.discard(connection)
            _abort(near)
            _abort(far)

    async def _pump(
        self,
        connection: _Connection,
        reader: StreamReader,
        writer: StreamWriter,
        *,
        answers: bool = False,
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                if self.mode == "slow":
                    await asyncio.sleep(SLOW_S)
                await self._flowing.wait()
                connection.is_deaf |= answers and self.mode == "deaf"
                if connection.is_cut or (answers and connection.is_deaf):
                    continue
                writer.write(chunk)
                await writer.drain()
        await self._flowing.wait()
        if not connection.is_cut:
            with suppress(OSError):
                writer.write_eof()

    def _reset(self, connections: set[_Connection]) -> None:
        for connection in connections:
            _abort(connection.near)
            _abort(connection.far)


def _abort(writer: StreamWriter) -> None:
    """End a connection with a reset, not politely."""
    peer: socket.socket | None = writer.get_extra_info("socket")
    if peer is not None and not writer.is_closing():
        with suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def tcp_link(name: str, host: str, port: int) -> AsyncIterator[tuple[Link, int]]:
    """Lend a link to a TCP port, and the port where it listens."""
    link = Link(name, lambda: asyncio.open_connection(host, port))
    server = await asyncio.start_server(link.accept, HOST, 0)
    try:
        yield link, server.sockets[0].getsockname()[1]
    finally:
        await _close(server, link)


@asynccontextmanager
async def unix_link(name: str, target: Path, place: Path) -> AsyncIterator[Link]:
    """Lend a link to a unix socket that listens at `place`."""
    link = Link(name, lambda: asyncio.open_unix_connection(target))
    server = await asyncio.start_unix_server(link.accept, place)
    try:
        yield link
    finally:
        await _close(server, link)


async def _close(server: asyncio.Server, link: Link) -> None:
    link.heal()
    server.close()
    link.fail("down")
    with suppress(TimeoutError):
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await server.wait_closed()
