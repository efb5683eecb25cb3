"""A chain of hashes over what happened to a tenant: nothing in it changes, goes or comes unseen.

    hash(n) = SHA-256( hash(n - 1) ‖ canonical bytes of event n )        hash(0) = 32 zero bytes

One chain a tenant, over all events of the tenant in one log, in the order of their offsets. Every field
that is published of an event is in its bytes, with its length before it, so that no two events have the
same: the offset, too, and payloads as they are stored. Personal text in them is sealed text, so that the
destruction of a key changes no hash.

Offsets of a log are dense, and a view of it has one entry an offset: what is not there is missed, with
or without a chain (`flotilla.auditing`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Protocol, runtime_checkable

from flotilla.clock import to_us
from flotilla.errors import Rejected
from flotilla.outbox import LogEvent, Offset
from flotilla.projection import ViewStore
from flotilla.store import StreamId, Version

FORMAT = b"flotilla-audit-1"
"""Begins the bytes of every event; another way to write them down is another format."""


class Unchainable(Rejected):
    """The event came without its id, out of the table of parked events: rebuild the view."""

    default_code = "audit-event-without-id"


@dataclass(frozen=True, slots=True)
class Link:
    """The end of a tenant's chain: its hash, in hex, and how many entries are in it."""

    entries: int = 0
    hash: str = "0" * 64


NO_LINK = Link()
"""Where every chain begins."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change: whose, where it stands, who did what to whom and when, and its link."""

    offset: Offset
    tenant: str
    number: int
    """Its place in its tenant's chain: 1, 2, 3 …"""
    stream: StreamId
    version: Version
    event_id: str
    type: str
    actor_id: str | None
    about: str | None
    recorded_at: datetime
    hash: str

    @property
    def link(self) -> Link:
        """Return the chain's end with this entry."""
        return Link(self.number, self.hash)

    def differing(self, other: "AuditEntry") -> tuple[str, ...]:
        """Return the names of the fields in which `other` is another."""
        return tuple(
            field.name
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        )


@runtime_checkable
class AuditTrail(Protocol):
    """A projection that has one `AuditEntry` for every event of its log."""

    def entry(self, event: LogEvent, before: Link) -> AuditEntry:
        """Return the entry of an event that follows `before` in its tenant's chain."""
        ...

    async def entries(
        self, views: ViewStore, *, after: int, upto: int, tenant: str | None, limit: int
    ) -> Sequence[AuditEntry]:
        """Return entries with offsets greater than `after` up to `upto`, of all tenants or one."""
        ...

    async def last(self, views: ViewStore, tenant: str) -> AuditEntry | None:
        """Return the end of a tenant's chain; None when it has none."""
        ...

    async def offset_of(self, views: ViewStore, stream: StreamId, version: Version) -> int | None:
        """Return where the view has an event; None when it does not."""
        ...


def chained(before: Link, event: LogEvent) -> Link:
    """Return the chain's end with `event`. Raises `Unchainable`."""
    digest = hashlib.sha256(bytes.fromhex(before.hash))
    digest.update(canonical(event))
    return Link(before.entries + 1, digest.hexdigest())


def canonical(event: LogEvent) -> bytes:
    """Return all that is known of an event, as bytes of its own. Raises `Unchainable`."""
    if not event.event_id:
        raise Unchainable(
            f"offset {event.offset}: parked events are kept without their ids, and cannot be chained:"
            " `flotilla rebuild` makes the audit view again"
        )
    texts = (
        str(event.offset),
        event.event_id,
        event.type,
        event.tenant,
        event.stream,
        str(event.version),
        str(to_us(event.recorded_at)),
        event.correlation,
        event.causation,
        event.traceparent,
    )
    parts = [None if text is None else text.encode() for text in texts]
    return FORMAT + b"".join(map(_told, [*parts, event.payload]))


def _told(part: bytes | None) -> bytes:
    """Return a part with its length, in the form of a netstring; nothing at all is a dash."""
    return b"-," if part is None else b"%d:%b," % (len(part), part)
