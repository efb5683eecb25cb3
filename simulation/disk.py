"""The store of one log: commits become visible later than they got their positions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flotilla import OutboxEntry, StreamId, Unavailable
from flotilla.clock import Clock
from flotilla.store import Outcome, Unit
from flotilla.stores.memory import MemoryStore
from flotilla.stores.memory_leases import MemoryLeases


class Disk(MemoryStore):
    """A store whose transactions take their time between getting a position and being visible.

    Until then the relay does not see their entries, and whoever needs their streams waits for a lock.
    """

    def __init__(
        self, clock: Clock, leases: MemoryLeases, hide: Callable[[Callable[[], None]], bool]
    ) -> None:
        """`hide` says whether a commit stays invisible, and calls back when it is over."""
        super().__init__(clock, leases)
        self._hide = hide
        self.hidden: dict[int, StreamId] = {}
        """Positions that nobody sees yet, and their streams."""

    async def pending(self, *, limit: int, but: Sequence[int] = ()) -> Sequence[OutboxEntry]:
        """Return what waits and can be seen."""
        return await super().pending(limit=limit, but=[*but, *self.hidden])

    async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        """Commit; those who need what is not visible yet are told to come again."""
        locked = set(self.hidden.values())
        if any(append.stream in locked for unit in units for append in unit.appends):
            raise Unavailable("a lock was not granted in time")
        before = len(self._outbox)
        outcomes = await super().commit(units)
        new = {e.position: e.event.stream for e in self._outbox[before:]}

        def show() -> None:
            for position in new:
                del self.hidden[position]

        if new and self._hide(show):
            self.hidden |= new
        return outcomes

    def ledger(self) -> list[OutboxEntry]:
        """Return what has an offset, by offset."""
        return sorted((e for e in self._outbox if e.offset), key=lambda e: e.offset or 0)

    @property
    def settled(self) -> bool:
        """Whether everything is visible and has its offset."""
        return not self.hidden and all(e.offset for e in self._outbox)


@dataclass(frozen=True, slots=True)
class Command:
    """What a writer wants to happen, under one idempotency key."""

    key: str
    stream: StreamId
    events: int
    poisonous: bool
