"""The event store, as the rest of the code sees it.

What an implementation promises is written down, executably, in
`flotilla.testing.EventStoreContract`. Adapters live in `flotilla.stores`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NewType, Protocol

from flotilla.errors import KernelError

StreamId = NewType("StreamId", str)
"""`<tenant>/<aggregate>/<key>`; build it with `stream_id`."""

Version = NewType("Version", int)
"""The position of an event in its stream: 1, 2, 3 …; 0 is the version of a stream without events."""

NOBODY = "-"
"""Whose what is no tenant's is: definitions, schedules, erasures. No tenant is called so."""

EMPTY = Version(0)


def stream_id(tenant: str, aggregate: str, key: str) -> StreamId:
    """Return the id of one aggregate's stream.

    Raises `ValueError` when a part is empty or contains the separator `/`.
    """
    for part in (tenant, aggregate, key):
        if not part or "/" in part:
            raise ValueError(f"not a part of a stream id: {part!r}")
    return StreamId(f"{tenant}/{aggregate}/{key}")


def tenant_of(stream: StreamId) -> str:
    """Return whose stream this is."""
    return stream.split("/", 1)[0]


def aggregate_of(stream: StreamId) -> str:
    """Return what kind of aggregate this is a stream of."""
    return stream.split("/", 2)[1]


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event about to be stored. `payload` is JSON text and is kept to the byte."""

    event_id: str
    type: str
    payload: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event as it is stored. `recorded_at` comes from the store's clock."""

    stream: StreamId
    version: Version
    event_id: str
    type: str
    payload: str
    metadata: Mapping[str, str]
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state worth starting from. It is a cache: any may be deleted at any time."""

    version: Version
    schema: int
    state: str


@dataclass(frozen=True, slots=True)
class Wake:
    """When a stream is to be looked at again (see `flotilla.due`); None: not any more."""

    at: datetime | None


@dataclass(frozen=True, slots=True)
class Append:
    """Events for one stream, if it is at `expected`. Without events it is only that condition.

    `wake` replaces what the stream waited for before; None leaves that as it is.
    """

    stream: StreamId
    expected: Version
    events: tuple[NewEvent, ...] = ()
    snapshot: Snapshot | None = None
    wake: Wake | None = None

    @property
    def version(self) -> Version:
        """Where the stream stands afterwards."""
        return Version(self.expected + len(self.events))


@dataclass(frozen=True, slots=True)
class ClaimKey:
    """Whose idempotency key this is. Never global: that would be an oracle across tenants."""

    tenant: str
    scope: str
    key: str


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """`reply` is what every later request with this key and `fingerprint` gets, to the byte."""

    claim: ClaimKey
    fingerprint: bytes
    reply: bytes
    ttl_s: int


@dataclass(frozen=True, slots=True)
class StoredReply:
    """What a key that was used before stands for."""

    fingerprint: bytes
    reply: bytes


@dataclass(frozen=True, slots=True)
class Unit:
    """All or nothing: appends to distinct streams, and the record that they were asked for."""

    appends: tuple[Append, ...]
    record: IdempotencyRecord | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """The unit is durable, with its events in the outbox."""


@dataclass(frozen=True, slots=True)
class Conflicted:
    """A stream was not at its expected version. Nothing of the unit was written."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The key was used before for the same content; this is the reply from then."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Reused:
    """The key was used before for other content. Nothing of the unit was written."""


@dataclass(frozen=True, slots=True)
class Failed:
    """This unit alone cannot be stored, or (`Unavailable`) it is not known whether it was."""

    error: KernelError


Outcome = Committed | Conflicted | Replayed | Reused | Failed


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is needed to decide, from one moment: a snapshot, the events after it, known replies."""

    version: Version
    snapshot: Snapshot | None = None
    events: tuple[RecordedEvent, ...] = ()
    replies: Mapping[ClaimKey, StoredReply] = field(default_factory=dict)


class EventStore(Protocol):
    """Append-only streams with optimistic concurrency and an idempotency ledger, one per service.

    Every method raises `Unavailable` when the store does not answer in time, and `Corrupt` when
    what it holds breaks a promise.
    """

    async def load(
        self,
        stream: StreamId,
        *,
        snapshot_schema: int | None = None,
        claims: Sequence[ClaimKey] = (),
    ) -> Loaded:
        """Return the stream in one round trip; an unknown stream is an empty one.

        A snapshot of another schema than `snapshot_schema` is ignored. `replies` has those of
        `claims` that were used and have not expired.
        """
        ...

    async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        """Commit each unit as if they came one after the other; return an outcome for each.

        When a unit is not committed, later ones of the batch that append to its streams are not
        either, even if their expectation happens to fit: they were decided on what it would have
        written. Units are otherwise independent. `Committed` is durable. After `Unavailable` nothing
        is known: a retry with the same idempotency key settles it.
        """
        ...

    async def read(
        self, stream: StreamId, *, after: Version = EMPTY, limit: int = 1000
    ) -> Sequence[RecordedEvent]:
        """Return up to `limit` events with versions greater than `after`, in order."""
        ...

    async def forget_expired(self, *, limit: int = 10_000) -> int:
        """Delete up to `limit` expired idempotency records; return how many."""
        ...
