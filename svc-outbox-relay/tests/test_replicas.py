"""Real relay processes on one PostgreSQL and one NATS: killed, paused, woken, and it is exact."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from flotilla import Conflict, LeaseStatus, LeaseStore, Offset
from flotilla.embedded import NatsServer, PostgresServer
from flotilla.nats import connected
from flotilla.outbox import START
from flotilla.store import Append, Committed, Unit, stream_id
from flotilla.stores import ServiceStore, open_leases, open_store
from flotilla.testing import eventually, new_event
from flotilla_contracts.wire import event_stream, relay_lease
from svc_outbox_relay.jetstream import JetStreamLog

TAKE_OVER_MAX_S = 30.0
"""A limit for a busy machine. That it takes five seconds is shown in kernel/tests/test_lease.py, on a
clock of its own."""
PROGRAM = Path(__file__).with_name("relay_process.py")


class Log:
    """One log with its store, and events that keep coming."""

    def __init__(self, name: str, store: ServiceStore, leases: LeaseStore) -> None:
        self.name, self.store, self.leases = name, store, leases

    async def lease(self) -> LeaseStatus | None:
        return next(
            (s for s in await self.leases.leases() if s.name == relay_lease(self.name)), None
        )

    async def leader(self) -> int | None:
        """Return the process that leads."""
        lease = await self.lease()
        return int(lease.holder.split(":")[1]) if lease and lease.holder else None

    async def commit_for_ever(self, writer: int) -> None:
        stream = stream_id("acme", "thing", str(writer))
        version = (await self.store.load(stream)).version
        while True:
            append = Append(stream, version, tuple(new_event(f'"{n}"') for n in range(3)))
            [outcome] = await self.store.commit([Unit((append,))])
            if outcome != Committed():
                raise Conflict(f"{stream}: {outcome}")
            version = append.version
            await asyncio.sleep(0.005)

    async def settled(self) -> bool:
        return not (await self.store.status()).waiting

    async def exact_copy(self, nats: NatsServer) -> int:
        """Assert that stream and ledger are the same, dense and each once; return how many."""
        async with connected(nats.url, name="test") as connection:
            stream = JetStreamLog(connection, self.name)
            last, after = await self.store.last_offset(), START
            assert last == await stream.last_sequence()
            seen: set[str] = set()
            versions: dict[str, int] = {}
            while after < last:
                ledger = await self.store.published(after=after, limit=500)
                there = await stream.read(after=after, limit=500)
                assert [(e.offset, e.event.event_id) for e in ledger] == [
                    (m.offset, m.event_id) for m in there
                ]
                assert list(range(after + 1, after + 1 + len(there))) == [m.offset for m in there]
                for entry in ledger:
                    event = entry.event
                    assert event.version == versions.get(event.stream, 0) + 1
                    versions[event.stream] = event.version
                    seen.add(event.event_id)
                after = Offset(after + len(there))
            assert last == len(seen)
            return last


@pytest.fixture
async def logs(
    postgres_server: PostgresServer, nats_server: NatsServer
) -> AsyncIterator[list[Log]]:
    names = [f"r{uuid4().hex[:10]}" for _ in range(2)]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        url = postgres_server.dsn
        yield [
            Log(
                name,
                await enter(open_store(url, service=name)),
                await enter(open_leases(url, service=name)),
            )
            for name in names
        ]
    async with connected(nats_server.url, name="test") as connection:
        for name in names:
            await connection.jetstream().delete_stream(event_stream(name))


class Replicas:
    """Relay processes of this test; every one ends with it."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.running: dict[int, asyncio.subprocess.Process] = {}

    async def start(self) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), *self._arguments, stdout=asyncio.subprocess.DEVNULL
        )
        self.running[process.pid] = process
        return process.pid

    def send(self, pid: int, number: signal.Signals) -> None:
        self.running[pid].send_signal(number)

    async def end(self, pid: int, number: signal.Signals) -> int:
        self.send(pid, number)
        async with asyncio.timeout(10):
            return await self.running.pop(pid).wait()

    async def end_all(self) -> None:
        for pid in list(self.running):
            await self.end(pid, signal.SIGKILL)


@pytest.fixture
async def replicas(
    logs: list[Log], postgres_server: PostgresServer, nats_server: NatsServer
) -> AsyncIterator[Replicas]:
    found = Replicas(nats_server.url, postgres_server.dsn, *(log.name for log in logs))
    yield found
    await found.end_all()


@asynccontextmanager
async def flowing(logs: list[Log]) -> AsyncIterator[None]:
    """Let events be committed all the time."""
    writers = [asyncio.create_task(log.commit_for_ever(n)) for log in logs for n in range(2)]
    try:
        yield
    finally:
        for writer in writers:
            writer.cancel()
        ended = await asyncio.gather(*writers, return_exceptions=True)
    assert all(isinstance(error, asyncio.CancelledError) for error in ended), ended


async def take_over(log: Log, from_pid: int) -> None:
    """Return when somebody else leads, and what is committed gets on."""

    async def another() -> bool:
        return await log.leader() not in (None, from_pid)

    await eventually(
        another, within_s=TAKE_OVER_MAX_S, what=f"another one than {from_pid} leads {log.name}"
    )
    last = await log.store.last_offset()

    async def gets_on() -> bool:
        return await log.store.last_offset() > last

    await eventually(gets_on, within_s=TAKE_OVER_MAX_S, what=f"{log.name} gets on")


def all_led(logs: list[Log], replicas: Replicas) -> Callable[[], Awaitable[bool]]:
    """A lease may still name one that was killed: only who lives leads."""

    async def led() -> bool:
        return all([await log.leader() in replicas.running for log in logs])

    return led


async def finish(logs: list[Log], nats: NatsServer) -> None:
    for log in logs:
        await eventually(log.settled, within_s=30, what=f"{log.name} settles")
        assert await log.exact_copy(nats) > 0


async def test_others_take_over_from_one_that_was_killed(
    logs: list[Log], replicas: Replicas, nats_server: NatsServer
) -> None:
    async with flowing(logs):
        for _ in range(2):
            await replicas.start()
        await eventually(all_led(logs, replicas), within_s=30, what="every log is led")
        for log in logs:
            victim = await log.leader()
            assert victim is not None
            await replicas.end(victim, signal.SIGKILL)
            await take_over(log, victim)
            await replicas.start()
            await eventually(all_led(logs, replicas), within_s=30, what="every log is led")
    await finish(logs, nats_server)


async def test_one_that_was_paused_is_replaced_and_publishes_nothing_when_it_wakes(
    logs: list[Log], replicas: Replicas, nats_server: NatsServer
) -> None:
    async with flowing(logs):
        for _ in range(2):
            await replicas.start()
        await eventually(all_led(logs, replicas), within_s=30, what="every log is led")
        for _ in range(2):
            log = logs[0]
            zombie = await log.leader()
            assert zombie is not None
            replicas.send(zombie, signal.SIGSTOP)
            await take_over(log, zombie)
            before = await log.lease()
            replicas.send(zombie, signal.SIGCONT)
            last = await log.store.last_offset()

            async def went_on(log: Log = log, last: Offset = last) -> bool:
                return await log.store.last_offset() > last + 300

            await eventually(went_on, within_s=15, what="the new leader goes on")
            after = await log.lease()
            assert before is not None
            assert after is not None
            assert (before.holder, before.token) == (after.holder, after.token), "taken back"
    await finish(logs, nats_server)


async def test_one_that_stops_in_order_lets_go_at_once(
    logs: list[Log], replicas: Replicas, nats_server: NatsServer
) -> None:
    async with flowing(logs):
        await replicas.start()
        await eventually(all_led(logs, replicas), within_s=30, what="every log is led")
        leases = [await log.lease() for log in logs]
        leader = await logs[0].leader()
        assert leader is not None

        assert 0 == await replicas.end(leader, signal.SIGTERM)

        for log, before in zip(logs, leases, strict=True):
            after = await log.lease()
            assert before is not None
            assert after is not None
            assert (None, before.token) == (after.holder, after.token)
        await replicas.start()
        await eventually(all_led(logs, replicas), within_s=30, what="every log is led")
    await finish(logs, nats_server)
