"""A world of workflows from a seed: workers that die, services that are not heard, clocks that jump.

    starter ──Start──▶ instances ◀──claim, Wake, Report── workers ──ask──▶ services
                          └──────────── one store ─────────────┘

The real `Pump`, `Instances`, `GroupCommitter` and rules; in memory: the store, and services that do a
thing once a key. Every call may be lost before or after it was done, late, or deadly to its caller.
After the storm every workflow has to be completed, or taken back as a whole; what is stuck, because
nobody was heard for too long, is resumed by an operator, and has to end like the others.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from flotilla.aggregate import Aggregate
from flotilla.background import background
from flotilla.bus import Answer, Request
from flotilla.clock import uuid7
from flotilla.commit import GroupCommitter
from flotilla.errors import Conflict, KernelError, Rejected
from flotilla.store import StreamId
from flotilla.stores.memory import MemoryStore
from flotilla.testing.virtual_loop import run_virtually
from flotilla.testing.workflows import undone_in_reverse
from flotilla.workflow import events as e
from flotilla.workflow.asked import NotDone, Resume, Start, Unknown
from flotilla.workflow.book import Book
from flotilla.workflow.definition import Definition, definition_from
from flotilla.workflow.events import WorkflowEvent
from flotilla.workflow.instance import decider
from flotilla.workflow.instances import CODEC, Instances, instance_stream
from flotilla.workflow.pump import Pump
from flotilla.workflow.state import Instance, Status, fold, wake
from simulation.checks import holds
from simulation.process import Network, Process, Remote, Weather
from simulation.world import Run

WORKERS = 3
INSTANCES = 4
STORM_S = 40.0
CALM_MAX_S = 600.0
JUMP_MAX_S = 20.0
RARE = 0.2


def drawn(rng: random.Random) -> Definition:
    """Return a workflow: some steps, each after some of those before it."""
    steps: list[dict[str, Any]] = []
    for n in range(rng.randint(2, 6)):
        before = [step["name"] for step in steps]
        needs = rng.sample(before, rng.randint(0, min(2, len(before))))
        step: dict[str, Any] = {"name": f"s{n}", "depends_on": needs}
        if rng.random() < RARE:
            steps.append(step | {"timer_s": rng.choice([0.5, 5, 20])})
            continue
        undo = None if rng.random() < RARE else _call(f"undo-s{n}")
        steps.append(step | {"call": _call(f"do-s{n}"), "compensation": undo, "timeout_s": 600})
    return definition_from(
        {
            "name": "drawn",
            "version": 1,
            "trigger": {"event": "thing.wanted.v1"},
            "idempotency_key": "${trigger.key}",
            "steps": steps,
        }
    )


def _call(command: str) -> dict[str, Any]:
    return {"service": "world", "command": command, "parameters": {"key": "${trigger.key}"}}


class JumpingClock:
    """The store's wall clock: somebody sets it, now and then."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.jumped_s = 0.0
        self.monotonic_s = process.monotonic_s
        self.sleep = process.sleep

    def now(self) -> datetime:
        """Return what it shows."""
        return self._process.now() + timedelta(seconds=self.jumped_s)


@dataclass(slots=True)
class Services:
    """Everybody who is asked. Some things are refused for ever, and some are too busy at times."""

    rng: random.Random
    refused: set[tuple[str, str]]
    busy: float
    done: dict[str, str] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)
    forgets_keys: bool = False

    async def ask(self, request: Request) -> Answer:
        """Do what is asked, once a key."""
        key, command = request.context.idempotency_key or "", request.subject.rsplit(".", 1)[1]
        if self.rng.random() < self.busy:
            raise Conflict("somebody else was first")
        if (json.loads(request.body)["key"], command) in self.refused:
            raise Rejected(f"{command} is refused")
        if key not in self.done or self.forgets_keys:
            self.times[key] += 1
        self.done[key] = command
        return Answer(request.body)


class World:
    """`pump` and `forgets_keys` are for leaving a safeguard out."""

    def __init__(self, seed: int, *, pump: type[Pump] = Pump, forgets_keys: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.network = Network(self.rng, Weather.of(self.rng))
        self.clock = JumpingClock(Process("clock", self.network))
        self.store = MemoryStore(self.clock)
        self.definition = drawn(self.rng)
        self.keys = [f"k{n}" for n in range(INSTANCES)]
        commands = [s.call.command for s in self.definition.steps if s.call]
        refused = {
            (key, self.rng.choice(commands))
            for key in self.keys
            if commands and self.rng.random() < 2 * RARE
        }
        busy = self.rng.choice([0.0, 0.1])
        self.services = Services(self.rng, refused, busy, forgets_keys=forgets_keys)
        self._pump = pump
        self._alive: dict[str, Process] = {}
        self._storm = True

    async def live(self) -> None:
        """Live to the end. Raises what was broken."""
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        await Book(self.store, uuid7).publish([self.definition])
        residents = {f"worker-{n}": self._work for n in range(WORKERS)}
        lives = [
            asyncio.create_task(self._reincarnate(name, live))
            for name, live in {**residents, "starter": self._start}.items()
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
        self.network.weather, self._storm, self.services.busy = Weather(), False, 0.0
        while loop.time() < STORM_S + CALM_MAX_S:
            await asyncio.sleep(1)
            if all(status in _GOOD for status in self._statuses().values()):
                break
        holds(set(self._statuses().values()) <= _GOOD, "not at their ends", self._statuses())
        for key in self.keys:
            self._ended_well(key)

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

    def _instances(self, process: Process) -> Instances:
        store: Any = Remote(process, self.store)
        committer = GroupCommitter(store)
        chance = random.Random(self.rng.random())
        parts = (CODEC, store, committer.commit, process, uuid7, chance)
        book = Book(store, uuid7)
        return Instances.of(book, lambda known: Aggregate(decider(known), *parts, wake=wake))

    async def _work(self, process: Process) -> None:
        store: Any = Remote(process, self.store)
        services: Any = Remote(process, self.services)
        pump = self._pump(self._instances(process), store, services.ask, process)
        name, chance = process.name, random.Random(self.rng.random())
        async with background(name, pump.run, clock=process, chance=chance):
            await asyncio.Event().wait()

    async def _start(self, process: Process) -> None:
        """Start every workflow until it is known to be; later, resume what is stuck."""
        instances = self._instances(process)
        while True:
            for key, status in self._statuses().items():
                if status is Status.ABSENT or (status is Status.STUCK and not self._storm):
                    try:
                        await instances.book.refresh()
                        await instances.tell(self._stream(key), self._command(key, status))
                    except KernelError as error:
                        self.network.note(process.name, "is refused", repr(error))
            await process.sleep(1)

    def _command(self, key: str, status: Status) -> Start | Resume:
        if status is Status.STUCK:
            return Resume("operator", self.clock.now())
        return Start(self.definition, key, {"key": key}, self.clock.now())

    def _stream(self, key: str) -> StreamId:
        return instance_stream("acme", self.definition.name, key)

    def _history(self, key: str) -> list[WorkflowEvent]:
        stored = self.store._streams.get(self._stream(key), [])  # noqa: SLF001 - as a disk is read
        return [CODEC.decode(event) for event in stored]

    def _statuses(self) -> Mapping[str, Status]:
        return {key: fold(self._history(key), Instance()).status for key in self.keys}

    def _ended_well(self, key: str) -> None:
        """Check that everything was done once, and all of it or nothing is left."""
        history, about = self._history(key), f"drawn:{key}/"
        undone_in_reverse(history)
        times = {k: n for k, n in self.services.times.items() if k.startswith(about)}
        holds(set(times.values()) <= {1}, "done twice", times)
        did = [self.services.done[k] for k in times]
        holds(len(did) == len(set(did)), "done under two keys", did)
        done = {c.removeprefix("do-") for c in did if c.startswith("do-")}
        undone = {c.removeprefix("undo-") for c in did if c.startswith("undo-")}
        succeeded = {event.step for event in history if isinstance(event, e.StepSucceeded)}
        holds(done == succeeded, "done and not known, or the other way round", (done, succeeded))
        steps = self.definition.by_name
        if fold(history, Instance()).status is Status.COMPLETED:
            wanted = {name for name, step in steps.items() if step.call}
            holds((done, undone) == (wanted, set()), "completed, and not everything is done", did)
        else:
            undoable = {name for name in done if steps[name].compensation}
            holds(undone == undoable, "compensated, and not everything is undone", did)


_GOOD = {Status.COMPLETED, Status.COMPENSATED}


class GivesUpOnTheUnheard(Pump):
    """Believes that what nobody was heard of was not done."""

    async def _outcome(self, *about: Any) -> Any:
        outcome = await super()._outcome(*about)
        if isinstance(outcome, Unknown):
            return NotDone(outcome.code, outcome.message, final=True)
        return outcome


class NeverTakesOver(Pump):
    """Does what it began, and nothing that anybody left."""

    async def _claim(self, limit: int) -> Any:  # noqa: ARG002 - as the real one
        return await super()._claim(0)


MUTANTS: Mapping[str, Mapping[str, Any]] = {
    "gives-up-on-the-unheard": {"pump": GivesUpOnTheUnheard},
    "never-takes-over": {"pump": NeverTakesOver},
    "services-forget-keys": {"forgets_keys": True},
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
        events = sum(len(world._history(key)) for key in world.keys)  # noqa: SLF001 - its own
        return Run(seed, events, len(trace), asyncio.get_running_loop().time(), error, trace)

    return run_virtually(live())
