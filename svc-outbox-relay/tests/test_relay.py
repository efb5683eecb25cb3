"""The relay's core against stores that keep their promises and a world that does not."""

import random
from collections.abc import Awaitable, Callable, Sequence

import pytest

from flotilla import Corrupt, Offset, OutboxEntry, Unavailable
from flotilla.outbox import START
from flotilla.store import Append, StreamId, Unit, Version
from flotilla.stores.memory import MemoryStore
from flotilla.testing import new_event
from svc_outbox_relay.relay import Message, PublishedMessage, Relay, WrongLastSequence
from svc_outbox_relay.testing import LOG, MemoryLogStream, a_message, message_of


async def commit(store: MemoryStore, count: int) -> None:
    """Commit `count` events, over two streams."""
    for _ in range(count):
        n = (await store.status()).committed
        stream = StreamId(f"acme/thing/{n % 2}")
        version = (await store.load(stream)).version
        await store.commit([Unit((Append(stream, version, (new_event(f'"{n}"'),)),))])


def a_relay(store: MemoryStore, stream: MemoryLogStream, cases: list[str] | None = None) -> Relay:
    heard = cases if cases is not None else []
    return Relay(LOG, store, stream, message_of, on_handshake=heard.append, batch_messages_max=3)


async def exact_copy(store: MemoryStore, stream: MemoryLogStream) -> None:
    """Assert that ledger and stream hold the same events at the same offsets, in order."""
    ledger = await store.published(after=START, limit=10**9)
    there = await stream.read(after=START, limit=10**9)
    assert [(e.offset, e.event.event_id) for e in ledger if (e.offset or 0) >= stream.first] == [
        (m.offset, m.event_id) for m in there
    ]
    assert list(range(1, len(ledger) + 1)) == [e.offset for e in ledger]
    versions: dict[StreamId, Version] = {}
    for entry in ledger:
        assert entry.event.version == versions.get(entry.event.stream, 0) + 1
        versions[entry.event.stream] = entry.event.version


async def test_what_waits_is_copied_in_order() -> None:
    store, stream = MemoryStore(), MemoryLogStream()
    await commit(store, 7)
    relay = a_relay(store, stream)
    last = await relay.handshake()

    offsets = [last := await relay.relay_once(last) for _ in range(4)]

    assert [3, 6, 7, 7] == offsets
    await exact_copy(store, stream)
    assert 0 == (await store.status()).waiting


async def test_what_was_published_and_not_recorded_is_read_back() -> None:
    store, stream, cases = MemoryStore(), MemoryLogStream(), list[str]()
    await commit(store, 8)
    relay = a_relay(store, stream, cases)
    for start in (0, 3):
        waiting = (await store.pending(limit=9))[start : start + 3]
        await stream.publish([message_of(e) for e in waiting], after=Offset(start))

    assert 6 == await relay.handshake()

    assert ["read-back"] == cases
    await relay.relay_once(Offset(6))
    await exact_copy(store, stream)


@pytest.mark.parametrize("kept", [0, 2, 5])
async def test_what_the_broker_lost_is_published_again_at_the_same_offsets(kept: int) -> None:
    store, stream, cases = MemoryStore(), MemoryLogStream(), list[str]()
    await commit(store, 7)
    relay = a_relay(store, stream, cases)
    last = await relay.handshake()
    while (after := await relay.relay_once(last)) > last:
        last = after
    before = list(stream.messages)
    del stream.messages[kept:]

    assert 7 == await relay.handshake()

    assert ["agreed", "refill"] == cases
    assert before == stream.messages
    await exact_copy(store, stream)


async def test_something_foreign_on_the_stream_stops_the_log() -> None:
    store, stream = MemoryStore(), MemoryLogStream()
    await commit(store, 2)
    relay = a_relay(store, stream)
    await relay.relay_once(await relay.handshake())
    await stream.publish([a_message(77)], after=Offset(2))

    with pytest.raises(Corrupt, match="message 3 of the stream is not in the ledger"):
        await relay.handshake()

    assert 2 == await store.last_offset()


async def test_another_event_at_a_recorded_offset_stops_the_log() -> None:
    store, stream = MemoryStore(), MemoryLogStream()
    await commit(store, 2)
    relay = a_relay(store, stream)
    await relay.relay_once(await relay.handshake())
    stream.messages[1] = a_message(77)

    with pytest.raises(Corrupt, match="message 2"):
        await relay.handshake()


async def test_a_zombie_publishes_nothing() -> None:
    store, stream = MemoryStore(), MemoryLogStream()
    await commit(store, 2)
    zombie, leader = a_relay(store, stream), a_relay(store, stream)
    stale = await zombie.handshake()
    await leader.relay_once(await leader.handshake())
    await commit(store, 1)

    with pytest.raises(Unavailable):
        await zombie.relay_once(stale)

    await leader.relay_once(await leader.handshake())
    await exact_copy(store, stream)


class Meanwhile(MemoryStore):
    """Somebody else does something right before this relay looks for what it read back."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def find(self, events: Sequence[tuple[StreamId, Version]]) -> Sequence[OutboxEntry]:
        if self.meanwhile:
            other, self.meanwhile = self.meanwhile, None
            await other()
        return await super().find(events)


async def test_a_relay_that_records_while_another_one_reads_back_is_not_foreign() -> None:
    """Between its publish and its record, a second relay shakes hands."""
    store, stream = Meanwhile(), MemoryLogStream()
    await commit(store, 3)
    waiting = await store.pending(limit=9)
    await stream.publish([message_of(entry) for entry in waiting], after=START)

    async def record() -> None:
        await store.record([(e.position, Offset(n)) for n, e in enumerate(waiting, start=1)])

    store.meanwhile = record
    relay = a_relay(store, stream)
    with pytest.raises(WrongLastSequence, match="another relay"):
        await relay.handshake()

    assert 3 == await relay.handshake()
    await exact_copy(store, stream)


async def test_a_stream_that_shrinks_while_it_is_read_back_is_looked_at_again() -> None:
    """The broker lost everything right after it said how far it was."""
    store, stream = MemoryStore(), Shrinking()
    await commit(store, 3)
    await stream.publish([message_of(e) for e in await store.pending(limit=9)], after=START)
    stream.forgets = True
    relay = a_relay(store, stream)

    with pytest.raises(WrongLastSequence, match="ends before 3"):
        await relay.handshake()

    await relay.relay_once(await relay.handshake())
    await exact_copy(store, stream)


async def test_a_zombie_whose_batch_the_broker_lost_does_not_halt_over_what_was_recorded() -> None:
    """Published, frozen; the broker loses it, another relay gives the offsets anew; thawed."""
    store, stream = MemoryStore(), Losing()
    await commit(store, 3)
    zombie, leader = a_relay(store, stream), a_relay(store, stream)
    last = await zombie.handshake()

    async def meanwhile() -> None:
        stream.messages.clear()
        first, second, third = await store.pending(limit=9)
        anew = [second, first, third]  # as if another order of commits had come to light
        await stream.publish([message_of(entry) for entry in anew], after=START)
        await store.record([(e.position, Offset(n)) for n, e in enumerate(anew, start=1)])

    stream.meanwhile = meanwhile
    with pytest.raises(WrongLastSequence, match="another relay went on"):
        await zombie.relay_once(last)

    assert 3 == await leader.handshake()
    assert 3 == await zombie.handshake()
    assert [e.event.event_id for e in await store.published(after=START, limit=9)] == [
        m.event_id for m in await stream.read(after=START, limit=9)
    ]


class Losing(MemoryLogStream):
    """Something happens once, after it took a batch and before whoever brought it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def publish(self, messages: Sequence[Message], *, after: Offset) -> None:
        await super().publish(messages, after=after)
        if self.meanwhile:
            other, self.meanwhile = self.meanwhile, None
            await other()


class Shrinking(MemoryLogStream):
    """Forgets everything, once, right after it was asked for its last sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.forgets = False

    async def last_sequence(self) -> Offset:
        last = await super().last_sequence()
        if self.forgets:
            self.messages, self.forgets = [], False
        return last


# A hostile world, replayable from its seed.


class Crash(BaseException):
    """The process died here. Not an Exception: nothing may swallow it."""


class HostileStream(MemoryLogStream):
    """Refuses, loses replies, kills its caller, forgets its tail or everything."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.healed = False

    async def publish(self, messages: Sequence[Message], *, after: Offset) -> None:
        fate = "ok" if self.healed else self.rng.choice(["ok", "ok", "refused", "lost", "crash"])
        if fate == "refused":
            raise Unavailable("on purpose: refused")
        await super().publish(messages, after=after)
        if fate == "lost":
            raise Unavailable("on purpose: reply lost")
        if fate == "crash":
            raise Crash

    async def read(self, *, after: Offset, limit: int) -> Sequence[PublishedMessage]:
        if not self.healed and self.rng.random() < 0.1:
            raise Unavailable("on purpose: no answer")
        return await super().read(after=after, limit=limit)

    def amnesia(self) -> None:
        if not self.healed and self.messages and self.rng.random() < 0.05:
            del self.messages[self.rng.randrange(len(self.messages)) :]


class HostileStore(MemoryStore):
    """Fails before or after it recorded."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.healed = False

    async def record(self, offsets: Sequence[tuple[int, Offset]]) -> None:
        fate = "ok" if self.healed else self.rng.choice(["ok", "ok", "ok", "refused", "lost"])
        if fate == "refused":
            raise Unavailable("on purpose: refused")
        await super().record(offsets)
        if fate == "lost":
            raise Crash


@pytest.mark.parametrize("seed", range(150))
async def test_whatever_happens_the_copy_is_exact_in_the_end(seed: int) -> None:
    rng = random.Random(seed)
    store, stream = HostileStore(rng), HostileStream(rng)
    relays: list[tuple[Relay, Offset | None]] = [(a_relay(store, stream), None) for _ in range(2)]
    for step in range(200):
        store.healed = stream.healed = step > 80
        if not store.healed:
            await commit(store, rng.choice([0, 0, 1, 5]))
            stream.amnesia()
        i = rng.randrange(len(relays)) if not store.healed else 0
        relay, last = relays[i]
        try:
            last = await relay.handshake() if last is None else await relay.relay_once(last)
        except (Unavailable, Crash):
            last = None
        relays[i] = (relay, last)

    assert (await store.status()).committed, f"seed {seed}: a world where nothing happens"
    assert 0 == (await store.status()).waiting, f"seed {seed}: no progress after the storm"
    await exact_copy(store, stream)
