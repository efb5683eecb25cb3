"""A ring is heard, or costs a pause: on a real NATS server."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from nats.aio.client import Client

from flotilla import nats
from flotilla.doorbell import Doorbell, Ear
from flotilla.embedded import NatsServer, run_nats
from flotilla.testing.servers import open_folder

LONG_S = 30.0
SOON_S = 5.0
"""Far above what a ring takes, far below `LONG_S`: within it, it was the ring that was heard."""


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with nats.connected(nats_server.url, name="test") as client:
        yield client


@pytest.fixture
def subject() -> str:
    return f"doorbell.{uuid4().hex}"


async def heard(ear: Ear) -> None:
    """Return when it rang."""
    async with asyncio.timeout(SOON_S):
        await ear.hear(timeout_s=LONG_S)


async def test_a_ring_is_heard(connection: Client, subject: str) -> None:
    bell = Doorbell(connection, subject)
    async with Ear.at(connection, subject) as ear:
        waiting = asyncio.create_task(heard(ear))
        await asyncio.sleep(0)
        bell.ring()

        await waiting


async def test_a_ring_that_came_before_one_listened_is_heard(
    connection: Client, subject: str
) -> None:
    """Work was done meanwhile, and what the ring stands for may have come after it."""
    async with Ear.at(connection, subject) as ear:
        Doorbell(connection, subject).ring()
        await connection.flush()
        await connection.flush()  # the first may be on its way before the ring is

        await heard(ear)


async def test_silence_ends_by_itself_and_a_ring_counts_once(
    connection: Client, subject: str
) -> None:
    clock = asyncio.get_running_loop()
    async with Ear.at(connection, subject) as ear:
        ear.ring()
        await heard(ear)

        begin_s = clock.time()
        async with asyncio.timeout(SOON_S):
            await ear.hear(timeout_s=0.05)

    assert clock.time() - begin_s >= 0.045


async def test_the_doors_do_not_mix(connection: Client, subject: str) -> None:
    async with Ear.at(connection, subject) as ear, Ear.at(connection, f"{subject}.other") as other:
        Doorbell(connection, subject).ring()
        await heard(ear)

        assert not other.rang.is_set()


async def test_however_often_it_is_pushed_few_messages_are_sent(
    connection: Client, subject: str
) -> None:
    """Commits are many; the hint is one."""
    bell = Doorbell(connection, subject)
    async with Ear.at(connection, subject) as ear:
        before = connection.stats["out_msgs"]
        for _ in range(1_000):
            bell.ring()
        await heard(ear)

    assert 1 == connection.stats["out_msgs"] - before


async def test_after_a_ring_went_out_the_next_one_does_too(
    connection: Client, subject: str
) -> None:
    """Merging must not swallow a ring for what came after the message was sent."""
    bell = Doorbell(connection, subject)
    async with Ear.at(connection, subject) as ear:
        for _ in range(20):
            bell.ring()
            await heard(ear)


async def test_without_a_broker_it_is_quiet(connection: Client, subject: str) -> None:
    bell = Doorbell(connection, subject)
    await nats.close(connection)

    bell.ring()

    assert bell._ringing is None


async def test_nobody_listens_after_the_block(connection: Client, subject: str) -> None:
    async with Ear.at(connection, subject):
        pass

    assert {} == connection._subs


async def test_after_the_broker_came_back_it_is_heard_again(subject: str) -> None:
    with open_folder() as folder:
        async with (
            run_nats(folder) as server,
            nats.connected(server.url, name="ringer") as ringer,
            nats.connected(server.url, name="listener") as listener,
            Ear.at(listener, subject) as ear,
        ):
            bell = Doorbell(ringer, subject)
            await server.kill()

            async with asyncio.timeout(SOON_S * 2):
                while not ear.rang.is_set():  # rings while it is away are lost, as they may be
                    bell.ring()
                    await asyncio.sleep(0.02)
