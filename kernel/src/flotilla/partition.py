"""A projection in parts by key, each folded by whoever owns it: with checkpoint, lease, lag of its own.

    log ──▶ counters/0of2  folds the keys with crc32(key) % 2 == 0; its checkpoint passes all events
        └─▶ counters/1of2  the others

A partition is a projection that leaves out what is another's, so whatever runs, parks, fences or
measures projections does so with partitions. Its name says how many there are: after a change of that
number the checkpoints of before have names that are gone, so whoever still folds by it is fenced.

Which number is in force is what the view has checkpoints of. It changes only where all of them change in
one transaction: in the swap of a rebuild (`flotilla.shadow`). Whoever was told another number is
refused, when it begins and in each transaction that leaves `START`, since a checkpoint that is gone
looks like one that is new.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from zlib import crc32

from flotilla.errors import Conflict
from flotilla.outbox import START, LogEvent, Offset
from flotilla.projection import Checkpoint, Projection, ViewSession, ViewStore

PARTITIONS_MAX = 64
OF_PROJECTION = "(projection = $1 or substr(projection, 1, length($1) + 1) = $1 || '/')"
"""SQL: the rows of a projection that is named by the first parameter, and of its partitions."""
_NAMES = f"""
select projection from projection_checkpoint where {OF_PROJECTION} and log = $2 order by projection
"""  # noqa: S608 - our own text


class Repartitioned(Conflict):
    """The view is in other partitions than this process was told. Nothing was folded."""

    default_code = "partitions-changed"


@runtime_checkable
class Partitioned(Protocol):
    """A projection that may be folded in parts.

    Its rows must be disjoint by key: no two keys may write the same row, for they may be folded at once
    and at different offsets. One that adds up over its keys (a tenant's totals over its streams) must
    declare a key by which its rows are told apart (`Keyed`, here the tenant), or stay in one part.
    """

    @property
    def partitions(self) -> int:
        """Return into how many parts, at least 1."""
        ...


@runtime_checkable
class Keyed(Protocol):
    """A projection whose events belong together by something else than their stream."""

    def key_of(self, event: LogEvent) -> str:
        """Return what must be folded in order; a key that fails takes no other with it."""
        ...


def key_of(projection: Projection, event: LogEvent) -> str:
    """Return what `event` must stay in order with: its stream, if the projection says nothing."""
    return projection.key_of(event) if isinstance(projection, Keyed) else event.stream


def partition_of(key: str, count: int) -> int:
    """Return which of `count` partitions folds a key. Never change this: rows are where it put them."""
    return crc32(key.encode()) % count


@dataclass(frozen=True, slots=True)
class Partition:
    """Part `number` of `count` of a projection, and itself one. The tables are the whole's."""

    whole: Projection
    number: int
    count: int
    tables: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Return `<projection>/<number>of<count>`, which names its checkpoint, lease, parked events."""
        return f"{self.whole.name}/{self.number}of{self.count}"

    @property
    def log(self) -> str:
        """Return the whole's log."""
        return self.whole.log

    @property
    def staleness_budget_s(self) -> float:
        """Return the whole's: the slowest partition is what readers see."""
        return self.whole.staleness_budget_s

    def key_of(self, event: LogEvent) -> str:
        """Return the whole's key."""
        return key_of(self.whole, event)

    def owns(self, event: LogEvent) -> bool:
        """Return whether it is this partition that folds `event`."""
        return partition_of(self.key_of(event), self.count) == self.number

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Fold what is its own."""
        if own := [event for event in batch if self.owns(event)]:
            await self.whole.apply(view, own)


def parts_of(projection: Projection) -> tuple[Projection, ...]:
    """Return what is folded by itself: the projection, or its partitions, by number."""
    count = projection.partitions if isinstance(projection, Partitioned) else 1
    return parts(projection, count)


def parts(projection: Projection, count: int) -> tuple[Projection, ...]:
    """Return the projection in so many parts. Raises `ValueError` for a number that makes no sense."""
    if not 1 <= count <= PARTITIONS_MAX:
        raise ValueError(f"{projection.name}: 1 to {PARTITIONS_MAX} partitions, not {count}")
    if count == 1:
        return (projection,)
    return tuple(Partition(projection, number, count) for number in range(count))


def all_at(projection: Projection, count: int, checkpoint: Checkpoint) -> "Marks":
    """Return all of so many parts at one place."""
    return Marks({part.name: checkpoint for part in parts(projection, count)})


def count_of(names: Iterable[str]) -> int:
    """Return in how many parts the projection is whose parts, some or all, have these names."""
    return max((int(name.rpartition("of")[2]) for name in names if "/" in name), default=1)


def whole_name(name: str) -> str:
    """Return the name of the projection that has the part `name`."""
    return name.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Marks:
    """How far each part of a view is, by name; nothing where it has not begun."""

    by_name: Mapping[str, Checkpoint]

    @property
    def count(self) -> int:
        """Return in how many parts it is, whether all of them have begun or not."""
        return count_of(self.by_name)

    @property
    def slowest(self) -> Checkpoint:
        """Return up to where everything is folded."""
        if len(self.by_name) < self.count:
            return Checkpoint(START)
        return min(self.by_name.values(), key=_offset)

    @property
    def fastest(self) -> Checkpoint:
        """Return beyond where nothing is folded."""
        return max(self.by_name.values(), key=_offset, default=Checkpoint(START))

    def has_folded(self, projection: Projection, event: LogEvent) -> bool:
        """Return whether the part that owns `event` is that far."""
        owner = parts(projection, self.count)[partition_of(key_of(projection, event), self.count)]
        return event.offset <= self.by_name.get(owner.name, Checkpoint(START)).offset


def _offset(checkpoint: Checkpoint) -> Offset:
    return checkpoint.offset


async def marks_of(views: ViewStore, projection: Projection) -> Marks:
    """Return how far each part of a projection's view is."""
    return Marks(
        {
            name: checkpoint
            for name, log, checkpoint in await views.checkpoints()
            if whole_name(name) == projection.name and log == projection.log
        }
    )


async def check_parts(view: ViewSession | ViewStore, projection: Projection) -> None:
    """Refuse to fold a part of a view that is in other parts. One that has not begun is in any.

    Within the transaction that leaves `START` nobody else can begin unseen. Raises `Repartitioned`.
    """
    whole, count = projection, 1
    if isinstance(projection, Partition):
        whole, count = projection.whole, projection.count
    names = {str(name) for (name,) in await view.fetch(_NAMES, whole.name, whole.log)}
    if names - {part.name for part in parts(whole, count)}:
        there = count_of(names)
        raise Repartitioned(
            f"{whole.name} is told to be in {count} partition(s), and its view is in {there}: start it"
            f" with {there} as before, `flotilla rebuild {whole.name} --partitions {count}`, then start"
            f" it with {count}; see docs/runbooks/projector.md"
        )
