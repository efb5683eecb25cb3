"""Makes a read model again beside the live one, compares both, and swaps.

    building ──all but a few──▶ comparing ──▶ swapping ──▶ done        the old view is kept
       ▲  │                         │            │
       │  └─ an event is refused    └─ too far ◀─┘   others would wait too long: catch up again
       │     ──▶ stopped               behind
       └──────── run again: goes on from the shadow's own checkpoint, after any end

The shadow follows the live view's checkpoint, so that both can be compared at the same offset while
the projector works on. Rows and checkpoint of the shadow move in one transaction, so dying at any
point leaves a shadow to go on with, or the swap done. A rebuild is strict: it parks nothing, and an
event that cannot be folded ends it, named. Of two rebuilds of one view the second is refused.

A live view that has folded what its log lost (`flotilla.divergence`) is replaced by what the log has,
up to the live checkpoint or the end of the log, whichever is less: the checkpoint may go back.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum

from flotilla.divergence import divergence
from flotilla.errors import Conflict, Corrupt, KernelError, Unavailable
from flotilla.outbox import START, LogEvent, Offset, Outbox
from flotilla.partition import marks_of
from flotilla.projection import (
    Checkpoint,
    Projection,
    ViewSession,
    ViewStore,
)
from flotilla.shadow import Comparison, ShadowStore, Swapped, TooFarBehind

BATCH_EVENTS_MAX = 10_000
LOCKED_EVENTS_MAX = 500
"""How many events are folded while the projector waits."""
ROUNDS_MAX = 1000
"""How often a shadow catches up before we say that the log grows faster than it can be folded."""
DIFFERENCES_MAX = 20

Source = Callable[[Offset, Offset], AsyncGenerator[Sequence[LogEvent]]]
"""Yield the events after the first offset up to the second, in order, in batches."""


class Phase(StrEnum):
    """What a rebuild is doing."""

    BUILDING = "building"
    COMPARING = "comparing"
    SWAPPING = "swapping"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: the shadow is at `offset`, and follows the live view to `target`."""

    phase: Phase
    offset: Offset
    target: Offset


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What came of it. `swapped` is None when it was only compared."""

    started: Offset
    """Where the shadow was already, from a rebuild that was interrupted."""
    events: int
    comparison: Comparison
    swapped: Swapped | None


class EventRefused(Corrupt):
    """A projection cannot fold an event, or one of several. The cause is the error that it raised."""

    default_code = "projection-event-refused"

    def __init__(self, projection: str, batch: Sequence[LogEvent], error: Exception) -> None:
        event = batch[0]
        which = f"offset {event.offset}, {event.type} of {event.stream}@{event.version}"
        if len(batch) > 1:
            which = f"one of the offsets {event.offset} to {batch[-1].offset}"
        super().__init__(f"{projection} cannot fold {which}: {type(error).__name__}: {error}")
        self.offset = event.offset


@dataclass(frozen=True, slots=True)
class ReadModels:
    """What a service makes of logs, for those who make it again: its projections, and their streams."""

    projections: tuple[Projection, ...]
    read_stream: Callable[[str, str], Source]
    """From the broker's URL and a log: the log as the broker has it."""


@dataclass(slots=True)
class Rebuild:
    """One projection's rebuild. `ledger` is the outbox of its log; `source` reads the bulk of it."""

    projection: Projection
    places: ShadowStore
    ledger: Outbox
    source: Source
    report: Report = lambda _progress: None
    partitions: int | None = None
    """In how many parts the view is folded after the swap; None: as before."""
    _at: Checkpoint = field(default_factory=lambda: Checkpoint(START))

    async def run(self, *, swap: bool) -> Rebuilt:
        """Build, compare and, if asked to, swap; the shadow stays when it was only compared.

        Raises:
            EventRefused: the projection cannot fold an event; the shadow stands before it.
            Claimed: somebody else rebuilds this view.
            Corrupt: the log lacks an offset, or the shadow was begun for other tables or another log.
            Unavailable: a store did not answer, readers left no gap, or the log grows too fast.

        """
        async with self.places.claim():
            return await self._run(swap=swap)

    async def _run(self, *, swap: bool) -> Rebuilt:
        started = (await self.places.standing()).shadow or Checkpoint(START)
        await self._build()
        self._say(Phase.COMPARING)
        comparison = await self._when_near(self._compare)
        swapped = None
        if swap:
            self._say(Phase.SWAPPING)
            swapped = await self._when_near(self._swap)
        end = swapped.checkpoint if swapped else comparison.checkpoint
        return Rebuilt(started.offset, end.offset - started.offset, comparison, swapped)

    async def _build(self, *, near_events: int = LOCKED_EVENTS_MAX // 2) -> None:
        """Bring the shadow so near to the live view that the rest is done in a moment."""
        of = self.projection
        async with self.places.shadow() as shadow:
            self._at = await shadow.checkpoint(of.name, of.log)
            if why := await divergence(self.ledger, self._at):
                raise Corrupt(
                    f"the shadow of {of.name} is another log's: {why}; drop the shadow and begin again"
                )
            for round_ in range(ROUNDS_MAX):
                target = await self._target()
                self._say(Phase.BUILDING, target)
                if self._at.offset + (near_events if round_ else 0) >= target:
                    return
                async with aclosing(self.source(self._at.offset, target)) as batches:
                    async for batch in batches:
                        check_dense(self.projection, self._at.offset, batch)
                        await self._apply(shadow, batch)
                        self._say(Phase.BUILDING, target)
        raise Unavailable(f"the log {of.log} grows faster than {of.name} can be folded")

    async def _target(self) -> Offset:
        """Return where all of the live view is; the end of the log, where it has not begun."""
        live = (await marks_of(self.places.live, self.projection)).slowest.offset
        recorded = await self.ledger.last_offset()
        return min(live, recorded) if live else recorded

    async def _apply(self, shadow: ViewStore, batch: Sequence[LogEvent]) -> None:
        try:
            await self._advance(shadow, batch)
        except (Conflict, Unavailable):
            raise
        except Exception as error:
            for event in batch:  # one at a time, up to the one that it is
                try:
                    await self._advance(shadow, [event])
                except (Conflict, Unavailable):
                    raise
                except Exception as refusal:
                    raise EventRefused(self.projection.name, [event], refusal) from refusal
            raise EventRefused(self.projection.name, batch, error) from error

    async def _advance(self, shadow: ViewStore, batch: Sequence[LogEvent]) -> None:
        end = Checkpoint(batch[-1].offset, batch[-1].recorded_at)
        name, log = self.projection.name, self.projection.log
        step = (self._at.offset, end)
        await shadow.advance(name, log, step, lambda view: self.projection.apply(view, batch))
        self._at = end

    async def _compare(self) -> Comparison:
        return await self.places.compare(self._catch_up, differences_max=DIFFERENCES_MAX)

    async def _swap(self) -> Swapped:
        return await self.places.swap(self._catch_up, partitions=self.partitions)

    async def _when_near[T](self, step: Callable[[], Awaitable[T]]) -> T:
        """Run a step that folds the rest; when that is too much, or fails, build on first."""
        for _ in range(ROUNDS_MAX):
            try:
                return await step()
            except TooFarBehind:
                await self._build()
            except KernelError:
                raise
            except Exception:
                await self._build(near_events=0)  # which names the event, if it is one
                raise
        raise Unavailable(f"{self.projection.name} does not keep up with the live view")

    async def _catch_up(self, view: ViewSession, at: Checkpoint, to: Checkpoint) -> Checkpoint:
        """Fold the rest, from the ledger: a few events, because others wait."""
        upto = min(to.offset, await self.ledger.last_offset())
        if upto - at.offset > LOCKED_EVENTS_MAX:
            raise TooFarBehind(f"{self.projection.name}: {upto - at.offset} events to catch up")
        async with aclosing(from_ledger(self.ledger)(at.offset, upto)) as batches:
            async for batch in batches:
                check_dense(self.projection, at.offset, batch)
                await self.projection.apply(view, batch)
                at = Checkpoint(batch[-1].offset, batch[-1].recorded_at)
        return at

    def _say(self, phase: Phase, target: Offset | None = None) -> None:
        self.report(Progress(phase, self._at.offset, target or self._at.offset))


def from_ledger(ledger: Outbox, *, batch_events_max: int = BATCH_EVENTS_MAX) -> Source:
    """Return the log as its store has it: complete for ever. The next batch is read meanwhile."""

    async def read(after: Offset, upto: Offset) -> AsyncGenerator[Sequence[LogEvent]]:
        async def page(last: Offset) -> Sequence[LogEvent]:
            return await ledger.events(after=last, limit=min(batch_events_max, upto - last))

        coming = asyncio.create_task(page(after)) if after < upto else None
        try:
            while coming and (batch := await coming):
                last = batch[-1].offset
                coming = asyncio.create_task(page(last)) if last < upto else None
                yield batch
        finally:
            if coming:
                coming.cancel()
                await asyncio.wait([coming])

    return read


def check_dense(projection: Projection, last: Offset, batch: Sequence[LogEvent]) -> None:
    """Refuse a batch that does not go on where the last one ended: a view must not have a hole.

    Raises `Corrupt`.
    """
    if batch[0].offset != last + 1 or batch[-1].offset != last + len(batch):
        raise Corrupt(
            f"{projection.name}: {len(batch)} events from offset {last + 1} of {projection.log} on were"
            f" expected and {batch[0].offset} to {batch[-1].offset} read: a part of the log is missing;"
            " the store (--source store) has all of it, see docs/runbooks/projector.md",
            code="log-incomplete",
        )
