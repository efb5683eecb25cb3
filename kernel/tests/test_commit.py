"""The group committer's bell: it rings for what is durable, and nobody waits for it."""

import asyncio
from collections.abc import Sequence

import pytest

from flotilla import GroupCommitter
from flotilla.errors import Unavailable
from flotilla.store import Committed, Outcome, Unit
from flotilla.stores.memory import MemoryStore
from flotilla.testing.store import A, B, append, record


async def test_it_rings_for_what_is_durable_and_says_how_much() -> None:
    rung: list[int] = []
    committer = GroupCommitter(MemoryStore(), on_commit=rung.append)

    await committer.commit([Unit((append(A, 0, "1"),)), Unit((append(B, 0, "1"),), record("k"))])
    await committer.commit([Unit((append(A, 9, "1"),)), Unit((), record("k"))])
    await committer.commit([])
    await committer.drain()

    assert [2] == rung


async def test_a_broken_bell_keeps_no_caller_waiting() -> None:
    """What was committed was committed; the next flush flies as well."""

    def broken(_: int) -> None:
        raise ZeroDivisionError("on purpose")

    committer = GroupCommitter(MemoryStore(), on_commit=broken, flights_max=1)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)

    async with asyncio.timeout(5):
        for version in range(3):
            outcomes = await committer.commit([Unit((append(A, version, "1"),))])
            assert [Committed()] == list(outcomes)
        await committer.drain()


async def test_every_caller_gets_the_outcomes_of_its_own_units() -> None:
    """However many share a flush, and however many units each of them brings."""

    class Recording(MemoryStore):
        batches: list[int]

        async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
            self.batches.append(len(units))
            await asyncio.sleep(0)
            return await super().commit(units)

    store = Recording()
    store.batches = []
    committer = GroupCommitter(store, batch_units_max=5, flights_max=1)
    brought = [
        [Unit((), record(f"{caller}-{n}", reply=f"{caller}-{n}".encode())) for n in range(caller)]
        for caller in range(8)
    ]

    first = await asyncio.gather(*(committer.commit(units) for units in brought))
    again = await asyncio.gather(*(committer.commit(units) for units in brought))

    assert [[Committed()] * caller for caller in range(8)] == [list(o) for o in first]
    assert [[getattr(o, "reply", None) for o in outcomes] for outcomes in again] == [
        [f"{caller}-{n}".encode() for n in range(caller)] for caller in range(8)
    ]
    assert max(store.batches) == 7  # what one caller brings stays together


async def test_a_stopping_process_tells_its_callers_that_nothing_is_known() -> None:
    class Stopped(MemoryStore):
        async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:  # noqa: ARG002 - a port
            raise asyncio.CancelledError

    with pytest.raises(Unavailable, match="whether this was committed is not known"):
        await GroupCommitter(Stopped()).commit([Unit((append(A, 0, "1"),))])
