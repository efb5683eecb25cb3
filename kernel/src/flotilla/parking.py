"""Poison: an event that cannot be folded is set aside with the later ones of its key; others flow.

    folding ──apply fails, and would again──▶ halves … ──▶ one event ──▶ parked, and its key with it
       ▲                                                                        │
       └──── retried (all of the key, in order, in one transaction) or discarded ┘

What is transient (`Unavailable`, `Conflict`, the operating system's errors) is raised and tried again
by whoever runs the projection; `Corrupt` is raised and halts it. Anything else that `apply` raises is
about the event: a second try would end the same way.

An event is parked in the transaction that moves the checkpoint past it: it is in the view, or parked,
never neither and never both. A retry keeps the checkpoint where it is (`hold`) while it folds what is
parked; and whoever is about to park behind a parked key looks again, in its own transaction, whether
the key still is. So what arrives during a retry comes before it, and is retried too, or after it, and
is folded: never lost, never out of order.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import structlog

from flotilla.clock import Clock, SystemClock
from flotilla.errors import Conflict, Corrupt, Rejected, Unavailable
from flotilla.outbox import START, LogEvent, Offset
from flotilla.parked import (
    NotParked,
    ParkedEvent,
    failed_again,
    hold,
    park,
    parked_keys,
    parked_of,
    unpark,
)
from flotilla.partition import check_parts, key_of
from flotilla.projection import Checkpoint, Projection, ViewSession, ViewStore

PARKED_MAX = 10_000
"""Parked events of one projection: more are no poison, but a mistake of the projection's."""
ERROR_LENGTH_MAX = 500

events_log = structlog.get_logger()


class ParkingFull(Unavailable):
    """More than `parked_max` events: the checkpoint stays here until some are retried or discarded."""

    default_code = "parking-full"


class StillPoison(Rejected):
    """A retry failed at one of the parked events; nothing was applied, and the key stays parked."""

    default_code = "still-poison"


class _Poison(Exception):
    """What `apply` raised for `offset`, and would raise again."""

    def __init__(self, offset: Offset, cause: Exception) -> None:
        super().__init__(f"offset {offset}: {_told(cause)}")
        self.offset = offset
        self.cause = cause


def is_poison(error: Exception) -> bool:
    """Return whether what `apply` raised is about the event, so that it would be raised again."""
    return not isinstance(error, Unavailable | Conflict | Corrupt | OSError | MemoryError)


@dataclass(slots=True)
class Parking:
    """Folds batches of one projection, and parks what it cannot fold."""

    projection: Projection
    views: ViewStore
    clock: Clock = field(default_factory=SystemClock)
    parked_max: int = PARKED_MAX
    keys: set[str] = field(default_factory=set)
    """At least the keys that are parked: a key in here is looked up before it is believed."""

    def key_of(self, event: LogEvent) -> str:
        """Return what `event` must stay in order with: its stream, if the projection says nothing."""
        return key_of(self.projection, event)

    async def load(self) -> None:
        """Learn which keys are parked: before the first batch, and after any error."""
        self.keys = set(
            await parked_keys(self.views.fetch_across, self.projection.name, self.projection.log)
        )

    async def fold(
        self, after: Offset, batch: Sequence[LogEvent]
    ) -> AsyncIterator[Sequence[LogEvent]]:
        """Fold or park `batch`, which follows `after`; yield each part that is durable.

        A part that fails is halved until one event is left, which is parked: at most two transactions
        an event, and a dozen or two for one poisonous event among many.

        Raises:
            ParkingFull: more is parked than `parked_max`.
            Fenced, Unavailable, Corrupt: as `ViewStore.advance`; what was yielded stays.
            Repartitioned: the view is in other partitions.

        """
        parts = [batch]
        while parts:
            part = parts.pop()
            try:
                await self._advance(after, part)
            except (_Poison, ParkingFull) as error:
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    continue
                if isinstance(error, ParkingFull):
                    raise
                await self._advance(after, part, error.cause)
            after = part[-1].offset
            yield part

    async def retry(self, key: str) -> int:
        """Fold all that is parked of `key`, in order, in one transaction; return how many events.

        One event after the other, so that the one that fails again is known by its name.

        Raises:
            NotParked: there is no such key.
            StillPoison: one failed again; its error and number of tries are written down.

        """
        name, log = self.projection.name, self.projection.log
        folded = 0

        async def fold_all(view: ViewSession) -> None:
            nonlocal folded
            await hold(view, name, log)
            waiting = await parked_of(view, name, log, key)
            for parked in waiting:
                await self._apply(view, [parked.event])
            await unpark(view, name, log, key)
            folded = len(waiting)

        try:
            await self.views.transact(fold_all)
        except _Poison as poison:
            offset, told = poison.offset, _told(poison.cause)
            await self.views.transact(lambda view: failed_again(view, name, log, offset, told))
            raise StillPoison(f"{name}: {key} stays parked: {poison}") from poison.cause
        if not folded:
            raise NotParked(f"{name}: nothing is parked of {key!r}")
        events_log.info("projection.retried", projection=name, log=log, events=folded)
        return folded

    async def _advance(
        self, after: Offset, part: Sequence[LogEvent], poison: Exception | None = None
    ) -> None:
        end = Checkpoint(part[-1].offset, part[-1].recorded_at)

        async def fold(view: ViewSession) -> None:
            if after == START:
                await check_parts(view, self.projection)
            await self._fold(view, part, poison)

        await self.views.advance(self.projection.name, self.projection.log, (after, end), fold)

    async def _fold(
        self, view: ViewSession, part: Sequence[LogEvent], poison: Exception | None
    ) -> None:
        """Park what is behind a parked key, or is poison itself; apply the rest."""
        keys = {self.key_of(event) for event in part} if self.keys or poison else set()
        if poison or keys & self.keys:
            name, log = self.projection.name, self.projection.log
            counts = await parked_keys(view.fetch, name, log)
            self.keys = set(counts) | (keys if poison else set())
            behind = [event for event in part if self.key_of(event) in self.keys]
            await self._park(view, behind, sum(counts.values()), poison)
            part = [event for event in part if self.key_of(event) not in self.keys]
        if part:
            await self._apply(view, part)

    async def _apply(self, view: ViewSession, part: Sequence[LogEvent]) -> None:
        try:
            await self.projection.apply(view, part)
        except Exception as error:
            if is_poison(error):
                raise _Poison(part[0].offset, error) from error
            raise

    async def _park(
        self,
        view: ViewSession,
        events: Sequence[LogEvent],
        parked: int,
        poison: Exception | None,
    ) -> None:
        name, log = self.projection.name, self.projection.log
        if not events:
            return
        if parked + len(events) > self.parked_max:
            raise ParkingFull(
                f"{name}: {parked} events of {log} are parked, and not more than {self.parked_max} may"
                f" be: it waits at offset {events[0].offset}. Mend the projection, then `flotilla"
                f" parked retry {name}`; see docs/runbooks/projector.md"
            )
        now = self.clock.now()
        error, tries = (_told(poison), 1) if poison else ("", 0)
        await park(
            view,
            [ParkedEvent(name, log, self.key_of(e), e, error, now, tries) for e in events],
        )
        if poison:  # its message may quote the payload: that is for `flotilla parked show`
            events_log.error(
                "projection.parked",
                projection=name,
                log=log,
                offset=events[0].offset,
                type=events[0].type,
                error=type(poison).__name__,
            )


def _told(error: Exception) -> str:
    """Return an error as one bounded line that every database takes."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return text if len(text) <= ERROR_LENGTH_MAX else f"{text[: ERROR_LENGTH_MAX - 1]}…"
