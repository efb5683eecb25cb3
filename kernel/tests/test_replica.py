"""Replicas on a virtual clock: each piece of work is done by one, and never by nobody for long."""

import asyncio
import random
from contextlib import AsyncExitStack

from flotilla.background import Background, background
from flotilla.clock import uuid7
from flotilla.lease import LOOK_EVERY_S, TTL_S
from flotilla.replica import HESITATION_MAX_S, LEADERLESS_MAX_S, Led, Replica, led, this_process
from flotilla.stores.memory_leases import MemoryLeases
from flotilla.testing import SteppedClock

NAMES = {f"work:{n}" for n in range(4)}


class World:
    """Replicas that all try for all the work."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.leases = MemoryLeases(self.clock)
        self.replicas: list[Replica] = []
        self.shown: list[Background] = []

    async def join(self, stack: AsyncExitStack) -> Replica:
        seed = len(self.replicas)
        replica = Replica(this_process(uuid7), self.clock, random.Random(seed))
        self.replicas.append(replica)

        async def work(_: Background) -> None:
            await asyncio.Event().wait()

        for name in sorted(NAMES):
            led_work = replica.leading(replica.candidate(self.leases, name), work)
            running = background(name, led_work, clock=self.clock, chance=replica.chance)
            self.shown.append(await stack.enter_async_context(running))
        return replica


async def test_each_work_is_led_once_and_a_latecomer_takes_nothing_away() -> None:
    world = World()
    async with AsyncExitStack() as stack:
        one = await world.join(stack)
        await world.clock.pass_time(2)
        assert one.leads == NAMES
        other = await world.join(stack)

        await world.clock.pass_time(20)

        assert (NAMES, set()) == (one.leads, other.leads)
        assert {None} == {shown.trouble for shown in world.shown}, "standing by is no trouble"
        found = [led(await world.leases.leases(), name) for name in sorted(NAMES)]
        assert [Led(one.holder)] * len(NAMES) == found
    assert set() == one.leads


async def test_replicas_that_begin_together_share() -> None:
    world = World()
    async with AsyncExitStack() as stack:
        for name in NAMES:
            assert await world.leases.acquire(name, "killed", ttl_s=TTL_S)
        one, other = await world.join(stack), await world.join(stack)

        await world.clock.pass_time(TTL_S + LOOK_EVERY_S + HESITATION_MAX_S)

        assert NAMES == one.leads | other.leads
        assert set() == one.leads & other.leads
        assert one.leads
        assert other.leads


async def test_nobody_is_missed_only_after_a_take_over_had_its_time() -> None:
    clock = SteppedClock()
    leases = MemoryLeases(clock)
    assert Led() == led(await leases.leases(), "work")
    assert not Led().is_missed, "what nobody ever led may not be there yet"
    await leases.acquire("work", "one", ttl_s=TTL_S)
    assert Led("one") == led(await leases.leases(), "work")

    await clock.pass_time(TTL_S + LEADERLESS_MAX_S)
    assert not led(await leases.leases(), "work").is_missed
    await clock.pass_time(0.1)

    assert led(await leases.leases(), "work").is_missed
    assert LOOK_EVERY_S + HESITATION_MAX_S < LEADERLESS_MAX_S
