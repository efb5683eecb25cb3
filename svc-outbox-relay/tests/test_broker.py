"""A relay beside a real broker that loses things, is full, or is not there while it seems to be."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from flotilla import Offset, Running
from flotilla.buses.local import LocalBus
from flotilla.clock import SystemClock, uuid7
from flotilla.embedded import NatsServer, run_nats
from flotilla.nats import connected
from flotilla.outbox import START
from flotilla.service import Bindings
from flotilla.settings import StartRefused
from flotilla.store import Append, Committed, Unit, stream_id
from flotilla.stores.memory import MemoryStore
from flotilla.testing import eventually, new_event
from flotilla.testing.servers import open_folder
from flotilla_contracts.wire import event_stream
from svc_outbox_relay.cloud_event import cloud_events
from svc_outbox_relay.jetstream import JetStreamLog
from svc_outbox_relay.main import compose

URL = f"memory://{uuid4()}"


@asynccontextmanager
async def relaying(nats_url: str, *logs: str) -> AsyncIterator[Running]:
    bindings = Bindings(
        stores=dict.fromkeys(logs, URL),
        nats_url=nats_url,
        bus=LocalBus(),
        clock=SystemClock(),
        ids=uuid7,
        chance=random.Random(1),
        services=(),
        logs=logs,
    )
    async with compose(bindings) as running:
        yield running


def a_log() -> tuple[str, MemoryStore]:
    name = f"b{uuid4().hex[:10]}"
    return name, MemoryStore.named(URL, service=name)


async def commit(store: MemoryStore, count: int, *, payload: str = "1") -> None:
    stream = stream_id("acme", "thing", "a")
    version = (await store.load(stream)).version
    events = tuple(new_event(payload) for _ in range(count))
    [outcome] = await store.commit([Unit((Append(stream, version, events),))])
    assert outcome == Committed()


async def settled(store: MemoryStore, *, within_s: float = 15) -> None:
    async def nothing_waits() -> bool:
        return not (await store.status()).waiting

    await eventually(nothing_waits, within_s=within_s, what="everything has an offset")


async def is_exact(url: str, log: str, store: MemoryStore) -> bool:
    """Return whether the stream holds what the ledger does, at the same offsets."""
    async with connected(url, name="test") as connection:
        there = await JetStreamLog(connection, log).read(after=START, limit=10_000)
    ledger = await store.published(after=START, limit=10_000)
    return [(e.offset, e.event.event_id) for e in ledger] == [(m.offset, m.event_id) for m in there]


async def exact_copy(url: str, log: str, store: MemoryStore) -> None:
    async def exact() -> bool:
        return await is_exact(url, log, store)

    await eventually(exact, within_s=20, what=f"{log} is an exact copy")


@pytest.fixture
async def own_nats() -> AsyncIterator[NatsServer]:
    """A broker of its own, for tests that do things to it."""
    with open_folder() as folder:
        async with run_nats(folder, supervise=False) as server:
            yield server


def storage(server: NatsServer) -> Path:
    return Path(str(server.command[2])).parent / "nats"


async def test_what_was_published_and_not_recorded_is_recorded(nats_server: NatsServer) -> None:
    log, store = a_log()
    await commit(store, 2500)
    waiting = await store.pending(limit=1500)
    async with connected(nats_server.url, name="test") as connection:
        stream = JetStreamLog(connection, log)
        await stream.last_sequence()
        # Made with the relay's own shape: two batches that nobody recorded.

        make = cloud_events(log)
        await stream.publish([make(e) for e in waiting[:1000]], after=START)
        await stream.publish([make(e) for e in waiting[1000:]], after=Offset(1000))

    async with relaying(nats_server.url, log):
        await settled(store)

    ledger = await store.published(after=START, limit=1500)
    assert [e.event.event_id for e in waiting] == [e.event.event_id for e in ledger]
    await exact_copy(nats_server.url, log, store)


@pytest.mark.parametrize("lost", ["the tail", "the stream", "everything"])
async def test_what_the_broker_lost_is_filled_again_while_the_relay_runs(
    own_nats: NatsServer, lost: str, tmp_path: Path
) -> None:
    log, store = a_log()
    async with relaying(own_nats.url, log):
        await commit(store, 1200)
        await settled(store)
        if lost == "the tail":
            await own_nats.stop()
            shutil.copytree(storage(own_nats), tmp_path / "older")
            await own_nats.start()
        await commit(store, 300)
        await settled(store)
        if lost == "the stream":
            async with connected(own_nats.url, name="test") as connection:
                await connection.jetstream().delete_stream(event_stream(log))
        else:
            await own_nats.stop()
            shutil.rmtree(storage(own_nats))
            if lost == "the tail":
                shutil.copytree(tmp_path / "older", storage(own_nats))
            await own_nats.start()
        await commit(store, 10)
        await settled(store)
        await exact_copy(own_nats.url, log, store)
    assert 1510 == await store.last_offset()


async def test_a_foreign_message_stops_its_log_and_no_other(nats_server: NatsServer) -> None:
    (log, store), (other, other_store) = a_log(), a_log()
    async with relaying(nats_server.url, log, other) as running:
        for each in (store, other_store):
            await commit(each, 3)
            await settled(each)
        async with connected(nats_server.url, name="test") as connection:
            await connection.jetstream().publish(f"evt.{log}.acme.thing.happened", b"foreign")
        await commit(store, 1)
        await commit(other_store, 1)

        async def halted() -> bool:
            return any("halted" in what for what in (await running.health()).missing)

        await eventually(halted, what="it says that it halted")
        await settled(other_store)
        [trouble] = (await running.health()).missing
        assert "message 4 of the stream is not in the ledger" in trouble
        assert "docs/runbooks/relay.md" in trouble
    assert (1, 3) == ((await store.status()).waiting, await store.last_offset())
    await exact_copy(nats_server.url, other, other_store)


async def test_a_full_broker_loses_nothing_and_goes_on_when_there_is_room() -> None:
    log, store = a_log()
    with open_folder() as folder:
        async with run_nats(folder, supervise=False, file_store_max_bytes=1024**2) as small:
            port = small.port
            async with relaying(small.url, log) as running:
                await commit(store, 400, payload='"' + "x" * 5000 + '"')

                async def full() -> bool:
                    return bool((await running.health()).missing)

                await eventually(full, what="it says what is wrong")
                await small.stop()
                async with run_nats(folder, port=port, supervise=False) as large:
                    await settled(store, within_s=30)
                    await exact_copy(large.url, log, store)
    assert 400 == await store.last_offset()


async def test_a_server_that_takes_less_than_is_committed_is_refused_at_the_start() -> None:
    log, _ = a_log()
    with open_folder() as folder:
        async with run_nats(folder, max_payload_bytes=256 * 1024) as small:
            with pytest.raises(StartRefused, match="max_payload of the server") as refused:
                async with relaying(small.url, log):
                    pass
    assert "max-payload-too-small" == refused.value.code


class Tunnel:
    """A way to the broker that can turn into a black hole: open, and nothing comes through."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[asyncio.Event] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator["Tunnel"]:
        async with AsyncExitStack() as stack:
            tunnel = cls(port)
            server = await asyncio.start_server(tunnel._accept, "127.0.0.1", 0)
            stack.callback(server.close)
            tunnel.port = server.sockets[0].getsockname()[1]
            try:
                yield tunnel
            finally:
                for pump in list(tunnel._pumps):
                    pump.cancel()
                if tunnel._pumps:
                    await asyncio.wait(tunnel._pumps, timeout=5)

    def swallow(self) -> None:
        """Let nothing through the connections that there are; new ones work."""
        for passing in self._open:
            passing.clear()

    async def _accept(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, forth = await asyncio.open_connection("127.0.0.1", self._to)
        passing = asyncio.Event()
        passing.set()
        self._open.append(passing)
        for reader, writer in ((near, forth), (far, back)):
            pump = asyncio.create_task(self._pump(reader, writer, passing))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event
    ) -> None:
        with suppress(OSError):
            try:
                while data := await reader.read(65536):
                    await passing.wait()
                    writer.write(data)
                    await writer.drain()
            finally:
                writer.close()


async def test_a_half_open_connection_heals_within_five_seconds(nats_server: NatsServer) -> None:
    log, store = a_log()
    async with (
        Tunnel.to(nats_server.port) as tunnel,
        relaying(f"nats://127.0.0.1:{tunnel.port}", log),
    ):
        await commit(store, 10)
        await settled(store)
        took_s: list[float] = []
        for _ in range(3):
            tunnel.swallow()
            began_s = asyncio.get_running_loop().time()
            await commit(store, 10)
            await settled(store)
            took_s.append(asyncio.get_running_loop().time() - began_s)
    assert max(took_s) <= 5.0, took_s
    await exact_copy(nats_server.url, log, store)
