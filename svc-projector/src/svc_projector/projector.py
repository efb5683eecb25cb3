"""One projection's loop: events in, rows and checkpoint out, in one transaction.

    following ──batch──▶ behind the checkpoint? dropped · next? applied · beyond? a gap
        ▲                                                                   │
        └──────────────── the missing range, read from the store ◀──────────┘

A projection never passes the ledger: what was published and not recorded may still be lost with the
broker, and its offset given to another event. So it waits the moment that recording takes, and then
compares: what came before the loss is not what was recorded. A message that never gets into the ledger
(somebody else published it) is never folded.

Offsets are dense, so a gap is visible at once. A redelivery is a no-op, a second instance is fenced by
the compare-and-set on the checkpoint. An event that cannot be folded is parked (`flotilla.parking`).
After any other error whoever runs this starts again from the checkpoint, which is in the database: the
broker's consumer state is disposable.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from flotilla import (
    Checkpoint,
    Clock,
    Corrupt,
    Fenced,
    LogEvent,
    Offset,
    Outbox,
    Projection,
    SystemClock,
    Unavailable,
    ViewStore,
)
from flotilla.divergence import begin_at
from flotilla.outbox import START, as_log_event
from flotilla.parking import PARKED_MAX, Parking
from flotilla.partition import check_parts

BATCH_EVENTS_MAX = 500
RECORDED_LOOKS_MAX = 500
LOOK_AGAIN_S = 0.004
"""The relay records a batch milliseconds after it published it."""


@dataclass(slots=True)
class Projector:
    """Folds one log into one read model. `source` is the log's store, for what the stream lacks."""

    projection: Projection
    views: ViewStore
    source: Outbox
    on_applied: Callable[[Sequence[LogEvent]], None] = lambda _batch: None
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint(START))
    recorded: Offset = START
    """The last offset that the ledger was seen to have."""
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)
    """Notified whenever the view moved: whoever waits for a version looks again."""
    clock: Clock = field(default_factory=SystemClock)
    parked_max: int = PARKED_MAX
    parking: Parking = field(init=False)

    def __post_init__(self) -> None:
        self.parking = Parking(self.projection, self.views, self.clock, self.parked_max)

    async def begin(self) -> None:
        """Make sure that there is a checkpoint: one that never moved is told from one that is not.

        Raises `Repartitioned`.
        """
        await check_parts(self.views, self.projection)
        of, begun = self.projection, (START, Checkpoint(START))
        if (await self.views.checkpoint(of.name, of.log)).offset == START:
            with suppress(Fenced):  # another instance was faster
                await self.views.advance(of.name, of.log, begun, lambda v: check_parts(v, of))

    async def start(self) -> Offset:
        """Return where to go on: the checkpoint in the database. Raises `Diverged`, `Repartitioned`."""
        self.recorded = START  # a restored store has less than before; a refilled stream, others
        self.checkpoint = await begin_at(self.projection, self.views, self.source)
        await self.parking.load()
        return self.checkpoint.offset

    async def project(self, batch: Sequence[LogEvent]) -> None:
        """Fold a batch; what is in it twice, or was folded already, is left out.

        An empty one is the moment to notice that a rebuild or a rollback moved the checkpoint.

        Raises:
            Fenced: another instance moved the checkpoint.
            Unavailable: a store did not answer, the ledger does not have an offset yet, or too much is
                parked; nothing was applied that is not checkpointed.
            Corrupt: an event is in neither the stream nor the store.

        """
        if not batch:
            await self._check_fence()
        new = {event.offset: event for event in batch if event.offset > self.checkpoint.offset}
        for run in _dense_runs([new[offset] for offset in sorted(new)]):
            await self._close_gap(run[0].offset)
            if self.recorded < run[-1].offset:
                await self._until_recorded(run[-1].offset)
                await self._check_recorded(run)
            await self._apply(run)

    async def _check_fence(self) -> None:
        of = self.projection
        if (at := (await self.views.checkpoint(of.name, of.log)).offset) != self.checkpoint.offset:
            raise Fenced(f"{of.name}: the checkpoint in {of.log} is at {at} now")

    async def _until_recorded(self, upto: Offset) -> None:
        """Return when the ledger has `upto`."""
        for look in range(RECORDED_LOOKS_MAX):
            if self.recorded >= upto:
                return
            await self.pause(LOOK_AGAIN_S if look else 0)
            self.recorded = await self.source.last_offset()
        raise Unavailable(
            f"{self.projection.name}: offset {upto} of {self.projection.log} is on the stream and not"
            " in the ledger; see docs/runbooks/projector.md"
        )

    async def _check_recorded(self, run: Sequence[LogEvent]) -> None:
        """Check that the ledger has these events at these offsets, and not what came after a loss."""
        there = await self.source.events(after=Offset(run[0].offset - 1), limit=len(run))
        if [(e.stream, e.version) for e in there] != [(e.stream, e.version) for e in run]:
            raise Unavailable(
                f"{self.projection.name}: the broker lost what it delivered after offset"
                f" {run[0].offset - 1} of {self.projection.log}, and the ledger has other events there"
            )

    async def _close_gap(self, upto: Offset) -> None:
        """Apply what is missing before offset `upto`, from the store; never skip."""
        while (last := self.checkpoint.offset) + 1 < upto:
            limit = min(BATCH_EVENTS_MAX, upto - last - 1)
            recorded = await self.source.last_offset()  # before the ledger is read: it grows
            entries = await self.source.published(after=last, limit=limit)
            offsets = [entry.offset for entry in entries]
            if not entries and recorded <= last:  # the relay publishes first and records second
                raise Unavailable(
                    f"{self.projection.name}: offset {last + 1} of {self.projection.log} was not"
                    " delivered and is not in the ledger yet"
                )
            if not entries or offsets != list(range(last + 1, last + 1 + len(entries))):
                raise Corrupt(
                    f"{self.projection.name}: offset {last + 1} of {self.projection.log} is neither"
                    " in the stream nor in the ledger; see docs/runbooks/projector.md"
                )
            await self._apply([as_log_event(entry) for entry in entries])

    async def _apply(self, batch: Sequence[LogEvent]) -> None:
        async for part in self.parking.fold(self.checkpoint.offset, batch):
            self.checkpoint = Checkpoint(part[-1].offset, part[-1].recorded_at)
            self.on_applied(part)
            async with self.moved:
                self.moved.notify_all()


def _dense_runs(events: Sequence[LogEvent]) -> Iterator[Sequence[LogEvent]]:
    """Yield `events` in runs without a gap inside; there is one unless messages were lost."""
    start = 0
    for n in range(1, len(events) + 1):
        if n == len(events) or events[n].offset != events[n - 1].offset + 1:
            yield events[start:n]
            start = n
