"""Where one projection's view lives, and the places beside it in which another is made.

    live      what readers see and the projector moves on
    shadow    the same tables, made anew; nobody reads it until it is swapped in
    old       what was live before the last swap, kept for a rollback

Each place has tables, its checkpoint (one for each partition) and a schema history of its own, moved in
one transaction, so each is a view that somebody can go on with. Adapters live in `flotilla.stores` and
pass `flotilla.testing.ShadowStoreContract`.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from flotilla.errors import Conflict, Rejected, Unavailable
from flotilla.partition import Marks
from flotilla.projection import Checkpoint, Row, ViewSession, ViewStore

type Place = Literal["shadow", "old"]

CatchUp = Callable[[ViewSession, Checkpoint, Checkpoint], Awaitable[Checkpoint]]
"""Fold what lies between the first checkpoint and the second; return how far that got.

Raises `TooFarBehind`, having changed nothing that stays, when that would take longer than anybody
should be kept waiting.
"""

Amend = Callable[[ViewSession, Marks], Awaitable[None]]
"""Change rows of the live view, whose parts stand at these marks and do not move meanwhile."""


class TooFarBehind(Unavailable):
    """Too many events to fold while others wait: catch up first, then try again."""

    default_code = "shadow-behind"


class NoSuchPlace(Rejected):
    """There is no shadow, or no old view."""

    default_code = "view-place-missing"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where each place is in the log; None where there is none. One in partitions: the slowest."""

    live: Checkpoint
    shadow: Checkpoint | None
    old: Checkpoint | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the same in both. `live` or `shadow` is None where there is no such row."""

    table: str
    key: Row
    columns: tuple[str, ...]
    live: Row | None
    shadow: Row | None


@dataclass(frozen=True, slots=True)
class TableComparison:
    """A table in both places: rows, and the SHA-256 of all of them in the order of their keys."""

    table: str
    live_rows: int
    shadow_rows: int
    live_hash: str
    shadow_hash: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Live view and shadow at one checkpoint, or why they could not be compared."""

    checkpoint: Checkpoint
    tables: tuple[TableComparison, ...] = ()
    different: int = 0
    """Rows that are not the same, all of them."""
    differences: tuple[Difference, ...] = ()
    """The first of them, by table and key."""
    reason: str | None = None
    """Why there is nothing to compare; None when it was compared."""

    @property
    def same(self) -> bool:
        """Whether every row is the same in both."""
        return self.reason is None and self.different == 0


@dataclass(frozen=True, slots=True)
class Swapped:
    """What a swap did."""

    checkpoint: Checkpoint
    """Where the live view is now."""
    events: int
    """How many events were folded while the projector waited."""
    projector_waited_ms: float
    """How long nobody could move the live view."""
    readers_waited_ms: float
    """How long a reader waited at most; 0 where readers never wait."""


class Claimed(Conflict):
    """Somebody else changes the places of this view just now. Nothing was changed."""

    default_code = "rebuild-running"


class ShadowStore(Protocol):
    """The places of one projection's view. Raises `Unavailable` when the database does not answer.

    Whoever makes, swaps or drops a place holds the `claim` meanwhile.
    """

    def claim(self) -> AbstractAsyncContextManager[None]:
        """Be the only one, of all processes, who changes places; a dead process holds no claim.

        Raises `Claimed`, at once, when somebody else is.
        """
        ...

    @property
    def live(self) -> ViewStore:
        """Return what readers see."""
        ...

    def shadow(self) -> AbstractAsyncContextManager[ViewStore]:
        """Yield the shadow, with the projection's tables, as it was left; made if it is not there.

        Raises `Corrupt` when it was begun for other tables than the projection has now.
        """
        ...

    async def standing(self) -> Standing:
        """Return where each place is in the log."""
        ...

    async def compare(self, catch_up: CatchUp, *, differences_max: int) -> Comparison:
        """Bring the shadow to where the live view is, and compare them as of that one moment.

        Nobody waits for it. Raises `NoSuchPlace` without a shadow, and what `catch_up` raises.
        """
        ...

    async def swap(self, catch_up: CatchUp, *, partitions: int | None = None) -> Swapped:
        """Make the shadow live, at the live view's checkpoint or its own, whichever is later.

        All parts of the live view are there afterwards: as many as before, or `partitions`.
        In one transaction: a reader sees all of the one or all of the other. What was live is `old`
        now, in place of an older one. Raises `NoSuchPlace`, `TooFarBehind`, what `catch_up` raises,
        and `Unavailable` when readers left no gap; then nothing happened.
        """
        ...

    async def roll_back(self) -> Swapped:
        """Exchange live and old, each with its checkpoint: the projector goes on from the old one's.

        Raises `NoSuchPlace` when nothing is kept, and `Unavailable` as `swap` does.
        """
        ...

    async def forget(self, place: Place) -> bool:
        """Drop a place; return whether there was one."""
        ...

    async def amend(self, change: Amend) -> None:
        """Change the live view's rows in one transaction; its checkpoint stays, and holds still."""
        ...
