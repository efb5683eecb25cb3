"""Leadership on a virtual clock: whoever trusts a lease is the only one who could have it."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from flotilla.errors import Corrupt, Unavailable
from flotilla.lease import LOOK_EVERY_S, MARGIN_S, TTL_S, Leadership, Lease
from flotilla.stores.memory_leases import MemoryLeases
from flotilla.testing import SteppedClock

NAME = "relay:thing"


class UnsteadyLeases(MemoryLeases):
    """Can be cut off, and can take its time to answer."""

    def __init__(self, clock: SteppedClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.away = False
        self.answers_after_s = 0.0

    async def acquire(self, name: str, holder: str, *, ttl_s: float) -> Lease | None:
        if self.away:
            raise Unavailable("on purpose: no answer")
        lease = await super().acquire(name, holder, ttl_s=ttl_s)
        if self.answers_after_s:
            await self.clock.sleep(self.answers_after_s)
        return lease

    async def release(self, lease: Lease) -> None:
        if self.away:
            raise Unavailable("on purpose: no answer")
        await super().release(lease)


class Candidate:
    """A replica that only notes whether it works."""

    def __init__(self, holder: str, leases: MemoryLeases, clock: SteppedClock) -> None:
        self.leadership = Leadership(leases, NAME, holder, clock, random.Random(holder))
        self.works = False
        self.tokens: list[int] = []

    async def work(self, lease: Lease) -> None:
        self.tokens.append(lease.token)
        self.works = True
        try:
            await asyncio.Event().wait()
        finally:
            self.works = False

    async def live(self) -> None:
        while True:
            with suppress(Unavailable):
                await self.leadership.lead(self.work)
            await self.leadership.clock.sleep(0.1)


@asynccontextmanager
async def living(*candidates: Candidate) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(candidate.live()) for candidate in candidates]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=5)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def leases(clock: SteppedClock) -> UnsteadyLeases:
    return UnsteadyLeases(clock)


async def test_one_leads_and_goes_on_leading(clock: SteppedClock, leases: UnsteadyLeases) -> None:
    one, other = Candidate("one", leases, clock), Candidate("other", leases, clock)
    async with living(one, other):
        for _ in range(100):
            await clock.pass_time(0.5)
            assert 1 == one.works + other.works
    assert [1] == one.tokens + other.tokens


async def test_in_order_it_is_released_and_the_next_one_begins_at_its_next_look(
    clock: SteppedClock, leases: UnsteadyLeases
) -> None:
    one, other = Candidate("one", leases, clock), Candidate("other", leases, clock)
    async with living(one, other) as tasks:
        await clock.pass_time(10)
        assert one.works
        tasks[0].cancel()
        await clock.pass_time(LOOK_EVERY_S)
        assert (False, True) == (one.works, other.works)
    assert [1, 2] == one.tokens + other.tokens


async def test_one_that_was_killed_is_succeeded_within_five_seconds(
    clock: SteppedClock, leases: UnsteadyLeases
) -> None:
    """The worst case: it had just renewed, and the other one had just looked."""
    assert await leases.acquire(NAME, "killed", ttl_s=TTL_S)
    other = Candidate("other", leases, clock)
    async with living(other):
        await clock.pass_time(TTL_S - 0.01)
        assert not other.works
        await clock.pass_time(LOOK_EVERY_S + 0.01)
        assert other.works
    assert TTL_S + LOOK_EVERY_S <= 5.0


async def test_a_store_that_does_not_answer_ends_the_work_before_the_lease(
    clock: SteppedClock, leases: UnsteadyLeases
) -> None:
    one = Candidate("one", leases, clock)
    async with living(one):
        await clock.pass_time(1.9)  # renewed a moment ago, at 1
        leases.away = True
        await clock.pass_time(1 + TTL_S - MARGIN_S - 1.9 - 0.01)
        assert one.works
        await clock.pass_time(0.02)
        [status] = await leases.leases()
        assert (False, False) == (one.works, one.leadership.trusted)
        assert status.expires_in_s > 0

        leases.away = False
        await clock.pass_time(1)
        assert one.works


async def test_trust_counts_from_when_it_was_asked_and_not_from_the_answer(
    clock: SteppedClock, leases: UnsteadyLeases
) -> None:
    leases.answers_after_s = TTL_S - MARGIN_S + 0.1
    one = Candidate("one", leases, clock)
    async with living(one):
        await clock.pass_time(60)
        assert not one.leadership.trusted
    assert not one.works


async def test_a_holder_that_was_paused_trusts_nothing_when_it_wakes(
    clock: SteppedClock, leases: UnsteadyLeases
) -> None:
    """A paused process runs no timer: only its question to the clock can tell it."""
    one = Candidate("one", leases, clock)
    async with living(one):
        await clock.pass_time(0.1)
        assert (True, True) == (one.works, one.leadership.trusted)

        clock.advance(TTL_S - MARGIN_S)  # and nobody was woken

        assert (True, False) == (one.works, one.leadership.trusted)
        assert await leases.acquire(NAME, "other", ttl_s=TTL_S) is None
        clock.advance(MARGIN_S)
        assert await leases.acquire(NAME, "other", ttl_s=TTL_S)
        await clock.pass_time(0)
        await clock.pass_time(TTL_S / 2)
        assert not one.works


async def test_work_that_ends_lets_the_next_one_begin_and_says_how_it_ended(
    clock: SteppedClock, leases: UnsteadyLeases
) -> None:
    one, other = Candidate("one", leases, clock), Candidate("other", leases, clock)

    async def broken(_: Lease) -> None:
        raise Corrupt("on purpose")

    with pytest.raises(Corrupt, match="on purpose"):
        await one.leadership.lead(broken)

    async with living(other):
        await clock.pass_time(0)
        assert other.works


async def test_a_release_that_arrives_late_does_not_end_the_next_lease_of_the_same_holder(
    clock: SteppedClock,
) -> None:
    """The caller gave up on it, leads again, and only then the store hears of it."""

    class LateReleases(UnsteadyLeases):
        late: tuple[Lease, ...] = ()

        async def release(self, lease: Lease) -> None:
            self.late += (lease,)
            raise Unavailable("on purpose: no reply")

    leases = LateReleases(clock)
    one, other = Candidate("one", leases, clock), Candidate("other", leases, clock)

    async def broken(_: Lease) -> None:
        raise Unavailable("on purpose")

    with pytest.raises(Unavailable):
        await one.leadership.lead(broken)
    async with living(one):
        await clock.pass_time(TTL_S + LOOK_EVERY_S)
        assert one.leadership.trusted
        async with living(other):
            [late] = leases.late
            await MemoryLeases.release(leases, late)
            await clock.pass_time(LOOK_EVERY_S)
            assert (True, False) == (one.leadership.trusted, other.leadership.trusted)


async def test_who_cannot_do_the_work_does_not_try(
    clock: SteppedClock, leases: UnsteadyLeases
) -> None:
    one, other = Candidate("one", leases, clock), Candidate("other", leases, clock)
    one.leadership.able = lambda: False
    async with living(one, other):
        await clock.pass_time(10)
        assert (False, True) == (one.works, other.works)


@pytest.mark.parametrize("seed", range(100))
async def test_never_do_two_trust_the_same_lease_whatever_happens(seed: int) -> None:
    """Pauses, a store that goes away or is slow, holders that die: and still one a moment."""
    rng, clock = random.Random(seed), SteppedClock()
    leases = UnsteadyLeases(clock)
    candidates = [Candidate(f"c{n}-{seed}", leases, clock) for n in range(3)]
    async with living(*candidates) as tasks:
        for step in range(120):
            leases.away = rng.random() < 0.15
            leases.answers_after_s = rng.choice([0, 0, 0, 0.3, 2.6, 4.0])
            if rng.random() < 0.1:
                n = rng.randrange(3)
                tasks[n].cancel()
                await clock.pass_time(0)
                tasks[n] = asyncio.create_task(candidates[n].live())
            if rng.random() < 0.2:
                clock.advance(rng.random() * 2 * TTL_S)  # everybody is paused
            trusting = [c.leadership.holder for c in candidates if c.leadership.trusted]
            assert len(trusting) <= 1, f"seed {seed}, step {step}: {trusting}"
            await clock.pass_time(rng.random())
            trusting = [c.leadership.holder for c in candidates if c.leadership.trusted]
            assert len(trusting) <= 1, f"seed {seed}, step {step}: {trusting}"
            holders = {str(s.holder).partition("+")[0] for s in await leases.leases()}
            assert set(trusting) <= holders, f"seed {seed}, step {step}"
        leases.away, leases.answers_after_s = False, 0.0
        await clock.pass_time(2 * TTL_S)
        assert 1 == sum(c.works for c in candidates), f"seed {seed}: nobody leads after the storm"
