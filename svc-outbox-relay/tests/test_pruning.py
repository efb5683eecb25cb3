"""The ledger is pruned behind its readers, on real stores and a real broker; the log lives on."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from flotilla import Offset, Pruned, Unavailable
from flotilla.embedded import NatsServer, PostgresServer
from flotilla.nats import connected
from flotilla.outbox import START
from flotilla.rebuild import from_ledger
from flotilla.store import EMPTY, Append, Committed, StreamId, Unit
from flotilla.stores import ServiceStore, open_store
from flotilla.stores.memory import MemoryStore
from flotilla.testing import new_event
from flotilla_contracts.wire import event_stream
from svc_outbox_relay.cloud_event import cloud_events
from svc_outbox_relay.jetstream import JetStreamLog
from svc_outbox_relay.main import prune_ledgers
from svc_outbox_relay.relay import Relay

A = StreamId("acme/thing/a")
NOTHING_IS_YOUNG_S = -60.0


@dataclass
class Log:
    """A log with its stream: ten events, all relayed."""

    store: ServiceStore
    stream: JetStreamLog
    relay: Relay

    async def commit(self, count: int) -> None:
        version = (await self.store.load(A)).version
        events = tuple(new_event(f'"{version + n}"') for n in range(count))
        assert [Committed()] == await self.store.commit([Unit((Append(A, version, events),))])
        await self.relay.relay(await self.relay.handshake())

    async def published(self) -> dict[int, str | None]:
        return {m.offset: m.event_id for m in await self.stream.read(after=START, limit=100)}


@pytest.fixture(params=["libsql", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer) -> str:
    return postgres_server.dsn if request.param == "postgres" else f"libsql://{tmp_path}/log.db"


@pytest.fixture
async def log(url: str, nats_server: NatsServer) -> AsyncIterator[Log]:
    name = f"l{uuid4().hex[:8]}"
    async with open_store(url, service=name) as store, connected(nats_server.url, name="t") as nats:
        stream = JetStreamLog(nats, name)
        log = Log(store, stream, Relay(name, store, stream, cloud_events(name)))
        await log.commit(10)
        yield log
        await nats.jetstream().delete_stream(event_stream(name))


async def lose_stream(log: Log, nats_server: NatsServer) -> None:
    async with connected(nats_server.url, name="t") as nats:
        await nats.jetstream().delete_stream(event_stream(log.relay.log))


async def test_what_is_young_or_not_read_by_all_stays_and_so_do_events(log: Log) -> None:
    assert 0 == await prune_ledgers([log.store], NOTHING_IS_YOUNG_S), "nobody is known to read"
    await log.store.read_by("projection:p:fast", Offset(10))
    await log.store.read_by("projection:p:new", START)
    assert 0 == await prune_ledgers([log.store], NOTHING_IS_YOUNG_S), "one has not begun"
    await log.store.read_by("projection:p:new", Offset(4))
    assert 0 == await prune_ledgers([log.store], 3600.0), "all are young"

    assert 4 == await prune_ledgers([log.store], NOTHING_IS_YOUNG_S)

    assert 5 == await log.store.first_offset()
    assert 10 == len(await log.store.read(A, after=EMPTY)), "events stay"
    assert await log.store.forget_reader("projection:p:new")
    assert 5 == await prune_ledgers([log.store], NOTHING_IS_YOUNG_S), "the last entry stays"


async def test_a_stream_lost_after_pruning_is_refilled_with_the_same_sequences(
    log: Log, nats_server: NatsServer
) -> None:
    """From where the ledger begins; it goes on as ever."""
    await log.store.read_by("projection:p:view", Offset(4))
    await prune_ledgers([log.store], NOTHING_IS_YOUNG_S)
    before = await log.published()
    await lose_stream(log, nats_server)

    assert 10 == await log.relay.handshake()

    assert {n: before[n] for n in range(5, 11)} == await log.published()
    await log.commit(2)
    assert [*range(5, 13)] == [*await log.published()]


async def test_whoever_needs_what_was_pruned_is_told_and_others_go_on(log: Log) -> None:
    """A rebuild from the store ends with that name; the stream still has all of it."""
    await log.store.read_by("projection:p:view", Offset(4))
    await prune_ledgers([log.store], NOTHING_IS_YOUNG_S)
    read = from_ledger(log.store, batch_events_max=3)

    with pytest.raises(Pruned, match="it begins at 5"):
        await anext(read(START, Offset(10)))

    found = [e.offset async for batch in read(Offset(4), Offset(10)) for e in batch]
    assert [*range(5, 11)] == found
    assert [*range(1, 11)] == [*await log.published()]


async def test_a_store_that_does_not_answer_keeps_nobody_elses_ledger() -> None:
    class Away(MemoryStore):
        async def prune(self, *, older_than_s: float, limit: int) -> int:
            raise Unavailable(f"away: {older_than_s} {limit}")

    store = MemoryStore()
    await store.commit([Unit((Append(A, EMPTY, (new_event("1"), new_event("2"))),))])
    await store.record([(1, Offset(1)), (2, Offset(2))])
    await store.read_by("projection:p:view", Offset(2))

    assert 1 == await prune_ledgers([Away(), store], NOTHING_IS_YOUNG_S)
