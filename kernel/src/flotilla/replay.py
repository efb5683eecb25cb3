"""Folds a part of a log again, onto the live view itself.

    from an offset or a time   events again up to the checkpoint, batch by batch; for projections whose
                               `replayable` says that folding an event twice is folding it once
    a tenant or a stream       its rows are forgotten and its events folded again, in one transaction;
                               for projections that can `forget`

The checkpoint does not move; the projector waits while a batch or the exchange of rows is written, and
goes on. Neither mends everything that a rebuild does: what was written too much, outside of what is
folded again, stays. Whatever ends a replay leaves a view that a replay or a rebuild can mend.
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from flotilla.errors import Corrupt, KernelError, Rejected, Unavailable
from flotilla.outbox import START, LogEvent, Offset, Outbox
from flotilla.partition import Marks, marks_of
from flotilla.projection import Checkpoint, Projection, ViewSession
from flotilla.rebuild import (
    LOCKED_EVENTS_MAX,
    EventRefused,
    Phase,
    Progress,
    Report,
    Source,
    check_dense,
    from_ledger,
)
from flotilla.shadow import ShadowStore, TooFarBehind
from flotilla.store import StreamId

LOCKED_BATCH_EVENTS_MAX = 1000
"""How many events are folded again in one transaction, while the projector waits."""
KEPT_EVENTS_MAX = 200_000
"""How many events of a tenant or a stream are held in memory."""
ROUNDS_MAX = 1000


class NotReplayable(Rejected):
    """The projection does not declare what this replay needs of it."""

    default_code = "projection-not-replayable"


@runtime_checkable
class Forgetful(Protocol):
    """A projection whose rows can be told apart by tenant and stream."""

    async def forget(self, view: ViewSession, tenant: str, stream: StreamId | None) -> None:
        """Delete the rows that came of this tenant's events, or of this one stream's."""
        ...


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was folded again: so many events, up to the view's checkpoint."""

    events: int
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Replay:
    """One projection's replay. `ledger` is the outbox of its log; `source` reads the bulk of it."""

    projection: Projection
    places: ShadowStore
    ledger: Outbox
    source: Source
    report: Report = lambda _progress: None

    async def from_offset(self, first: Offset) -> Replayed:
        """Fold `first` and what follows it again, up to the live view's checkpoint.

        Raises:
            NotReplayable: folding an event twice is not folding it once here.
            Rejected: the view has not folded `first` yet.
            EventRefused, Corrupt, Unavailable: as a rebuild; what was folded again stays.

        """
        if not getattr(self.projection, "replayable", False):
            raise NotReplayable(self._no("`replayable = True`: folding an event twice would count"))
        end = (await self._marks()).fastest
        if not START < first <= end.offset:
            raise Rejected(
                f"{self.projection.name} is at offset {end.offset}: replay from 1 to {end.offset}",
                code="replay-beyond-checkpoint",
            )
        last = Offset(first - 1)
        async with aclosing(self.source(last, end.offset)) as batches:
            async for batch in batches:
                check_dense(self.projection, last, batch)
                for start in range(0, len(batch), LOCKED_BATCH_EVENTS_MAX):
                    part = batch[start : start + LOCKED_BATCH_EVENTS_MAX]
                    await self.places.amend(lambda view, at, part=part: self._again(view, at, part))  # type: ignore[misc]
                last = batch[-1].offset
                self.report(Progress(Phase.BUILDING, last, end.offset))
        return Replayed(end.offset - first + 1, end)

    async def from_time(self, moment: datetime) -> Replayed:
        """Fold again what was recorded at `moment` or later, and all that follows in the log.

        Offsets rule: an event that was recorded earlier and published later is folded again as well.
        """
        end = (await self._marks()).fastest
        first = START
        async with aclosing(self.source(START, end.offset)) as batches:
            async for batch in batches:
                first = next((e.offset for e in batch if e.recorded_at >= moment), START)
                if first:
                    break
        if not first:
            raise Rejected(
                f"{self.projection.name} has folded nothing that was recorded at {moment.isoformat()}"
                " or later",
                code="replay-beyond-checkpoint",
            )
        return await self.from_offset(first)

    async def of(self, tenant: str, stream: StreamId | None = None) -> Replayed:
        """Forget the rows of a tenant, or of one of its streams, and fold its events again.

        One transaction: a reader sees the rows from before or those from after. Raises as
        `from_offset`, and `Rejected` for more events than fit into memory.
        """
        projection = self.projection
        if not isinstance(projection, Forgetful):
            raise NotReplayable(self._no("`forget`: its rows cannot be told apart by tenant"))
        kept, last = list[LogEvent](), START
        replayed: list[Replayed] = []

        async def wanted(upto: Offset, source: Source) -> Offset:
            return await self._keep(kept, (last, upto), source, lambda e: _is_of(e, tenant, stream))

        async def change(view: ViewSession, marks: Marks) -> None:
            nonlocal last
            at = marks.fastest
            if at.offset - last > LOCKED_EVENTS_MAX:
                raise TooFarBehind(f"{projection.name}: {at.offset - last} events to read")
            last = await wanted(at.offset, from_ledger(self.ledger))
            await projection.forget(view, tenant, stream)
            for start in range(0, len(kept), LOCKED_BATCH_EVENTS_MAX):
                await self._again(view, marks, kept[start : start + LOCKED_BATCH_EVENTS_MAX])
            replayed.append(Replayed(len(kept), at))

        for _ in range(ROUNDS_MAX):
            last = await wanted((await self._marks()).fastest.offset, self.source)
            try:
                await self.places.amend(change)
            except TooFarBehind:
                continue
            return replayed[-1]
        raise Unavailable(f"the log {projection.log} grows faster than it can be read")

    async def _keep(
        self,
        kept: list[LogEvent],
        between: tuple[Offset, Offset],
        source: Source,
        wanted: Callable[[LogEvent], bool],
    ) -> Offset:
        """Add to `kept` what is wanted of a part of the log; return where that part ends."""
        last, upto = between
        async with aclosing(source(last, upto)) as batches:
            async for batch in batches:
                check_dense(self.projection, last, batch)
                kept += filter(wanted, batch)
                last = batch[-1].offset
                self.report(Progress(Phase.BUILDING, last, upto))
                if len(kept) > KEPT_EVENTS_MAX:
                    raise Rejected(
                        f"more than {KEPT_EVENTS_MAX} events: `flotilla rebuild"
                        f" {self.projection.name}` folds any number",
                        code="replay-too-large",
                    )
        if last < upto:
            raise Corrupt(
                f"{self.projection.name} is at {upto}, and the log {self.projection.log} ends at"
                f" {last}: see docs/runbooks/projector.md"
            )
        return last

    async def _again(self, view: ViewSession, marks: Marks, batch: Sequence[LogEvent]) -> None:
        """Fold again what its partition had folded; the rest of `batch` is still to come there."""
        batch = [event for event in batch if marks.has_folded(self.projection, event)]
        if not batch:
            return
        try:
            await self.projection.apply(view, batch)
        except KernelError:
            raise
        except Exception as error:
            raise EventRefused(self.projection.name, batch, error) from error

    async def _marks(self) -> Marks:
        return await marks_of(self.places.live, self.projection)

    def _no(self, lacks: str) -> str:
        name = self.projection.name
        return f"{name} does not declare {lacks}; `flotilla rebuild {name}` makes all of it again"


def _is_of(event: LogEvent, tenant: str, stream: StreamId | None) -> bool:
    return event.tenant == tenant if stream is None else event.stream == stream
