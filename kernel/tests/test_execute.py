"""The loop, the lanes and the committer together, on the in-memory store."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from flotilla import (
    Aggregate,
    Claim,
    Conflict,
    ContractCodec,
    Corrupt,
    Decider,
    Decision,
    Done,
    EventTooLarge,
    GroupCommitter,
    KeyReused,
    Lanes,
    Rejected,
    StreamId,
    Unavailable,
    Version,
    VersionMismatch,
    execute,
    uuid7,
)
from flotilla.execute import IDLE_ROUNDS_MAX
from flotilla.remember import Memory
from flotilla.store import Append, ClaimKey, Loaded, Outcome, Unit
from flotilla.stores.memory import MemoryStore
from flotilla.testing import ManualClock, new_event

TALLY = StreamId("acme/tally/t")


class Added(BaseModel):
    type: ClassVar[str] = "tally.added.v1"

    by: int
    note: str = ""


class TooMuch(Rejected):
    default_code = "too-much"


def add(by: int, total: int) -> Sequence[Added]:
    if total + by > 100:
        raise TooMuch
    return [Added(by=by)] if by else []


DECIDER: Decider[int, int, Added] = Decider(0, add, lambda total, event: total + event.by)


@dataclass
class Snapshots:
    schema: int = 1
    every_events: int = 10

    def dump(self, state: int) -> str:
        return str(state)

    def load(self, text: str) -> int:
        return int(text)


def decision(
    by: int, key: str | None = None, *, content: bytes = b"", expected: int | None = None
) -> Decision[int, Added]:
    return Decision(
        decide=partial(add, by),
        reply=lambda total, version: f"{total}@{version}".encode(),
        metadata={"correlation": "c"},
        claim=Claim(ClaimKey("acme", "tally", key), content or str(by).encode(), 60)
        if key
        else None,
        expected=None if expected is None else Version(expected),
    )


class World:
    """A store, and everything on top of it that a service composes."""

    def __init__(self, store: MemoryStore | None = None, **limits: int) -> None:
        self.store = store or MemoryStore()
        self.clock = ManualClock()
        self.committer = GroupCommitter(self.store, **limits)  # type: ignore[arg-type]
        self.aggregate: Aggregate[int, int, Added] = Aggregate(
            DECIDER,
            ContractCodec([Added]),
            self.store,
            self.committer.commit,
            self.clock,
            uuid7,
            random.Random(1),
            Snapshots(),
        )
        self.lanes = Lanes(partial(execute, self.aggregate))

    async def settle(self, decision: Decision[int, Added], stream: StreamId = TALLY) -> Done:
        return await self.lanes.settle(stream, decision)

    async def total(self, stream: StreamId = TALLY) -> int:
        return self.aggregate.rehydrate(await self.aggregate.load(stream, []))


async def test_a_decision_becomes_history_and_a_reply() -> None:
    world = World()

    assert Done(b"5@1", Version(1)) == await world.settle(decision(5))
    assert Done(b"7@2", Version(2)) == await world.settle(decision(2))
    assert 7 == await world.total()


async def test_deciding_nothing_is_success_and_writes_nothing() -> None:
    world = World()

    assert Done(b"0@0", Version(0)) == await world.settle(decision(0))
    assert 0 == (await world.store.status()).committed


async def test_a_refusal_reaches_its_caller_and_writes_nothing() -> None:
    world = World()

    with pytest.raises(TooMuch):
        await world.settle(decision(101, "k"))

    assert 0 == (await world.store.status()).committed
    assert Done(b"1@1", Version(1)) == await world.settle(decision(1, "k", content=b"other"))


async def test_the_same_key_and_content_gets_the_same_bytes() -> None:
    world = World()
    await world.settle(decision(5, "k"))
    await world.settle(decision(1))

    assert Done(b"5@1", replayed=True) == await world.settle(decision(5, "k"))
    assert 6 == await world.total()


async def test_a_replay_is_answered_even_if_it_would_be_refused_now() -> None:
    world = World()
    await world.settle(decision(60, "k", expected=0))

    again = await world.settle(decision(60, "k", expected=0))

    assert Done(b"60@1", replayed=True) == again


async def test_deciding_nothing_is_remembered_too() -> None:
    world = World()
    await world.settle(decision(0, "k"))
    await world.settle(decision(5))

    assert Done(b"0@0", replayed=True) == await world.settle(decision(0, "k"))


async def test_the_same_key_for_other_content_is_refused() -> None:
    world = World()
    await world.settle(decision(5, "k"))

    with pytest.raises(KeyReused):
        await world.settle(decision(6, "k"))
    with pytest.raises(KeyReused):
        await world.settle(decision(6, "k"), StreamId("acme/tally/other"))


async def test_fifty_twins_have_one_effect_and_one_reply() -> None:
    world = World()

    done = await asyncio.gather(*(world.settle(decision(5, "k")) for _ in range(50)))

    assert {b"5@1"} == {d.reply for d in done}
    assert 49 == sum(d.replayed for d in done)
    assert 5 == await world.total()


async def test_a_hundred_callers_of_one_stream_share_few_commits() -> None:
    batches: list[int] = []

    class Counting(MemoryStore):
        async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
            batches.append(len(units))
            await asyncio.sleep(0)
            return await super().commit(units)

    world = World(Counting())

    await asyncio.gather(*(world.settle(decision(1, f"k{n}")) for n in range(100)))

    assert 100 == await world.total() == sum(batches)
    assert len(batches) <= 5


async def test_an_expected_version_has_one_winner() -> None:
    world = World()
    await world.settle(decision(1))

    results = await asyncio.gather(
        *(world.settle(decision(1, expected=1)) for _ in range(20)), return_exceptions=True
    )

    assert 1 == sum(isinstance(r, Done) for r in results)
    assert 19 == sum(isinstance(r, VersionMismatch) for r in results)
    assert 2 == await world.total()


class Overtaken(MemoryStore):
    """Another process commits first, for the first `times` commits."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        if self.times:
            self.times -= 1
            version = (await self.load(TALLY)).version
            event = new_event('{"by":10}', kind="tally.added.v1")
            await super().commit([Unit((Append(TALLY, version, (event,)),))])
        return await super().commit(units)


async def test_a_lost_race_is_decided_again_on_fresh_state() -> None:
    world = World(Overtaken(times=2))

    done = await world.settle(decision(5, "k"))

    assert b"25@3" == done.reply


async def test_a_phantom_refusal_is_taken_back() -> None:
    """The second was refused on a state that the first never reached: it is decided again."""
    world = World(Overtaken(times=1))

    first, second = await asyncio.gather(
        world.settle(decision(95)), world.settle(decision(6)), return_exceptions=True
    )

    assert isinstance(first, TooMuch)
    assert isinstance(second, Done)
    assert 16 == await world.total()


async def test_who_always_loses_is_told_conflict() -> None:
    world = World(Overtaken(times=10**9))
    harmless = replace(decision(0), decide=lambda _: [Added(by=0)])

    with pytest.raises(Conflict):
        await world.settle(harmless)

    assert IDLE_ROUNDS_MAX == len(await world.store.read(TALLY))


async def test_a_bug_in_one_decision_fails_only_its_caller() -> None:
    world = World()

    def bug(_: int) -> Sequence[Added]:
        raise ZeroDivisionError

    results = await asyncio.gather(
        world.settle(decision(1)),
        world.settle(replace(decision(1), decide=bug)),
        world.settle(decision(2)),
        return_exceptions=True,
    )

    assert [True, False, True] == [isinstance(r, Done) for r in results]
    assert isinstance(results[1], ZeroDivisionError)
    assert 3 == await world.total()


async def test_an_event_that_could_not_be_published_is_refused_before_it_is_stored() -> None:
    world = World()
    huge = replace(decision(1), decide=lambda _: [Added(by=1, note="x" * 600_000)])

    with pytest.raises(EventTooLarge):
        await world.settle(huge)

    assert 0 == (await world.store.status()).committed


async def test_a_hole_in_a_stream_is_corrupt() -> None:
    world = World()
    for _ in range(3):
        await world.settle(decision(1))
    del world.store._streams[TALLY][1]

    with pytest.raises(Corrupt):
        await world.settle(decision(1))


async def test_a_busy_stream_is_loaded_once() -> None:
    world = World()
    loads = 0
    original = world.store.load

    async def counting(*args: Any, **kwargs: Any) -> Loaded:
        nonlocal loads
        loads += 1
        return await original(*args, **kwargs)

    world.store.load = counting  # type: ignore[method-assign]
    for n in range(20):
        await world.settle(decision(1, f"k{n}"))

    assert 1 == loads


async def test_what_is_remembered_is_never_the_ground_for_a_refusal() -> None:
    """Somebody else took 90 back meanwhile: the refusal would have been wrong."""
    world = World()
    await world.settle(decision(95))
    event = new_event('{"by":-90}', kind="tally.added.v1")
    await world.store.commit([Unit((Append(TALLY, Version(1), (event,)),))])

    assert b"15@3" == (await world.settle(decision(10, "k"))).reply
    assert b"15@3" == (await world.settle(decision(0))).reply
    with pytest.raises(VersionMismatch):
        await world.settle(decision(1, expected=1))


async def test_a_stale_memory_costs_a_retry_and_nothing_else() -> None:
    world = World()
    await world.settle(decision(1))
    event = new_event('{"by":10}', kind="tally.added.v1")
    await world.store.commit([Unit((Append(TALLY, Version(1), (event,)),))])

    done = await asyncio.gather(*(world.settle(decision(1, f"k{n}")) for n in range(5)))

    assert {b"12@3", b"13@4", b"14@5", b"15@6", b"16@7"} == {d.reply for d in done}


async def test_memory_is_bounded() -> None:
    memory: Memory[int] = Memory(streams_max=2)
    for n, name in enumerate(("a", "b", "a", "c")):
        memory.remember(StreamId(name), n, Version(n))

    assert (2, 2) == memory.recall(StreamId("a"))
    assert memory.recall(StreamId("b")) is None


async def test_snapshots_are_taken_and_used_and_may_vanish() -> None:
    world = World()
    for _ in range(25):
        await world.settle(decision(1))

    loaded = await world.aggregate.load(TALLY, [])
    assert loaded.snapshot and (20, "20") == (loaded.snapshot.version, loaded.snapshot.state)
    assert 5 == len(loaded.events)
    assert 25 == await world.total()

    world.store._snapshots.clear()
    assert 25 == await world.total()


# The committer alone.


class Slow(MemoryStore):
    """Commits when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.batches: list[int] = []

    async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        self.batches.append(len(units))
        self.began.set()
        await self.gate.wait()
        return await super().commit(units)


def a_unit(name: str) -> Unit:
    return Unit((Append(StreamId(f"acme/thing/{name}"), Version(0), (new_event(),)),))


async def test_what_arrives_together_is_shared_by_the_flights() -> None:
    """Else one flight takes a single unit, and everybody else waits for the other."""
    store = Slow()
    committer = GroupCommitter(store, flights_max=2, batch_units_max=10)
    waiting = [asyncio.create_task(committer.commit([a_unit(str(n))])) for n in range(14)]
    await store.began.wait()

    store.gate.set()
    await asyncio.gather(*waiting)

    assert [7, 7] == store.batches


async def test_while_flushes_fly_the_next_one_gathers() -> None:
    store = Slow()
    committer = GroupCommitter(store, flights_max=1, batch_units_max=10)
    waiting = [asyncio.create_task(committer.commit([a_unit("first")]))]
    await store.began.wait()
    for n in range(14):
        waiting.append(asyncio.create_task(committer.commit([a_unit(str(n))])))
        await asyncio.sleep(0)

    store.gate.set()
    await asyncio.gather(*waiting)
    await committer.drain()

    assert [1, 10, 4] == store.batches


async def test_a_committer_that_was_drained_has_forgotten_nobody() -> None:
    """Also those whose flush has not taken off yet."""
    store = MemoryStore()
    committer = GroupCommitter(store)
    waiting = [asyncio.create_task(committer.commit([a_unit(str(n))])) for n in range(3)]
    await asyncio.sleep(0)

    await committer.drain()

    assert 3 == (await store.status()).committed
    await asyncio.gather(*waiting)


async def test_a_full_queue_refuses_at_once_with_nothing_written() -> None:
    store = Slow()
    committer = GroupCommitter(store, flights_max=1, queue_units_max=3)
    waiting = [asyncio.create_task(committer.commit([a_unit("first")]))]
    await store.began.wait()
    waiting += [asyncio.create_task(committer.commit([a_unit(str(n))])) for n in range(3)]
    await asyncio.sleep(0)

    with pytest.raises(Unavailable):
        await committer.commit([a_unit("one too many")])

    store.gate.set()
    await asyncio.gather(*waiting)
    assert 4 == (await store.status()).committed


async def test_a_cancelled_caller_takes_nobody_with_it() -> None:
    store = Slow()
    committer = GroupCommitter(store, flights_max=1)
    first, second, third = (
        asyncio.create_task(committer.commit([a_unit(n)])) for n in ("1", "2", "3")
    )
    await asyncio.sleep(0.01)
    first.cancel()
    second.cancel()
    store.gate.set()

    await third
    await committer.drain()

    assert 3 == (await store.status()).committed


async def test_a_failing_store_is_heard_by_every_caller_of_the_flush() -> None:
    class Down(MemoryStore):
        async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
            raise Unavailable(f"on purpose: {len(units)} units")

    world = World(Down())

    results = await asyncio.gather(
        *(world.settle(decision(1), StreamId(f"acme/tally/{n}")) for n in range(5)),
        return_exceptions=True,
    )

    assert [Unavailable] * 5 == [type(r) for r in results]
    assert 5 == len({id(r) for r in results})


async def test_too_many_waiting_callers_are_refused() -> None:
    gate = asyncio.Event()

    async def run(_: StreamId, decisions: Sequence[Decision[int, Added]]) -> list[Done]:
        await gate.wait()
        return [Done(b"")] * len(decisions)

    lanes: Lanes[int, Added] = Lanes(run, waiting_decisions_max=2)
    waiting = []
    for n in range(3):  # the first runs, two wait behind it
        waiting.append(asyncio.create_task(lanes.settle(TALLY, decision(n))))
        await asyncio.sleep(0.01)

    with pytest.raises(Unavailable):
        await lanes.settle(TALLY, decision(9))
    gate.set()
    await asyncio.gather(*waiting)


async def test_an_interrupted_lane_tells_its_callers_and_goes_on() -> None:
    """A stray cancellation, a library's own, must not leave a dead lane whose callers hang."""
    rounds = 0

    async def run(_: StreamId, decisions: Sequence[Decision[int, Added]]) -> list[Done]:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise asyncio.CancelledError
        return [Done(b"")] * len(decisions)

    lanes: Lanes[int, Added] = Lanes(run)

    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="not known"):
            await lanes.settle(TALLY, decision(1))
        assert Done(b"") == await lanes.settle(TALLY, decision(1))
