"""What others' events lead to: workflows that they start, and instances that wait for them.

A consumer of logs, with a checkpoint: it tells every instance that an event concerns, and moves on
when that is durable. If it dies in between, the same events come again, and change nothing: an instance
starts once for its key, and knows the events that it was told. Two consumers at once do the work twice.

Whose instance an event concerns is computed from the event (`where` ties its fields to those of the
trigger of which the idempotency key is made), not looked up: there is no list of who waits for what, so
nobody can wait and not be on it. An event that comes before its step has begun is kept by the instance;
one that comes before its instance was started is nobody's.
"""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from flotilla.background import Background
from flotilla.clock import Clock
from flotilla.errors import Rejected
from flotilla.outbox import START, LogEvent, Outbox
from flotilla.projection import Checkpoint, Fenced, ViewSession, ViewStore
from flotilla.store import StreamId
from flotilla.workflow.asked import Arrive, Command, Start
from flotilla.workflow.book import Book
from flotilla.workflow.definition import Definition
from flotilla.workflow.expressions import Json, ReferenceMissing, correlated, evaluate
from flotilla.workflow.instances import KeyInvalid, Told, instance_stream

NAME = "workflow-arrivals"
BATCH_EVENTS = 256
SCHEDULE_FIRED, PLATFORM_TENANT = "schedule.fired.v1", "-"
"""What a scheduler says at a workflow's time, and whose workflows have times: no tenant can say it."""
POLL_S = 0.1

log = structlog.get_logger()

type Telling = Callable[[datetime], Command]
Tell = Callable[[StreamId, Telling], Awaitable[Told]]


@dataclass(frozen=True, slots=True)
class Concern:
    """An event is some instance's business: tell `stream` this, at the store's time."""

    stream: StreamId
    telling: Telling


def concerns(book: Book, event: LogEvent) -> Iterator[Concern | str]:
    """Yield whom `event` concerns; a text when that cannot be computed from it, and why. Pure."""
    if event.type == SCHEDULE_FIRED and event.tenant == PLATFORM_TENANT:
        yield from _at_its_time(book, event)
    starting = [d for d in book.current().values() if d.trigger.event == event.type]
    waiting = {(d.name, key) for d in book.versions() for key in _keys_by(d, event.type)}
    if not (starting or waiting):
        return
    data: Json = json.loads(event.payload)
    for definition in starting:
        yield _begin(definition, event, data)
    for name, expression in sorted(waiting):
        try:
            stream = instance_stream(event.tenant, name, evaluate(expression, {"trigger": data}))
        except (ReferenceMissing, KeyInvalid) as error:
            yield f"{name} does not hear of {event.stream}@{event.version}: {error}"
        else:
            yield Concern(stream, _arrive(event, data))


def _at_its_time(book: Book, event: LogEvent) -> Iterator[Concern | str]:
    """Yield what begins because its schedule fired: it is given the planned time, and nothing else."""
    fired = json.loads(event.payload)
    for definition in book.current().values():
        if definition.trigger.schedule and fired["schedule_id"] == definition.schedule_id:
            yield _begin(definition, event, {"at": fired["occurrence"]})


def _begin(definition: Definition, event: LogEvent, data: Json) -> Concern | str:
    try:
        key = evaluate(definition.idempotency_key, {"trigger": data})
        stream = instance_stream(event.tenant, definition.name, key)
    except (ReferenceMissing, KeyInvalid) as error:
        return f"{definition.name} is not started by {event.stream}@{event.version}: {error}"
    return Concern(stream, _start(definition, key, data))


def _keys_by(definition: Definition, event: str) -> Iterator[str]:
    """Yield the idempotency key, said in fields of an event that steps wait for."""
    for step in definition.awaits(event):
        if step.wait_for:
            yield correlated(definition.idempotency_key, step.wait_for.where)


def _start(definition: Definition, key: Json, data: Json) -> Telling:
    return lambda now: Start(definition, str(key), data, now)


def _arrive(event: LogEvent, data: Json) -> Telling:
    return lambda now: Arrive(event.type, f"{event.stream}@{event.version}", data, now)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Reads the logs of `logs` by their ledgers and tells instances (`Pump.tell`)."""

    book: Book
    tell: Tell
    logs: Mapping[str, Outbox]
    views: ViewStore
    clock: Clock
    poll_s: float = POLL_S

    async def run(self, shown: Background) -> None:
        """Read on, until cancelled; begins at the head of each log that it did not read before."""
        await self.begin()
        await self.book.refresh()
        while True:
            told = [await self.read_on(name, ledger) for name, ledger in self.logs.items()]
            shown.recovered()
            if not any(told):
                await self.clock.sleep(self.poll_s)
                await self.book.refresh()

    async def begin(self) -> None:
        """Begin at the head of each log that was not read before: what comes after this is heard."""
        # A log that was empty when it was begun is begun, too: its checkpoint is there, at the start.
        begun = {(of, log) for of, log, _ in await self.views.checkpoints()}
        for name, ledger in self.logs.items():
            if (NAME, name) not in begun:
                await self._begin(name, ledger)

    async def read_on(self, name: str, ledger: Outbox) -> int:
        """Tell whomever the next events of a log concern; return how many events there were."""
        before = await self.views.checkpoint(NAME, name)
        batch = await ledger.events(after=before.offset, limit=BATCH_EVENTS)
        if not batch:
            return 0
        for event in batch:
            await self._hear(event)
        last = batch[-1]
        after = Checkpoint(last.offset, last.recorded_at)
        await self.views.advance(NAME, name, (before.offset, after), _nothing)
        await ledger.read_by(NAME, after.offset)
        return len(batch)

    async def _hear(self, event: LogEvent) -> None:
        for concern in concerns(self.book, event):
            if isinstance(concern, str):
                log.warning("workflow.event_without_key", why=concern)
                continue
            try:
                await self.tell(concern.stream, concern.telling)
            except (
                Rejected
            ) as refusal:  # it would be refused each time: others must not wait for it
                log.warning("workflow.event_refused", stream=concern.stream, error=str(refusal))

    async def _begin(self, name: str, ledger: Outbox) -> None:
        """Begin at the head: what happened before anybody asked for it starts nothing."""
        head = await ledger.last_offset()
        with suppress(Fenced):  # somebody else has begun it
            await self.views.advance(NAME, name, (START, Checkpoint(head)), _nothing)


async def _nothing(_: ViewSession) -> None:
    """Move the checkpoint and nothing else."""
