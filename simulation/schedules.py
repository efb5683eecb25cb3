"""Worlds of schedules: workers that die, are paused and lose replies, and a store's clock that jumps.

Whatever happens, every occurrence of every schedule is decided once and in order: it fired, or it is
told to be missed; and after the storm nothing that is due is left.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from flotilla import (
    Aggregate,
    ContractCodec,
    Decider,
    GroupCommitter,
    KernelError,
    Lanes,
    StreamId,
    execute,
    stream_id,
    uuid7,
)
from flotilla.background import background
from flotilla.stores.memory import MemoryStore
from flotilla.testing.virtual_loop import run_virtually
from flotilla_contracts.scheduler import (
    ChangeSchedule,
    CreateSchedule,
    FireSchedule,
    PauseSchedule,
    ResumeSchedule,
    ScheduleCommand,
    ScheduleFired,
    ScheduleMissed,
)
from simulation.checks import holds
from simulation.process import Network, Process, Remote, Weather
from simulation.workflows import JumpingClock
from simulation.world import Run
from svc_scheduler.application import Schedules
from svc_scheduler.domain.schedule import Asked, Event, Schedule, decider, wake
from svc_scheduler.firing import Firing
from svc_scheduler.main import EVENTS, ScheduleSnapshots

WORKERS = 3
SCHEDULES = 4
STORM_S = 40.0
CALM_S = 25.0
JUMP_MAX_S = 20.0

Rules = Decider[Asked, Schedule, Event]


class World:
    """`lease_s` and `rules` are for leaving a safeguard out."""

    def __init__(self, seed: int, *, lease_s: float = 10.0, rules: Rules | None = None) -> None:
        self.rng = random.Random(seed)
        self.network = Network(self.rng, Weather.of(self.rng))
        self.clock = JumpingClock(Process("clock", self.network))
        self.store = MemoryStore(self.clock)
        self.names = [f"s{n}" for n in range(SCHEDULES)]
        self._rules = rules or decider()
        self._lease_s = lease_s
        self._alive: dict[str, Process] = {}
        self._storm = True

    async def live(self) -> None:
        """Live to the end. Raises what was broken."""
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        residents = {f"worker-{n}": self._work for n in range(WORKERS)}
        lives = [
            asyncio.create_task(self._reincarnate(name, live))
            for name, live in {**residents, "operator": self._operate}.items()
        ]
        story = asyncio.create_task(self._story())
        try:
            await asyncio.wait([story, self.network.broken], return_when="FIRST_COMPLETED")
        finally:
            for task in (story, *lives):
                task.cancel()
            await asyncio.wait(lives)
        if self.network.broken.done():
            self.network.broken.result()
        story.result()

    async def _story(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < STORM_S:
            await asyncio.sleep(self.rng.random())
            self._strike()
        self.network.note("world", "calm")
        self.network.weather, self._storm = Weather(), False
        await asyncio.sleep(CALM_S)
        for name in self.names:
            state = self._decided_once(name)
            holds(state.exists, "nobody created it", name)
            late_s = (self.clock.now() - (state.due or self.clock.now())).total_seconds()
            holds(late_s < 1, "something due is left", name, late_s, state)

    def _decided_once(self, name: str) -> Schedule:
        """Check that decisions follow each other, none twice and none left out; return the end."""
        state, decided = Schedule(), set[datetime]()
        for event in self.history(name):
            match event:
                case ScheduleFired(manual=False, occurrence=first):
                    count = 1
                case ScheduleMissed(first=first, count=count):
                    pass
                case _:
                    state = self._rules.evolve(state, event)
                    continue
            holds(first == state.next, "not the one that was next", name, first, state.next)
            step = timedelta(seconds=state.terms.every_s or 0)
            these = {first + n * step for n in range(count)}
            holds(decided.isdisjoint(these), "decided twice", name, decided & these)
            decided |= these
            state = self._rules.evolve(state, event)
        return state

    def history(self, name: str) -> list[Event]:
        """Return what happened to a schedule."""
        stored = self.store._streams.get(_stream(name), [])  # noqa: SLF001 - as a disk is read
        return [ContractCodec(EVENTS).decode(event) for event in stored]

    def _strike(self) -> None:
        """Let something happen that no call is to blame for."""
        victim = self._alive[self.rng.choice(list(self._alive))]
        if self.network.happens(0.2):
            victim.die()
        elif self.network.happens(0.1):
            victim.pause(self.rng.random() * 10)
        elif self.network.happens(0.1):
            self.clock.jumped_s = self.rng.uniform(-JUMP_MAX_S, JUMP_MAX_S)
            self.network.note("store", "its clock jumps", f"to {self.clock.jumped_s:.1f} s")

    async def _reincarnate(self, name: str, live: Callable[[Process], Awaitable[None]]) -> None:
        life = 0
        try:
            while True:
                life += 1
                process = Process(f"{name}#{life}", self.network)
                self._alive[name] = process
                process.task = asyncio.create_task(self._live(live, process))
                await asyncio.wait([process.task])
                process.dead = True
                await asyncio.sleep(self.rng.random() * 2)
        finally:
            self._alive[name].die()

    async def _live(self, live: Callable[[Process], Awaitable[None]], process: Process) -> None:
        try:
            await live(process)
        except Exception as error:  # noqa: BLE001 - a resident that ends by itself is a bug
            self.network.fail(error)

    def _schedules(self, process: Process) -> Schedules:
        store: Any = Remote(process, self.store)
        chance = random.Random(self.rng.random())
        aggregate: Aggregate[Asked, Schedule, Event] = Aggregate(
            self._rules,
            ContractCodec(EVENTS),
            store,
            GroupCommitter(store).commit,
            process,
            uuid7,
            chance,
            ScheduleSnapshots(every_events=3),
            wake=wake,
        )
        return Schedules(self._rules, Lanes(partial(execute, aggregate)).settle, store, 3600)

    async def _work(self, process: Process) -> None:
        schedules = self._schedules(process)
        firing = Firing(schedules.tell, schedules.due, process, lease_s=self._lease_s)
        chance = random.Random(self.rng.random())
        async with background(process.name, firing.run, clock=process, chance=chance):
            await asyncio.Event().wait()

    async def _operate(self, process: Process) -> None:
        """Create every schedule until it is known to be there; tell them this and that in the storm."""
        schedules = self._schedules(process)
        while True:
            for name in self.names:
                command = self._order(name)
                if command is None:
                    continue
                try:
                    await schedules.tell(Asked(_stream(name), await schedules.now(), command), {})
                except KernelError as error:
                    self.network.note(process.name, "is refused", repr(error))
            await process.sleep(1 + self.rng.random())

    def _order(self, name: str) -> ScheduleCommand | None:
        terms: dict[str, Any] = {
            "every_s": self.rng.choice([1, 2, 7]),
            "missed": self.rng.choice(["skip", "once", "all"]),
            "grace_s": self.rng.choice([0, 3, 20]),
            "jitter_max_s": self.rng.choice([0, 2]),
        }
        if not self.history(name):
            return CreateSchedule(schedule_id=name, **terms)
        if not self._storm:
            return ResumeSchedule(schedule_id=name)
        orders: list[ScheduleCommand | None] = [
            *(None, None, None),
            PauseSchedule(schedule_id=name),
            ResumeSchedule(schedule_id=name),
            FireSchedule(schedule_id=name),
            ChangeSchedule(schedule_id=name, **terms),
        ]
        return self.rng.choice(orders)


def _stream(name: str) -> StreamId:
    return stream_id("acme", "schedule", name)


def _forgetful() -> Rules:
    """Return rules that forget up to where everything was settled."""
    real = decider()
    return replace(
        real, decide=lambda asked, state: real.decide(asked, replace(state, settled=None))
    )


MUTANTS: Mapping[str, Mapping[str, Any]] = {
    "claims-never-end": {"lease_s": 10_000.0},
    "forgets-what-was-settled": {"rules": _forgetful()},
}


def run(seed: int, **parts: Any) -> Run:
    """Run the world of `seed`."""

    async def live() -> Run:
        world, error = World(seed, **parts), None
        try:
            await world.live()
        except Exception as broken:  # noqa: BLE001 - whatever ended it, the seed is the report
            error = f"{type(broken).__name__}: {broken}"
        trace = world.network.trace
        events = sum(len(world.history(name)) for name in world.names)
        return Run(seed, events, len(trace), asyncio.get_running_loop().time(), error, trace)

    return run_virtually(live())
