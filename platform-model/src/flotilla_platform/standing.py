"""One projection as `flotilla status` tells it: from its parts, where it is folded in several."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from flotilla.clock import Clock
from flotilla.divergence import divergence
from flotilla.lag import projection_lag
from flotilla.outbox import LogStatus
from flotilla.parked import ParkedCount
from flotilla.partition import whole_name
from flotilla.projection import Checkpoint
from flotilla.stores import ServiceStore


class ProjectionRow(BaseModel):
    """One projection: where it is in its log, and how far that is from the log's head.

    One in partitions is where the slowest of them is.
    """

    model_config = ConfigDict(frozen=True)

    projection: str
    log: str
    checkpoint: int
    lag_events: int | None
    """Committed events that the projection has not folded; None when the log cannot be read."""
    lag_s: float | None
    """Age of the oldest of them; 0 when there is none."""
    parked_events: int = 0
    """Events that it could not fold, and later ones of their keys."""
    parked_keys: int = 0
    parked_oldest_s: float = 0.0
    """For how long the oldest of them has been parked."""
    owner: str | None = None
    """Which projector folds it, `<host>:<pid>:<id>`, by the lease beside its view; None: nobody."""
    ownerless_s: float | None = None
    """How long nobody has; None while somebody does, or when nobody ever did."""
    diverged: str | None = None
    """Why its checkpoint is none of this log, in words; None when it is one."""
    partitions: tuple["ProjectionRow", ...] = ()
    """Its partitions, by number, each told as a projection; none when it is folded in one part."""


async def projection_row(
    projection: str,
    of: tuple[str, LogStatus | None, ServiceStore | None],
    checkpoint: Checkpoint,
    clock: Clock,
) -> ProjectionRow:
    """Compare a checkpoint with the head of its log: with what is committed, published or not."""
    log, head, store = of
    if head is None or store is None:
        return ProjectionRow(
            projection=projection,
            log=log,
            checkpoint=checkpoint.offset,
            lag_events=None,
            lag_s=None,
        )
    lag = await projection_lag(store, checkpoint.offset, clock)
    return ProjectionRow(
        projection=projection,
        log=log,
        checkpoint=checkpoint.offset,
        lag_events=lag.events,
        lag_s=round(lag.seconds, 3),
        diverged=await divergence(store, checkpoint),
    )


def wholes(rows: Sequence[ProjectionRow]) -> list[ProjectionRow]:
    """Return one row a projection: its own, or what its partitions come to."""
    of: dict[tuple[str, str], list[ProjectionRow]] = {}
    for row in sorted(rows, key=lambda r: (len(r.projection), r.projection)):
        of.setdefault((whole_name(row.projection), row.log), []).append(row)
    return [_whole(name, parts) for (name, _), parts in sorted(of.items())]


def _whole(name: str, parts: Sequence[ProjectionRow]) -> ProjectionRow:
    if parts[0].projection == name and len(parts) == 1:
        return parts[0]
    slowest = min(parts, key=lambda part: part.checkpoint)
    return slowest.model_copy(
        update={
            "projection": name,
            "ownerless_s": max((p.ownerless_s for p in parts if p.ownerless_s), default=None),
            "parked_events": sum(part.parked_events for part in parts),
            "parked_keys": sum(part.parked_keys for part in parts),
            "parked_oldest_s": max(part.parked_oldest_s for part in parts),
            "diverged": next((part.diverged for part in parts if part.diverged), None),
            "partitions": tuple(parts),
        }
    )


def with_parked(row: ProjectionRow, count: ParkedCount | None, clock: Clock) -> ProjectionRow:
    """Return the row with what is parked of it."""
    if count is None:
        return row
    oldest_s = round(max(0.0, (clock.now() - count.oldest_parked_at).total_seconds()), 3)
    parked = {"parked_events": count.events, "parked_keys": count.keys, "parked_oldest_s": oldest_s}
    return row.model_copy(update=parked)
