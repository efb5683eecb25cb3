"""A broker from the wheel: it keeps its streams, its port, and comes back by itself."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
import pytest

from flotilla.embedded import EmbeddedError, run_nats

STOP_LIMIT_S = 5.0


async def publish(url: str) -> int:
    client = await nats.connect(url, allow_reconnect=False)
    try:
        stream = client.jetstream()
        await stream.add_stream(name="EVT", subjects=["evt.>"])
        return (await stream.publish("evt.a", b"happened")).seq
    finally:
        await client.close()


async def test_a_published_message_survives_a_restart_on_the_same_data(tmp_path: Path) -> None:
    async with run_nats(tmp_path) as server:
        assert await publish(server.url) == 1
        async with asyncio.timeout(STOP_LIMIT_S):
            await server.stop()
        await server.start()
        assert await publish(server.url) == 2
    async with run_nats(tmp_path, sync_always=True) as server:
        assert "sync_interval: always" in (tmp_path / "nats.conf").read_text()
        assert await publish(server.url) == 3


async def test_a_killed_broker_comes_back_on_the_same_port_by_itself(
    tmp_path: Path, eventually: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
) -> None:
    statuses: list[int] = []
    async with run_nats(tmp_path, on_exit=statuses.append) as server:
        first_pid, url = server.pid, server.url
        assert await publish(url) == 1
        await server.kill()

        async def serves_again() -> bool:
            return await publish(url) > 1

        await eventually(serves_again)
        assert server.pid != first_pid
        assert server.url == url
        assert statuses == [-9]


async def test_a_broker_whose_port_was_taken_meanwhile_comes_back_when_it_is_free(
    tmp_path: Path, eventually: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
) -> None:
    async with run_nats(tmp_path) as server:
        await server.kill()
        with socket.create_server(("127.0.0.1", server.port)):

            async def failed_to_restart() -> bool:
                return "address already in use" in (tmp_path / "nats.log").read_text()

            await eventually(failed_to_restart)

        async def serves_again() -> bool:
            return await publish(server.url) > 0

        await eventually(serves_again)


async def test_an_unsupervised_broker_stays_down_and_can_be_started_again(tmp_path: Path) -> None:
    died = asyncio.Event()
    async with run_nats(tmp_path, supervise=False, on_exit=lambda _: died.set()) as server:
        await server.kill()
        async with asyncio.timeout(STOP_LIMIT_S):
            await died.wait()
        with pytest.raises(OSError, match=str(server.port)):
            await asyncio.open_connection("127.0.0.1", server.port)
        await server.start()
        assert await publish(server.url) == 1


async def test_two_brokers_run_beside_each_other(tmp_path: Path) -> None:
    async with run_nats(tmp_path / "one") as one, run_nats(tmp_path / "two") as two:
        assert one.port != two.port
        assert await publish(one.url) == await publish(two.url) == 1


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"port {port} .* choose another port") as caught:
            async with run_nats(tmp_path, port=port):
                pass
    assert caught.value.code == "port-taken"


async def test_a_path_with_blanks_quotes_and_umlauts_is_a_path(tmp_path: Path) -> None:
    async with run_nats(tmp_path / 'my "größte" data #1') as server:
        assert await publish(server.url) == 1


async def test_a_broker_that_cannot_start_says_why_once(tmp_path: Path) -> None:
    (tmp_path / "nats").write_text("in the way of the store")
    with pytest.raises(EmbeddedError, match=r"status 1: .*storage directory") as caught:
        async with run_nats(tmp_path):
            pass
    assert caught.value.code == "server-failed"
    assert caught.value.log_tail


@pytest.mark.parametrize("says", ["nats-server: v2.9.10", "something else"])
async def test_a_binary_that_is_too_old_is_refused(tmp_path: Path, says: str) -> None:
    old = tmp_path / "nats-server"
    old.write_text(f"#!/bin/sh\necho '{says}'\n")
    old.chmod(0o755)
    with pytest.raises(EmbeddedError, match=r"bring version 2\.12 or newer") as caught:
        async with run_nats(tmp_path, binary=old):
            pass
    assert caught.value.code == "server-missing"
