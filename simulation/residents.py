"""Who lives in a world: writers, relays, projectors, and somebody who retries what is parked."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from flotilla import (
    Corrupt,
    KernelError,
    Leadership,
    LeaseStore,
    LogEvent,
    Outbox,
    Projection,
    StreamId,
    Unavailable,
    ViewSession,
)
from flotilla.background import Background, Work, background
from flotilla.doorbell import Ear
from flotilla.parked import NotParked, parked_keys
from flotilla.parking import Parking, StillPoison
from flotilla.partition import parts_of
from flotilla.replica import Replica
from flotilla.store import (
    Append,
    ClaimKey,
    Committed,
    Conflicted,
    EventStore,
    IdempotencyRecord,
    NewEvent,
    Replayed,
    Unit,
)
from flotilla.stores.memory_leases import MemoryLeases
from simulation.broker import Broker, Line
from simulation.checks import Broken, holds
from simulation.disk import Command, Disk
from simulation.process import Process, Remote
from simulation.views import Database, MemoryViews
from svc_outbox_relay.log_stream import LogStream
from svc_outbox_relay.main import keep_relaying
from svc_outbox_relay.relay import Relay
from svc_outbox_relay.settings import Settings
from svc_outbox_relay.testing import LOG, message_of
from svc_projector.projector import Projector

BATCH_MAX = 3
COMMANDS_MAX = 5
"""Of one writer, whatever happens to it."""
STREAMS = ("acme/thing/a", "acme/thing/b", "umbrella/thing/c")
POISON = "poison"


class Journal:
    """Writes every event on the next line; refuses poison until it is mended."""

    name = "journal"
    log = LOG
    staleness_budget_s = 5.0
    tables = ("create table journal (line integer primary key, stream text, version int, at int)",)

    def __init__(self, mended: Callable[[], bool], partitions: int = 1) -> None:
        self._mended = mended
        self.partitions = partitions

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Write first, refuse then: the damage is done before it shows."""
        [(lines,)] = await view.fetch("select count(*) from journal")
        await view.execute_many(
            "insert into journal values ($1, $2, $3, $4)",
            [(lines + n, e.stream, e.version, e.offset) for n, e in enumerate(batch, start=1)],
        )
        if any(POISON in event.payload.decode() for event in batch) and not self._mended():
            raise ValueError("poison")


@dataclass(slots=True)
class Shared:
    """What all processes of a world share, and what they are made of: mutants replace a part."""

    rng: random.Random
    disk: Disk
    leases: MemoryLeases
    broker: Broker
    database: Database
    relay: type[Relay] = Relay
    projector: type[Projector] = Projector
    views: type[MemoryViews] = MemoryViews
    leadership: type[Leadership] = Leadership
    outbox: Callable[[Outbox], Outbox] = lambda outbox: outbox
    leaders: dict[str, Leadership] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    asked: dict[str, int] = field(default_factory=dict)
    """How many commands each writer has begun: it goes on there when it lives again."""
    view_moved: Callable[[], None] = lambda: None
    mended: bool = False
    writing: bool = True
    partitions: int = 1
    """In how many parts the journal is folded."""

    @property
    def journal(self) -> tuple[Projection, ...]:
        """Return the journal, in its parts."""
        return parts_of(Journal(lambda: self.mended, self.partitions))

    def views_of(self, process: Process) -> MemoryViews:
        """Return a process' way to the views."""
        return self.views(self.database, process.call, self.view_moved)


async def write(shared: Shared, process: Process) -> None:
    """Ask for one command after the other; again and again under the same key, until it is known."""
    rng, slot = shared.rng, process.name.partition("#")[0]
    store = cast("EventStore", Remote(process, shared.disk))
    while shared.writing and shared.asked.get(slot, 0) < COMMANDS_MAX:
        await process.sleep(rng.random() * 1.5)
        n = shared.asked[slot] = shared.asked.get(slot, 0) + 1
        stream = StreamId(rng.choice(STREAMS))
        command = Command(f"{slot}-{n}", stream, rng.choice([1, 1, 2, 4]), rng.random() < 0.05)  # noqa: PLR2004 - one in twenty
        while not await _happened(command, store):
            await process.sleep(rng.random() * 0.2)
        shared.acknowledged.add(command.key)
    await process.sleep(1e9)


async def _happened(command: Command, store: EventStore) -> bool:
    """Try once; return whether it is known to have happened."""
    payload = f'"{POISON if command.poisonous else command.key}"'
    events = tuple(
        NewEvent(f"{command.key}.{n}", "thing.happened.v1", payload, {"correlation": command.key})
        for n in range(command.events)
    )
    claim = ClaimKey("acme", "thing", command.key)
    record = IdempotencyRecord(claim, b"same", b"done", 3600)
    try:
        loaded = await store.load(command.stream)
        append = Append(command.stream, loaded.version, events)
        [outcome] = await store.commit([Unit((append,), record)])
    except Unavailable:
        return False
    holds(isinstance(outcome, Committed | Replayed | Conflicted), "no such outcome", outcome)
    return not isinstance(outcome, Conflicted)


class _Doorbell:
    """Rings at times; polling is the truth."""

    def __init__(self, process: Process, rng: random.Random) -> None:
        self._process, self._rng = process, rng

    async def hear(self, *, timeout_s: float) -> bool:
        share = self._rng.choice([0.1, 1, 1])
        await self._process.sleep(timeout_s * share)
        return share < 1


SETTINGS = Settings(poll_min_s=0.05, poll_max_s=0.8, batch_messages_max=BATCH_MAX)


async def relay(shared: Shared, process: Process) -> None:
    """Be a candidate, and relay while leading: what the service's own composition root runs."""
    chance = random.Random(shared.rng.random())
    leases = cast("LeaseStore", Remote(process, shared.leases))
    leadership = shared.leadership(leases, f"relay:{LOG}", process.name, process, chance)
    shared.leaders[process.name] = leadership
    stream: LogStream = Line(process, shared.broker)
    one = shared.relay(
        LOG,
        shared.outbox(cast("Outbox", Remote(process, shared.disk))),
        stream,
        message_of,
        on_handshake=lambda case: process.network.note(process.name, "handshake", case),
        leads=lambda: leadership.trusted,
        lease=lambda: leadership.won,
        batch_messages_max=BATCH_MAX,
    )
    ear = cast("Ear", _Doorbell(process, shared.rng))
    relaying = partial(keep_relaying, one, ear, SETTINGS)
    replica = Replica(process.name, process, chance)
    await keep_going(process, replica.leading(leadership, relaying), chance)


async def project(shared: Shared, process: Process) -> None:
    """Fold every part of the journal, each by itself."""
    async with asyncio.TaskGroup() as parts:
        for part in shared.journal:
            parts.create_task(_project(shared, process, part))


async def _project(shared: Shared, process: Process, part: Projection) -> None:
    """Fold what is delivered: late, again, or with something missing."""
    rng = shared.rng
    projector = shared.projector(
        part,
        shared.views_of(process),
        cast("Outbox", Remote(process, shared.disk)),
        clock=process,
        pause=lambda s: process.sleep(s * 25),
    )

    async def work(shown: Background) -> None:
        after = int(await projector.start())
        connection = shared.broker.connections
        while True:
            shown.recovered()
            if connection != shared.broker.connections:
                raise Unavailable("the connection was lost")
            again = rng.choice([0, 0, 0, 2])
            batch = await process.call(
                "deliver",
                partial(shared.broker.deliver, max(0, after - again), BATCH_MAX + again),
                f"after {after - again}",
            )
            if len(batch) > 1 and rng.random() < 0.1:  # noqa: PLR2004 - one in ten
                del batch[0]
            await projector.project(batch)
            after = max([after, *(event.offset for event in batch)])
            await process.sleep(0.02 if batch else 0.3)

    await keep_going(process, work, random.Random(rng.random()))


async def retry_parked(shared: Shared, process: Process) -> None:
    """Retry what is parked, every now and then."""
    views = shared.views_of(process)

    async def work(_: Background) -> None:
        await process.sleep(1 + shared.rng.random() * 3)
        for part in shared.journal:
            parking = Parking(part, views, process)
            for key in sorted(await parked_keys(views.fetch_across, part.name, LOG)):
                try:
                    await parking.retry(key)
                except (NotParked, StillPoison) as error:
                    process.network.note(process.name, "retry", str(error))

    await keep_going(process, work, random.Random(shared.rng.random()))


async def keep_going(process: Process, work: Work, chance: random.Random) -> None:
    """Run `work` as every service runs its background work; what halts it breaks the world."""

    async def watched(shown: Background) -> None:
        try:
            await work(shown)
        except Corrupt as error:
            if not process.dead:
                process.network.fail(Broken(f"{process.name} halted: {error}"))
            raise
        except KernelError as error:
            process.network.note(process.name, "failed", f"{type(error).__name__}: {error}")
            raise
        except Exception as error:
            process.network.fail(error)
            raise

    async with background(process.name, watched, clock=process, chance=chance):
        await process.sleep(1e9)
