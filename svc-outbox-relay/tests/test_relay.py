"""The relay's core against stores that keep their promises and a world that does not."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from flotilla import Corrupt, Lease, LeaseLost, Offset, Outbox, OutboxEntry, Unavailable
from flotilla.background import Background
from flotilla.doorbell import Ear as Ears
from flotilla.outbox import START
from flotilla.store import Append, StreamId, Unit, Version
from flotilla.stores.memory import MemoryStore
from flotilla.stores.memory_leases import MemoryLeases
from flotilla.testing import new_event
from svc_outbox_relay.log_stream import LogStream, Message, PublishedMessage, WrongLastSequence
from svc_outbox_relay.main import keep_relaying
from svc_outbox_relay.relay import Batch, Published, Relay
from svc_outbox_relay.settings import Settings
from svc_outbox_relay.testing import LOG, MemoryLogStream, a_message, message_of


async def commit(store: MemoryStore, count: int) -> None:
    """Commit `count` events, over two streams."""
    for _ in range(count):
        n = (await store.status()).committed
        stream = StreamId(f"acme/thing/{n % 2}")
        version = (await store.load(stream)).version
        await store.commit([Unit((Append(stream, version, (new_event(f'"{n}"'),)),))])


def a_relay(
    store: Outbox,
    stream: LogStream,
    cases: list[str] | None = None,
    *,
    kind: type[Relay] = Relay,
    leads: Callable[[], bool] = lambda: True,
    lease: Lease | None = None,
) -> Relay:
    heard = cases if cases is not None else []
    return kind(
        LOG,
        store,
        stream,
        message_of,
        on_handshake=heard.append,
        leads=leads,
        lease=lambda: lease,
        batch_messages_max=3,
        batch_bytes_max=100,
    )


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

    assert 7 == await relay.relay(last)
    assert 7 == await relay.relay(Offset(7))
    assert [3, 3, 1] == stream.batches
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
    await relay.relay(Offset(6))
    await exact_copy(store, stream)


@pytest.mark.parametrize("kept", [0, 2, 5])
async def test_what_the_broker_lost_is_published_again_at_the_same_offsets(kept: int) -> None:
    store, stream, cases = MemoryStore(), MemoryLogStream(), list[str]()
    await commit(store, 7)
    relay = a_relay(store, stream, cases)
    last = await relay.handshake()
    await relay.relay(last)
    before = list(stream.messages)
    del stream.messages[kept:]

    assert 7 == await relay.handshake()

    assert ["agreed", "refill"] == cases
    assert before == stream.messages
    await exact_copy(store, stream)


async def test_a_stream_that_was_lost_is_noticed_while_nothing_waits() -> None:
    """Else its readers would wait for the next event: on a silent log for ever."""

    class Ear:
        async def hear(self, *, timeout_s: float) -> bool:
            assert timeout_s > 0
            stream.messages.clear()
            return False

    store, stream = MemoryStore(), MemoryLogStream()
    await commit(store, 7)
    relay = a_relay(store, stream)

    async with asyncio.timeout(5):
        with pytest.raises(WrongLastSequence):
            await keep_relaying(relay, cast("Ears", Ear()), Settings(), Background("relay"))

    assert 7 == await relay.handshake()
    await exact_copy(store, stream)


async def test_something_foreign_on_the_stream_stops_the_log() -> None:
    store, stream = MemoryStore(), MemoryLogStream()
    await commit(store, 2)
    relay = a_relay(store, stream)
    await relay.relay(await relay.handshake())
    await stream.publish([a_message(77)], after=Offset(2))

    with pytest.raises(Corrupt, match="message 3 of the stream is not in the ledger"):
        await relay.handshake()

    assert 2 == await store.last_offset()


async def test_another_event_at_a_recorded_offset_stops_the_log() -> None:
    store, stream = MemoryStore(), MemoryLogStream()
    await commit(store, 2)
    relay = a_relay(store, stream)
    await relay.relay(await relay.handshake())
    stream.messages[1] = a_message(77)

    with pytest.raises(Corrupt, match="message 2"):
        await relay.handshake()


async def test_a_zombie_publishes_nothing() -> None:
    store, stream = MemoryStore(), MemoryLogStream()
    await commit(store, 2)
    zombie, leader = a_relay(store, stream), a_relay(store, stream)
    stale = await zombie.handshake()
    await leader.relay(await leader.handshake())
    await commit(store, 1)

    with pytest.raises(Unavailable):
        await zombie.relay(stale)

    await leader.relay(await leader.handshake())
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
    with pytest.raises(WrongLastSequence, match="not standing still"):
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

    with pytest.raises(WrongLastSequence, match="lost what it had after"):
        await relay.handshake()

    await relay.relay(await relay.handshake())
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
    with pytest.raises(WrongLastSequence, match="another relay recorded"):
        await zombie.relay(last)

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


class SlowLedger(MemoryStore):
    """Records when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.recording, self.may_record = asyncio.Event(), asyncio.Event()

    async def record(
        self, offsets: Sequence[tuple[int, Offset]], *, lease: Lease | None = None
    ) -> None:
        self.recording.set()
        await self.may_record.wait()
        await super().record(offsets, lease=lease)


async def test_what_is_published_and_not_recorded_is_two_batches_at_most() -> None:
    store, stream = SlowLedger(), MemoryLogStream()
    await commit(store, 12)
    relay = a_relay(store, stream)

    async with asyncio.timeout(5):
        work = asyncio.create_task(relay.relay(await relay.handshake()))
        while len(stream.messages) < 6:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert (6, 0) == (len(stream.messages), await store.last_offset())
        store.may_record.set()
        assert 12 == await work
    await exact_copy(store, stream)


async def test_an_event_does_not_wait_until_the_one_before_it_is_recorded() -> None:
    store, stream = SlowLedger(), MemoryLogStream()
    await commit(store, 1)
    relay = a_relay(store, stream)

    async with asyncio.timeout(5):
        work = asyncio.create_task(relay.relay(await relay.handshake()))
        await store.recording.wait()
        await commit(store, 1)
        relay.rang.set()
        while len(stream.messages) < 2:
            await asyncio.sleep(0)
        assert 0 == await store.last_offset()
        store.may_record.set()
        assert 2 == await work
    await exact_copy(store, stream)


async def test_a_batch_has_so_many_bytes_at_most_and_a_great_event_goes_alone() -> None:
    store, stream = MemoryStore(), MemoryLogStream()
    texts = ['"' + "x" * size + '"' for size in (10, 10, 500, 60, 60)]
    for n, text in enumerate(texts):
        stream_of_its_own = StreamId(f"acme/thing/{n}")
        await store.commit([Unit((Append(stream_of_its_own, Version(0), (new_event(text),)),))])
    relay = a_relay(store, stream)

    assert 5 == await relay.relay(await relay.handshake())

    assert [2, 1, 1, 1] == stream.batches


@pytest.mark.parametrize("fenced", [True, False])
async def test_a_record_that_arrives_late_is_refused_once_another_one_leads(fenced: bool) -> None:
    """The broker lost what was published with it, and these offsets are others' by now.

    Not fenced, it comes between the next leader's publish and record, and the log contradicts itself.
    """

    class Overtaken(MemoryLogStream):
        async def publish(self, messages: Sequence[Message], *, after: Offset) -> None:
            await super().publish(messages, after=after)
            if not refused:
                refused.append(await late_record())

    refused: list[bool] = []
    leases = MemoryLeases()
    store, stream = MemoryStore(leases=leases), Overtaken()
    await commit(store, 3)
    dead = await leases.acquire("relay", "dead", ttl_s=60)
    assert dead
    published = [(2, Offset(1)), (3, Offset(2))]  # position 1 was not visible yet, and then lost

    async def late_record() -> bool:
        try:
            await store.record(published, lease=dead if fenced else None)
        except LeaseLost:
            return True
        return False

    await leases.release(dead)
    lease = await leases.acquire("relay", "next", ttl_s=60)
    relay = a_relay(store, stream, lease=lease)

    if fenced:
        assert 3 == await relay.relay(await relay.handshake())
        await exact_copy(store, stream)
    else:
        with pytest.raises((Corrupt, WrongLastSequence)):
            await relay.relay(await relay.handshake())
        with pytest.raises(Corrupt):
            await relay.handshake()
    assert [fenced] == refused


async def test_what_was_pruned_is_where_a_lost_stream_begins() -> None:
    store, stream = MemoryStore(), MemoryLogStream()
    await commit(store, 9)
    relay = a_relay(store, stream)
    await relay.relay(await relay.handshake())
    await store.read_by("projection:view", Offset(4))
    assert 4 == await store.prune(older_than_s=-1, limit=100)
    before = stream.messages[4:]
    stream.messages.clear()

    assert 9 == await relay.handshake()

    assert (5, before) == (stream.first, stream.messages)


async def test_a_tail_that_was_lost_and_pruned_stops_the_log() -> None:
    """Nobody has those events at those offsets any more: a human decides, nothing is left out."""
    store, stream = MemoryStore(), MemoryLogStream()
    await commit(store, 9)
    relay = a_relay(store, stream)
    await relay.relay(await relay.handshake())
    await store.read_by("projection:view", Offset(9))
    await store.prune(older_than_s=-1, limit=100)
    del stream.messages[5:]

    with pytest.raises(Corrupt):
        await relay.handshake()

    assert 5 == len(stream.messages)


@pytest.mark.parametrize("where", [0, 4, 8])
async def test_another_event_at_an_end_or_in_the_middle_stops_the_log(where: int) -> None:
    store, stream = MemoryStore(), MemoryLogStream()
    await commit(store, 9)
    relay = a_relay(store, stream)
    await relay.relay(await relay.handshake())
    stream.messages[where] = a_message(77)

    with pytest.raises(Corrupt, match=f"message {where + 1} "):
        await relay.handshake()


# A hostile world, replayable from its seed: every call takes its time, so that replicas interleave
# wherever they can; leaders are made and unmade, zombies go on, processes die between any two steps.


class Crash(BaseException):
    """The process died here. Not an Exception: nothing may swallow it."""


@dataclass
class World:
    """What all replicas share, and what goes wrong in it."""

    rng: random.Random
    store: MemoryStore = field(default_factory=MemoryStore)
    stream: MemoryLogStream = field(default_factory=MemoryLogStream)
    healed: bool = False
    epoch: int = 0
    """How often the broker lost its tail; it cannot without dropping connections."""
    recording: int = 0
    leader: int = 0
    fenced: bool = True
    """Whether the broker looks at the expected sequence, and a lost connection is a doubt."""

    async def take_time(self) -> None:
        for _ in range(self.rng.choice([0, 0, 1, 3, 40]) if not self.healed else 0):
            await asyncio.sleep(0)

    def fate(self, *fates: str) -> str:
        return "ok" if self.healed else self.rng.choice(fates)

    def amnesia(self) -> None:
        """Lose the tail; not while a record is on its way, which docs/adr/0010 speaks of."""
        if self.stream.messages and not self.recording:
            del self.stream.messages[self.rng.randrange(len(self.stream.messages)) :]
            self.epoch += 1


@dataclass
class Connection:
    """A replica's way to the stream: refuses, loses replies, kills its caller."""

    world: World
    epoch: int = -1

    async def last_sequence(self) -> Offset:
        await self.world.take_time()
        self.epoch = self.world.epoch
        return await self.world.stream.last_sequence()

    async def restart_at(self, first: Offset) -> None:
        await self.world.stream.restart_at(first)

    async def publish(self, messages: Sequence[Message], *, after: Offset) -> None:
        world = self.world
        await world.take_time()
        fate = world.fate("ok", "ok", "ok", "refused", "lost", "crash")
        if fate == "refused":
            raise Unavailable("on purpose: refused")
        if world.fenced and self.epoch != world.epoch:
            raise WrongLastSequence("on purpose: the connection was lost")
        expected = after if world.fenced else await world.stream.last_sequence()
        await world.stream.publish(messages, after=expected)
        await world.take_time()
        if fate == "lost":
            raise Unavailable("on purpose: reply lost")
        if fate == "crash":
            raise Crash

    async def read(self, *, after: Offset, limit: int) -> Sequence[PublishedMessage]:
        await self.world.take_time()
        if self.world.fate(*["ok"] * 9, "refused") == "refused":
            raise Unavailable("on purpose: no answer")
        return await self.world.stream.read(after=after, limit=limit)


@dataclass
class Ledger:
    """A replica's way to the store: slow, fails before or after it recorded."""

    world: World
    early: list[Offset] = field(default_factory=list)
    """Offsets that were recorded before they were published."""

    async def pending(self, *, limit: int, but: Sequence[int] = ()) -> Sequence[OutboxEntry]:
        await self.world.take_time()
        found = await self.world.store.pending(limit=limit, but=but)
        await self.world.take_time()
        return found

    async def record(
        self,
        offsets: Sequence[tuple[int, Offset]],
        *,
        lease: Lease | None = None,  # noqa: ARG002 - there are none in this world
    ) -> None:
        world = self.world
        world.recording += 1
        try:
            await world.take_time()
            fate = world.fate("ok", "ok", "ok", "ok", "refused", "lost")
            if fate == "refused":
                raise Unavailable("on purpose: refused")
            if offsets[-1][1] > await world.stream.last_sequence() and not world.epoch:
                self.early.append(offsets[-1][1])
            await world.store.record(offsets)
        finally:
            world.recording -= 1
        await world.take_time()
        if fate == "lost":
            raise Crash

    async def last_offset(self) -> Offset:
        await self.world.take_time()
        return await self.world.store.last_offset()

    def __getattr__(self, name: str) -> object:
        return getattr(self.world.store, name)


STEPS, STORM_STEPS = 1500, 900


async def live(world: World, n: int, ledger: Ledger, kind: type[Relay]) -> None:
    """A replica: shake hands and relay while it leads, again after every failure or death.

    It asks who leads before a publish, as the real one does, and a zombie has asked long before.
    """
    while True:
        connection = Connection(world)
        relay = a_relay(
            cast("Outbox", ledger),
            connection,
            kind=kind,
            leads=lambda: world.leader == n or world.rng.random() < 0.2,
        )
        try:
            while world.leader != n:
                await asyncio.sleep(0)
            last = await relay.handshake()
            while world.leader == n:
                last = await relay.relay(last)
                await asyncio.sleep(0)
        except (Unavailable, Crash):
            await asyncio.sleep(0)


async def run_world(seed: int, *, kind: type[Relay] = Relay, fenced: bool = True) -> None:
    """Run a world of three replicas through its storm; assert that the copy is exact afterwards."""
    world = World(random.Random(seed), fenced=fenced)
    ledgers = [Ledger(world) for _ in range(3)]
    replicas = [asyncio.create_task(live(world, n, ledgers[n], kind)) for n in range(3)]
    try:
        for step in range(STEPS):
            world.healed = step > STORM_STEPS
            if not world.healed:
                if step % 8 == 0:
                    await commit(world.store, world.rng.choice([0, 0, 1, 5, 9]))
                if world.rng.random() < 0.02:
                    world.leader = world.rng.randrange(3)
                if world.rng.random() < 0.003:
                    world.amnesia()
            await asyncio.sleep(0)
            for replica in replicas:
                if replica.done():
                    replica.result()
    finally:
        for replica in replicas:
            replica.cancel()
        await asyncio.wait(replicas)
    assert (await world.store.status()).committed, f"seed {seed}: a world where nothing happens"
    assert 0 == (await world.store.status()).waiting, f"seed {seed}: no progress after the storm"
    assert [] == [o for ledger in ledgers for o in ledger.early], f"seed {seed}: recorded too early"
    await exact_copy(world.store, world.stream)


@pytest.mark.parametrize("seed", range(150))
async def test_whatever_happens_the_copy_is_exact_in_the_end(seed: int) -> None:
    await run_world(seed)


# The same worlds catch whoever leaves something out.


class MarksBeforeItPublishes(Relay):
    async def _publish(self, batch: Batch, published: Published) -> None:
        offsets = enumerate(batch.positions, published.last + 1)
        await self.outbox.record([(p, Offset(o)) for o, p in offsets])
        await super()._publish(batch, published)


class NeverRecordsWhatWasOnItsWay(Relay):
    async def handshake(self) -> Offset:
        return await self.stream.last_sequence()


class ReadsWhatIsOnItsWayAgain(Relay):
    async def _read(self, but: Sequence[int]) -> Batch:
        return await super()._read(but[:0])


@pytest.mark.parametrize(
    ("kind", "fenced"),
    [
        (MarksBeforeItPublishes, True),
        (NeverRecordsWhatWasOnItsWay, True),
        (ReadsWhatIsOnItsWayAgain, True),
        (Relay, False),
    ],
)
async def test_a_relay_that_leaves_out_a_safeguard_does_not_survive_these_worlds(
    kind: type[Relay], *, fenced: bool
) -> None:
    for seed in range(30):
        try:
            await run_world(seed, kind=kind, fenced=fenced)
        except (AssertionError, Corrupt):
            return
    pytest.fail(f"{kind.__name__}, fenced: {fenced}: nothing broke")
