"""Rehearsing a workflow: each step fails once, each effect comes twice, workers die at every await.

Subclass `WorkflowContract` with a `play` fixture, the workflow and who answers its commands, and
inherit the rest: whatever goes wrong, the end is the same, or everything is taken back. Time is virtual;
the store is the one in memory; the pump and the rules are the real ones.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flotilla.aggregate import Aggregate
from flotilla.background import Background
from flotilla.bus import Answer as Reply
from flotilla.bus import Request
from flotilla.clock import uuid7
from flotilla.errors import Rejected, Unavailable
from flotilla.store import RecordedEvent, Version
from flotilla.stores.memory import MemoryStore
from flotilla.testing.virtual_loop import run_virtually
from flotilla.workflow import events as e
from flotilla.workflow.asked import Command, Start
from flotilla.workflow.book import Book
from flotilla.workflow.definition import Definition, Step
from flotilla.workflow.events import WorkflowEvent
from flotilla.workflow.expressions import Json
from flotilla.workflow.instance import decider
from flotilla.workflow.instances import CODEC, Instances, instance_stream
from flotilla.workflow.pump import Pump
from flotilla.workflow.state import MOVING, Instance, Status, fold, wake

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
TENANT, KEY = "acme", "k"
END_MAX_S = 60 * 86_400
"""Virtual seconds in which everything has to come to an end."""
WORKERS_MAX = 50
POLL_MAX_S = 20.0
GOOD_ENDS = frozenset({Status.COMPLETED, Status.COMPENSATED})

type Fields = Mapping[str, Json]
type Telling = tuple[float, Callable[[datetime], Command]]
"""What somebody tells the instance, and how many seconds after its start."""


class VirtualClock:
    """The time of the loop that runs."""

    def now(self) -> datetime:
        """Return how late it is in this world."""
        return BEGINNING + timedelta(seconds=self.monotonic_s())

    def monotonic_s(self) -> float:
        """Return how long there has been a world."""
        return asyncio.get_running_loop().time()

    async def sleep(self, duration_s: float) -> None:
        """Return after so long."""
        await asyncio.sleep(duration_s)


@dataclass(frozen=True, slots=True)
class Play:
    """A workflow, what starts it, who answers it, and what happens to it meanwhile."""

    definition: Definition
    input: Json
    answer: Callable[[str, Fields], Json] = lambda _command, fields: dict(fields)
    """The services: a command and its fields to a reply; raises `Rejected` to refuse."""
    tellings: Sequence[Telling] = ()


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. Awaits of workers are counted from 1, over all of them."""

    dies_at: int = 0
    dies_late: bool = False
    """Whether what is awaited there is done first."""
    refuse: str = ""
    """The step whose command is refused, once it is asked for."""
    unheard: str = ""
    """The step whose first reply is lost."""
    twice: bool = False
    """Whether every command is delivered twice."""


@dataclass(slots=True)
class Services:
    """Whoever is asked: does each thing once a key, and answers the same ever after."""

    play: Play
    faults: Faults
    done: dict[str, Json] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)

    def ask(self, request: Request) -> Reply:
        """Do what is asked, unless it was done; a key stands for one content."""
        key = request.context.idempotency_key or ""
        assert key, f"{request.subject} is asked for without a key"
        assert request.body == self.contents.setdefault(key, request.body), (
            f"{key} has two contents"
        )
        self.asked[key] = self.asked.get(key, 0) + 1
        _, step, _ = key.rsplit("/", 2)
        if step == self.faults.refuse:
            raise Rejected(f"{step} is refused", code="refused-in-rehearsal")
        if key not in self.done:
            self.done[key] = self.play.answer(request.subject, json.loads(request.body))
        if step == self.faults.unheard and self.asked[key] == 1:
            raise Unavailable(f"{step}: no reply")
        return Reply(json.dumps(self.done[key]).encode())


@dataclass(slots=True)
class Worker:
    """A process with a pump. When it dies, whatever it still does leads nowhere."""

    stage: "Stage"
    pump: Pump
    died: asyncio.Event = field(default_factory=asyncio.Event)

    async def at[T](self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work` as a worker does: it may be the last thing it does."""
        stage, faults = self.stage, self.stage.faults
        if not self.died.is_set():
            stage.awaits += 1
            dies = stage.awaits == faults.dies_at
            if dies and faults.dies_late:
                await work()
            if dies:
                self.died.set()
        if self.died.is_set():
            raise asyncio.CancelledError
        return await work()


class Ports:
    """What a worker reaches the world through: its store and the services."""

    def __init__(self, stage: "Stage") -> None:
        self.stage = stage
        self.worker: Worker | None = None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        """Return a method of the store that the worker may die at."""
        method = getattr(self.stage.store, name)

        async def call(*args: object, **kwargs: object) -> object:
            assert self.worker is not None
            answer = await self.worker.at(lambda: method(*args, **kwargs))
            self.stage.committed.set()
            return answer

        return call

    async def request(self, request: Request) -> Reply:
        """Ask a service."""

        async def ask() -> Reply:
            await asyncio.sleep(0.01)
            if self.stage.faults.twice:
                self.stage.services.ask(request)
            return self.stage.services.ask(request)

        assert self.worker is not None
        return await self.worker.at(ask)


class Stage:
    """Where a play is played: one store, the services, and one living worker at a time."""

    def __init__(self, play: Play, faults: Faults) -> None:
        self.play, self.faults = play, faults
        self.services = Services(play, faults)
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock)
        self.awaits = 0
        self.committed = asyncio.Event()
        """Set when something may have changed."""
        self.stream = instance_stream(TENANT, play.definition.name, KEY)

    async def perform(self) -> "Ending":
        """Start the workflow, keep a worker alive, return how it ended."""
        await self._book().publish([self.play.definition])
        await self._until_heard(lambda now: Start(self.play.definition, KEY, self.play.input, now))
        tellers = [asyncio.create_task(self._tell(*telling)) for telling in self.play.tellings]
        ended = asyncio.create_task(self._ended())
        for _ in range(WORKERS_MAX):
            worker = self._worker()
            running = asyncio.create_task(worker.pump.run(Background("rehearsal")))
            await asyncio.wait([running, ended], return_when=asyncio.FIRST_COMPLETED)
            running.cancel()
            await asyncio.wait([running])
            if not running.cancelled():
                running.result()
            if ended.done():
                ended.result()
                break
        for teller in tellers:
            teller.cancel()
        return Ending(self.play, self.services, await self._history(), self.awaits)

    async def _ended(self) -> None:
        async with asyncio.timeout(END_MAX_S):
            while (await self._instance()).status in MOVING:
                self.committed.clear()
                await self.committed.wait()

    async def _tell(self, after_s: float, command: Callable[[datetime], Command]) -> None:
        await asyncio.sleep(after_s)
        await self._until_heard(command)

    async def _until_heard(self, command: Callable[[datetime], Command]) -> None:
        """Tell the instance, from outside and again until it is known that it was heard."""
        while True:
            worker = self._worker()
            told = asyncio.create_task(
                worker.pump.instances.tell(self.stream, command(self.clock.now()))
            )
            await asyncio.wait([told])
            if not worker.died.is_set():
                told.result()
                return

    def _worker(self) -> Worker:
        ports = Ports(self)
        reached: Any = ports  # it has what the store has
        book = Book(reached, uuid7)
        instances = _instances(book, reached, self.clock)
        pump = Pump(instances, reached, ports.request, self.clock, poll_max_s=POLL_MAX_S)
        ports.worker = Worker(self, pump)
        return ports.worker

    def _book(self) -> Book:
        return Book(self.store, uuid7)

    async def _history(self) -> list[WorkflowEvent]:
        return [CODEC.decode(event) for event in await self._recorded()]

    async def _recorded(self) -> Sequence[RecordedEvent]:
        return await self.store.read(self.stream, after=Version(0), limit=100_000)

    async def _instance(self) -> Instance:
        return fold(await self._history(), Instance())


def _instances(book: Book, ports: Any, clock: VirtualClock) -> Instances:
    parts = (CODEC, ports, ports.commit, clock, uuid7, random.Random(1))
    return Instances.of(book, lambda known: Aggregate(decider(known), *parts, wake=wake))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a play ended, and what was done on the way."""

    play: Play
    services: Services
    history: Sequence[WorkflowEvent]
    awaits: int

    @property
    def status(self) -> Status:
        """Where the instance stands."""
        return fold(self.history, Instance()).status

    @property
    def standing(self) -> dict[str, Json]:
        """What was done and not taken back, by step."""
        undone = {step for step, what in self._keys() if what == "undo"}
        return {
            step: self.services.done[key]
            for key in self.services.done
            for step, what in [_step_of(key)]
            if what == "do" and step not in undone
        }

    def holds(self) -> None:
        """Check what has to be true of every end: nothing was done twice, nothing left half done."""
        steps = [step for step, what in self._keys() if what == "do"]
        assert len(steps) == len(set(steps)), f"done twice: {steps}"
        assert self.status in {*GOOD_ENDS, Status.STUCK}, self.status
        if self.status is Status.COMPENSATED:
            left = {
                step for step in self.standing if self.play.definition.by_name[step].compensation
            }
            assert not left, f"not taken back: {left}"
        undone_in_reverse(self.history)

    def _keys(self) -> list[tuple[str, str]]:
        return [_step_of(key) for key in self.services.done]


def undone_in_reverse(history: Sequence[WorkflowEvent]) -> None:
    """Check that what succeeded was taken back at most once each, and the last first."""
    standing: list[tuple[str, int]] = []
    for event in history:
        if isinstance(event, e.StepSucceeded) and event.undoable:
            standing.append((event.step, event.attempt))
        if isinstance(event, e.StepAttempted) and event.undo:
            assert standing[-1][0] == event.step, f"{event.step} is not the last that was done"
        if isinstance(event, e.StepCompensated):
            assert standing, f"{event.step} was taken back and never done"
            assert standing.pop() == (event.step, event.attempt), f"{event.step}: out of order"


def perform(play: Play, faults: Faults | None = None) -> Ending:
    """Play it, with these faults."""
    return run_virtually(Stage(play, faults or Faults()).perform())


class WorkflowContract:
    """What every workflow promises. One subclass a workflow."""

    @pytest.fixture
    def play(self) -> Play:
        """Build the workflow, and who answers it."""
        raise NotImplementedError

    def test_undisturbed_it_completes(self, play: Play) -> None:
        """And asks for every command exactly once."""
        ending = perform(play)

        ending.holds()
        assert Status.COMPLETED == ending.status
        assert {1} == {*ending.services.asked.values()}

    def test_whichever_step_is_refused_everything_is_taken_back(self, play: Play) -> None:
        """What had been done before, and nothing else."""
        for step in _asking(play.definition):
            ending = perform(play, Faults(refuse=step.name))
            ending.holds()
            assert Status.COMPENSATED == ending.status, step.name

    def test_whichever_reply_is_lost_the_end_is_the_same(self, play: Play) -> None:
        """It is asked for again, under the same key."""
        expected = perform(play).standing
        for step in _asking(play.definition):
            ending = perform(play, Faults(unheard=step.name))
            ending.holds()
            assert (Status.COMPLETED, expected) == (ending.status, ending.standing), step.name

    def test_whichever_undoing_is_unheard_everything_is_taken_back_once(self, play: Play) -> None:
        """Compensation is asked for like everything else."""
        last = _asking(play.definition)[-1]
        for step in _asking(play.definition):
            ending = perform(play, Faults(refuse=last.name, unheard=f"{step.name}:undo"))
            ending.holds()
            assert Status.COMPENSATED == ending.status, step.name

    def test_every_effect_delivered_twice_is_done_once(self, play: Play) -> None:
        """The key says that it is the same."""
        expected = perform(play)

        ending = perform(play, Faults(twice=True))

        ending.holds()
        assert (expected.status, expected.standing) == (ending.status, ending.standing)

    def test_wherever_a_worker_dies_the_end_is_the_same(self, play: Play) -> None:
        """At each await, before and after what is awaited there: another one goes on."""
        self._dies_everywhere(play, Faults(), Status.COMPLETED)

    def test_wherever_a_worker_dies_while_it_takes_back_everything_is_taken_back(
        self, play: Play
    ) -> None:
        """Going back is as safe as going on."""
        last = _asking(play.definition)[-1]
        self._dies_everywhere(play, Faults(refuse=last.name), Status.COMPENSATED)

    def _dies_everywhere(self, play: Play, faults: Faults, status: Status) -> None:
        expected = perform(play, faults)
        assert status == expected.status
        assert expected.awaits > len(_asking(play.definition))
        for late in (False, True):
            for n in range(1, expected.awaits + 1):
                ending = perform(play, replace(faults, dies_at=n, dies_late=late))
                ending.holds()
                found = (ending.status, ending.standing)
                assert (status, expected.standing) == found, f"dies_at={n}, dies_late={late}"


def _asking(definition: Definition) -> list[Step]:
    return [step for step in definition.steps if step.call]


def _step_of(key: str) -> tuple[str, str]:
    _, step, _ = key.rsplit("/", 2)
    name, _, undo = step.partition(":")
    return name, undo or "do"
