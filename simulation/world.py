"""One world from a seed: a storm, in which nothing may break, and the calm after it, which must settle.

    writers ──commit──▶ store ◀──pending, record── relays ──publish──▶ broker ──deliver──▶ projectors
                          ▲ leases ▲──acquire──────┘                                          │
                          └──────────── what the stream lacks ────────────────────────────────┴─▶ views

The real `Relay`, `Handshake`, `Leadership`, `Projector`, `Partition` and `Parking`, run by what their
services run them with. In memory: the store, the leases, the broker's stream, and the views (SQLite
without a file; the journal is folded in one to three parts).
Every call may be lost before or after it was done, late or deadly to its caller; processes are paused
right before a call is sent, killed, stopped in order and started again; commits become visible in
another order than that of their positions; the broker loses connections, its tail, everything.
"""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flotilla.stores.memory_leases import MemoryLeases
from flotilla.testing.virtual_loop import run_virtually
from simulation import residents
from simulation.broker import Broker
from simulation.checks import Broken, CopyCheck, ViewCheck, commands_happened_once, holds
from simulation.disk import Disk
from simulation.process import Network, Process, Weather
from simulation.residents import Journal, Shared
from simulation.views import Database, MemoryViews

STORM_S = 7.0
CALM_MAX_S = 40.0
"""A lease that has to end, a late request, back-off, and all that is left: bounded."""
RESIDENTS: Mapping[str, Callable[[Shared, Process], Awaitable[None]]] = {
    **{f"writer-{n}": residents.write for n in range(3)},
    **{f"relay-{n}": residents.relay for n in range(3)},
    **{f"projector-{n}": residents.project for n in range(2)},
    "operator": residents.retry_parked,
}


@dataclass(slots=True)
class Run:
    """How a world went. `error` is None when all promises were kept."""

    seed: int
    events: int
    calls: int
    virtual_s: float
    error: str | None
    trace: list[tuple[float, str, str, str]] = field(repr=False)

    def lines(self) -> list[str]:
        """Return the trace to read."""
        return [f"{t:9.4f}  {who:14} {what:14} {detail}" for t, who, what, detail in self.trace]

    def digest(self) -> str:
        """Return what two runs of one seed have in common: everything."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()


class World:
    """`parts` replace what a world is made of (fields of `Shared`); `fenced` is the broker's."""

    def __init__(self, seed: int, *, fenced: bool = True, **parts: Any) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.network = Network(self.rng, Weather.of(self.rng))
        clock = Process("clock", self.network)
        leases, broker, database = MemoryLeases(clock), Broker(fenced), Database()
        disk = Disk(clock, leases, self._hide)
        self.shared = Shared(self.rng, disk, leases, broker, database, **parts)
        self.shared.partitions = self.rng.choice([1, 1, 2, 3])
        self._copy = CopyCheck(disk, broker)
        self._view = ViewCheck(disk, database, self.shared.journal)
        self.shared.view_moved = self._view
        self.network.after_each = self._check
        self._alive: dict[str, Process] = {}
        self._storm = True
        self._breaks = self.rng.choice([0.0, 0.3, 1.0])
        """How often a second the broker loses something."""

    async def live(self) -> None:
        """Live to the end. Raises what was broken."""
        asyncio.get_running_loop().set_exception_handler(self._unheard)
        at_start = MemoryViews(self.shared.database)
        await at_start.migrate(Journal.name, Journal.tables)
        lives = [asyncio.create_task(self._reincarnate(name)) for name in RESIDENTS]
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

    def _unheard(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the world for an error in a callback; the dead do not hear what they asked for."""
        if "handle" in context:
            self.network.fail(context["exception"])

    async def _story(self) -> None:
        while asyncio.get_running_loop().time() < STORM_S:
            await asyncio.sleep(self.rng.random() * 0.4)
            self._strike()
        self._calm_down()
        for _ in range(int(CALM_MAX_S / 0.25)):
            await asyncio.sleep(0.25)
            if self._settled():
                break
        holds(self._settled(), "no progress after the storm", self._where())
        self._copy()
        self._view()
        commands_happened_once(self.shared.disk, self.shared.acknowledged)
        self.network.note("world", "settled", self._where())

    def _strike(self) -> None:
        """Let something happen that no call is to blame for."""
        happens, victim = self.network.happens, self._alive[self.rng.choice(list(RESIDENTS))]
        if happens(0.1):
            victim.die()
        elif happens(0.05) and victim.task:
            self.network.note(victim.name, "is stopped")
            victim.task.cancel()
        elif happens(0.1):
            victim.pause(self.rng.random() * 6)
        broker = self.shared.broker
        length = len(broker.stream.messages)
        if happens(self._breaks * (0.6 if self.network.under_way["record"] else 0.2)):
            keep = self.rng.choice([length, 0, self.rng.randint(0, length), max(0, length - 1)])
            self.network.note("broker", "loses", f"its connections, and {length - keep} messages")
            broker.lose(keep)

    def _calm_down(self) -> None:
        self.network.note("world", "calm")
        self.network.weather = Weather()
        self._storm = self.shared.writing = False
        self.shared.mended = True

    def _hide(self, show: Callable[[], None]) -> bool:
        """Keep a commit invisible for a while, or not."""
        if not self._storm or self.rng.random() < 0.5:  # noqa: PLR2004 - every other one
            return False
        hidden_s = self.rng.choice([0.01, 0.1, 1.5]) * self.rng.random()
        asyncio.get_running_loop().call_later(hidden_s, show)
        return True

    async def _reincarnate(self, name: str) -> None:
        """Keep a process alive: when it has died, another one begins where it was."""
        life = 0
        try:
            while True:
                life += 1
                process = Process(f"{name}#{life}", self.network)
                self._alive[name] = process
                process.task = asyncio.create_task(self._life(name, process))
                await asyncio.wait([process.task])
                process.dead = True
                self.shared.leaders.pop(process.name, None)
                await asyncio.sleep(self.rng.random() * 2)
        finally:
            self._alive[name].die()

    async def _life(self, name: str, process: Process) -> None:
        try:
            await RESIDENTS[name](self.shared, process)
        except Exception as error:  # noqa: BLE001 - a resident that ends by itself is a bug
            self.network.fail(error)

    def _check(self, what: str) -> None:
        """Check what a call may have broken."""
        try:
            trusting = [name for name, one in self.shared.leaders.items() if one.trusted]
            holds(len(trusting) <= 1, "several trust the lease", trusting)
            if what in {"publish", "record", "restart_at"}:
                self._copy()
        except Broken as error:
            self.network.fail(error)

    def _settled(self) -> bool:
        shared = self.shared
        last = len(shared.disk.ledger())
        return (
            shared.disk.settled
            and last == len(shared.broker.stream.messages) == self._view.checkpoint
            and not self._view.parked()
        )

    def _where(self) -> str:
        ledger, stream = self.shared.disk.ledger(), self.shared.broker.stream.messages
        return (
            f"recorded {len(ledger)}, published {len(stream)}, projected {self._view.checkpoint},"
            f" parked {self._view.parked()}"
        )


def run(seed: int, **parts: Any) -> Run:
    """Run the world of `seed`."""

    async def live() -> Run:
        world, error = World(seed, **parts), None
        try:
            await world.live()
        except Exception as broken:  # noqa: BLE001 - whatever ended it, the seed is the report
            error = f"{type(broken).__name__}: {broken}"
        finally:
            world.shared.database.close()
        loop = asyncio.get_running_loop()
        trace, events = world.network.trace, len(world.shared.disk.ledger())
        return Run(seed, events, len(trace), loop.time(), error, trace)

    return run_virtually(live())
