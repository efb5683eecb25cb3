"""A link fails in the way it was asked to, and is whole again afterwards."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from chaos.links import HOST, SLOW_S, Link, Mode, tcp_link

LIMIT_S = 5.0
SOON_S = 0.2


class Echo:
    """A server that answers what it hears, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""
        self.connections = 0

    async def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.connections += 1
        try:
            while chunk := await reader.read(1024):
                self.heard += chunk
                writer.write(chunk)
        except OSError:
            pass
        finally:
            writer.transport.abort()


Dial = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def link(echo: Echo) -> AsyncIterator[tuple[Link, Dial]]:
    server = await asyncio.start_server(echo.accept, HOST, 0)
    opened: list[StreamWriter] = []
    async with server, tcp_link("echo", HOST, server.sockets[0].getsockname()[1]) as (link, port):

        async def dial() -> tuple[StreamReader, StreamWriter]:
            reader, writer = await asyncio.open_connection(HOST, port)
            opened.append(writer)
            return reader, writer

        yield link, dial
        for writer in opened:
            writer.transport.abort()


async def asked(reader: StreamReader, writer: StreamWriter, what: bytes = b"ping") -> bytes:
    writer.write(what)
    async with asyncio.timeout(LIMIT_S):
        return await reader.readexactly(len(what))


async def ended(reader: StreamReader) -> bool:
    """Return whether the connection ended, and how politely does not matter."""
    try:
        async with asyncio.timeout(LIMIT_S):
            return not await reader.read(1)
    except ConnectionError:
        return True


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not fact():
            await asyncio.sleep(0.005)


async def test_an_open_link_passes_everything_on(link: tuple[Link, Dial], echo: Echo) -> None:
    reader, writer = await link[1]()

    assert b"x" * 300_000 == await asked(reader, writer, b"x" * 300_000)
    writer.close()
    assert await ended(reader)
    assert 1 == echo.connections


async def test_a_slow_link_delivers_late(link: tuple[Link, Dial]) -> None:
    reader, writer = await link[1]()
    link[0].fail("slow")
    started_s = asyncio.get_running_loop().time()

    assert b"ping" == await asked(reader, writer)

    assert asyncio.get_running_loop().time() - started_s >= 2 * SLOW_S


async def test_what_stalled_arrives_when_the_link_heals(
    link: tuple[Link, Dial], echo: Echo
) -> None:
    reader, writer = await link[1]()
    await asked(reader, writer)
    link[0].fail("stall")
    writer.write(b"late")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(4), SOON_S)
    assert b"ping" == echo.heard

    link[0].heal()

    async with asyncio.timeout(LIMIT_S):
        assert b"late" == await reader.readexactly(4)


async def test_a_deaf_link_loses_answers_and_no_requests(
    link: tuple[Link, Dial], echo: Echo
) -> None:
    reader, writer = await link[1]()
    link[0].fail("deaf")
    writer.write(b"ping")
    await until(lambda: echo.heard == b"ping")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), SOON_S)

    link[0].heal()

    assert await ended(reader)  # bytes are lost with their connection only


async def test_what_was_lost_stays_lost_when_the_link_fails_in_another_way(
    link: tuple[Link, Dial], echo: Echo
) -> None:
    """Faults overlap; a connection never goes on with a hole in it."""
    reader, writer = await link[1]()
    link[0].fail("deaf")
    writer.write(b"lost")
    await until(lambda: echo.heard == b"lost")
    await until(lambda: any(each.is_deaf for each in link[0]._connections))
    link[0].fail("slow")
    writer.write(b"later")
    await until(lambda: echo.heard == b"lostlater")

    link[0].heal()

    assert await ended(reader)


async def test_half_open_means_that_the_near_side_was_not_told(
    link: tuple[Link, Dial], echo: Echo
) -> None:
    reader, writer = await link[1]()
    await asked(reader, writer)
    link[0].fail("half-open")
    writer.write(b"into the void")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), SOON_S)
    assert b"ping" == echo.heard

    link[0].heal()

    assert await ended(reader)


async def test_a_link_that_is_down_resets_and_refuses(link: tuple[Link, Dial]) -> None:
    reader, _ = await link[1]()
    await until(lambda: bool(link[0]._connections))
    link[0].fail("down")

    assert await ended(reader)
    assert await ended((await link[1]())[0])


@pytest.mark.parametrize("mode", ["slow", "stall", "deaf", "half-open", "down"])
async def test_a_link_that_healed_is_whole_again(link: tuple[Link, Dial], mode: Mode) -> None:
    await asked(*await link[1]())
    link[0].fail(mode)
    link[0].heal()

    assert b"ping" == await asked(*await link[1]())
