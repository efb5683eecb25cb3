"""The outbox, as the relay sees it: committed events, with or without an offset.

There is no cursor. What has no offset is what is still to be published, in the order of `position`;
what has one is the ledger of the log. The relay needs to know nothing else of a service.
Its promises are in `flotilla.testing.OutboxContract`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol

from flotilla.errors import Conflict, Corrupt
from flotilla.lease import Lease
from flotilla.store import RecordedEvent, StreamId, Version, tenant_of

Offset = NewType("Offset", int)
"""The dense position in a log: 1, 2, 3 …; equal to the JetStream stream sequence."""

START = Offset(0)


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A committed event on its way to the log. `offset` is None until the relay gave it one."""

    position: int
    offset: Offset | None
    event: RecordedEvent


@dataclass(frozen=True, slots=True)
class LogEvent:
    """An event as a log delivers it. `payload` is the stored JSON, to the byte."""

    offset: Offset
    tenant: str
    stream: StreamId
    version: Version
    type: str
    payload: bytes
    recorded_at: datetime
    traceparent: str | None = None
    event_id: str = ""
    """Empty for one that comes back from where it was parked."""
    correlation: str | None = None
    """The event's id where it belongs to no conversation; None as `event_id`."""
    causation: str | None = None


def as_log_event(entry: OutboxEntry) -> LogEvent:
    """Return a published entry as the log delivers it."""
    event = entry.event
    return LogEvent(
        entry.offset or START,
        tenant_of(event.stream),
        event.stream,
        event.version,
        event.type,
        event.payload.encode(),
        event.recorded_at,
        event.metadata.get("traceparent"),
        event.event_id,
        event.metadata.get("correlation", event.event_id),
        event.metadata.get("causation"),
    )


@dataclass(frozen=True, slots=True)
class LogStatus:
    """Where a log stands, computed from the table alone and by the store's clock."""

    committed: int
    """Events committed so far, published or not: the head that projections are measured against.
    Offsets are dense, so it is the last offset and what waits."""
    offset: Offset
    """The last offset given."""
    waiting: int
    """Events without an offset."""
    oldest_waiting_s: float
    """Age of the oldest event without an offset; 0 when there is none. The honest lag."""


@dataclass(frozen=True, slots=True)
class LogReader:
    """Somebody who folds a log, and how far it said it was. What it has not read is never pruned."""

    reader: str
    offset: Offset
    seen_s: float
    """How long ago it said so, by the store's clock."""


class LeaseLost(Conflict):
    """Somebody else has led this log since: nothing was recorded, and nothing of it will be."""

    default_code = "lease-lost"


def lease_lost(lease: Lease) -> LeaseLost:
    """Return the error for whoever records under a lease that is not the newest."""
    return LeaseLost(f"{lease.name}: another one has led since fencing number {lease.token}")


class Pruned(Corrupt):
    """The ledger does not reach back to there any more: read it from the stream, or from a backup."""

    default_code = "log-pruned"


def pruned(after: Offset, first: Offset) -> Pruned:
    """Return the error for whoever asks for what comes after `after` when `first` is the first kept."""
    return Pruned(
        f"offsets {after + 1} to {first - 1} are not in the ledger any more; it begins at {first}:"
        " read them from the stream, or restore a backup; see docs/runbooks/relay.md"
    )


class Outbox(Protocol):
    """One service's committed events. Raises `Unavailable` when the store does not answer."""

    async def pending(self, *, limit: int, but: Sequence[int] = ()) -> Sequence[OutboxEntry]:
        """Return up to `limit` entries without an offset, by position; `but` positions are left out.

        Those are on their way. Leaving out everything up to a position instead would skip entries:
        a smaller position may become visible later than a greater one.
        """
        ...

    async def record(
        self, offsets: Sequence[tuple[int, Offset]], *, lease: Lease | None = None
    ) -> None:
        """Give these (position, offset) pairs, all or none, and only while `lease` is the newest.

        Nobody else acquires the lease between that look and the end of the write, so whoever does sees
        what was recorded before, and nothing is recorded after. Without a lease nothing is asked.
        Recording what is recorded already is a no-op. Raises `LeaseLost`; and `Corrupt` when a position
        is unknown or already has another offset, or an offset belongs to another position.
        """
        ...

    async def last_offset(self) -> Offset:
        """Return the last offset given; `START` when there is none."""
        ...

    async def published(self, *, after: Offset, limit: int) -> Sequence[OutboxEntry]:
        """Return up to `limit` entries with an offset greater than `after`, by offset.

        Raises `Pruned` when the next ones are not kept any more: they are never left out.
        """
        ...

    async def first_offset(self) -> Offset:
        """Return the first offset that is kept; `START` when none was given."""
        ...

    async def events(self, *, after: Offset, limit: int) -> Sequence[LogEvent]:
        """Return the same as `published` does, as the log delivers it, and cheaper."""
        ...

    async def find(self, events: Sequence[tuple[StreamId, Version]]) -> Sequence[OutboxEntry]:
        """Return those of these events that have no offset yet, in no particular order."""
        ...

    async def status(self) -> LogStatus:
        """Return where the log stands."""
        ...

    async def read_by(self, reader: str, offset: Offset) -> None:
        """Note that `reader` has folded everything up to `offset`; it may be less than before."""
        ...

    async def readers(self) -> Sequence[LogReader]:
        """Return everybody who ever said how far it is, by name; a silent one counts too."""
        ...

    async def forget_reader(self, reader: str) -> bool:
        """Let go of what `reader` has not read: it is gone for good. Return whether it was known."""
        ...

    async def prune(self, *, older_than_s: float, limit: int) -> int:
        """Forget up to `limit` of the oldest ledger entries; return how many. Events stay.

        Only entries whose event is older than `older_than_s` and that every reader has passed; never
        the last one, and nothing when nobody reads. What is kept is always without gaps.
        """
        ...
