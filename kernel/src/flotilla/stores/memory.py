"""A store in this process: for tests, simulations, and for reading as a specification."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import ClassVar

from flotilla.clock import Clock, SystemClock
from flotilla.due import Claimed, Due
from flotilla.errors import Corrupt, Rejected
from flotilla.lease import Lease
from flotilla.outbox import (
    START,
    LogEvent,
    LogReader,
    LogStatus,
    Offset,
    OutboxEntry,
    as_log_event,
    lease_lost,
    pruned,
)
from flotilla.store import (
    EMPTY,
    ClaimKey,
    Committed,
    Conflicted,
    Failed,
    IdempotencyRecord,
    Loaded,
    NewEvent,
    Outcome,
    RecordedEvent,
    Replayed,
    Reused,
    Snapshot,
    StoredReply,
    StreamId,
    Unit,
    Version,
    Wake,
    aggregate_of,
)
from flotilla.stores.memory_leases import MemoryLeases
from flotilla.stores.storable import check_json, check_storable, of_tenant


@dataclass(frozen=True, slots=True)
class _Remembered:
    reply: StoredReply
    expires_at_s: float


class MemoryStore:
    """Keeps every promise of the contract except surviving the process."""

    flights_max: int = 1

    _by_url: ClassVar[dict[str, "MemoryStore"]] = {}

    def __init__(self, clock: Clock | None = None, leases: MemoryLeases | None = None) -> None:
        """`leases` are those on this store's log."""
        self._clock = clock or SystemClock()
        self._leases = leases or MemoryLeases(clock)
        self._streams: defaultdict[StreamId, list[RecordedEvent]] = defaultdict(list)
        self._snapshots: dict[StreamId, Snapshot] = {}
        self._replies: dict[ClaimKey, _Remembered] = {}
        self._outbox: list[OutboxEntry] = []
        self._pruned: set[int] = set()
        self._readers: dict[str, tuple[Offset, float]] = {}
        self._due: dict[StreamId, tuple[datetime, datetime]] = {}

    @classmethod
    def named(cls, url: str, *, service: str) -> "MemoryStore":
        """Return the store of this process that is known by `url` and `service`."""
        leases = MemoryLeases.named(url, service=service)
        return cls._by_url.setdefault(f"{url}#{service}", cls(leases=leases))

    async def load(
        self,
        stream: StreamId,
        *,
        snapshot_schema: int | None = None,
        claims: Sequence[ClaimKey] = (),
    ) -> Loaded:
        """Return the stream and the replies that `claims` stand for."""
        events = self._streams.get(stream, [])
        snapshot = self._snapshots.get(stream)
        if snapshot and snapshot.schema != snapshot_schema:
            snapshot = None
        replies = {
            claim: known for claim in of_tenant(stream, claims) if (known := self._known(claim))
        }
        tail = events[snapshot.version if snapshot else 0 :]
        return Loaded(Version(len(events)), snapshot, tuple(tail), replies)

    async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        """Commit each unit, one after the other."""
        outcomes: list[Outcome] = []
        broken: set[StreamId] = set()
        for unit in units:
            outcomes.append(self._commit(unit, broken))
            if outcomes[-1] != Committed():
                broken |= {append.stream for append in unit.appends}
        return outcomes

    async def read(
        self, stream: StreamId, *, after: Version = EMPTY, limit: int = 1000
    ) -> Sequence[RecordedEvent]:
        """Return up to `limit` events with versions greater than `after`."""
        return tuple(self._streams.get(stream, [])[after : after + limit])

    async def forget_expired(self, *, limit: int = 10_000) -> int:
        """Delete up to `limit` expired idempotency records."""
        now_s = self._clock.monotonic_s()
        expired = [c for c, r in self._replies.items() if r.expires_at_s <= now_s][:limit]
        for claim in expired:
            del self._replies[claim]
        return len(expired)

    async def claim(self, aggregate: str, *, limit: int, lease_s: float) -> Claimed:
        """Hide up to `limit` streams that are due, and return them."""
        now, hidden = self._clock.now(), timedelta(seconds=lease_s)
        waiting = sorted(
            (seen, s) for s, (_, seen) in self._due.items() if aggregate_of(s) == aggregate
        )
        ready = [stream for seen, stream in waiting if seen <= now][:limit]
        due = [Due(stream, self._due[stream][0]) for stream in ready]
        self._due |= {d.stream: (d.at, now + hidden) for d in due}
        after = waiting[len(ready)][0] if len(waiting) > len(ready) else None
        return Claimed(now, due, None if after is None else (after - now).total_seconds())

    async def pending(self, *, limit: int, but: Sequence[int] = ()) -> Sequence[OutboxEntry]:
        """Return up to `limit` entries without an offset, by position, but not those of `but`."""
        out = set(but)
        waiting = (e for e in self._outbox if e.offset is None and e.position not in out)
        return list(islice(waiting, limit))

    async def record(
        self, offsets: Sequence[tuple[int, Offset]], *, lease: Lease | None = None
    ) -> None:
        """Give offsets to positions, all or none."""
        if lease and not self._leases.is_newest(lease):
            raise lease_lost(lease)
        owners = {e.offset: e.position for e in self._outbox if e.offset is not None}
        for position, offset in offsets:
            if not 1 <= position <= len(self._outbox):
                raise Corrupt(f"no outbox entry has position {position}")
            known = self._outbox[position - 1].offset
            if known not in (None, offset) or owners.get(offset, position) != position:
                raise Corrupt(f"position {position} and offset {offset} are not each other's")
        for position, offset in offsets:
            self._outbox[position - 1] = replace(self._outbox[position - 1], offset=offset)

    async def last_offset(self) -> Offset:
        """Return the last offset given."""
        return max((e.offset for e in self._outbox if e.offset is not None), default=START)

    async def published(self, *, after: Offset, limit: int) -> Sequence[OutboxEntry]:
        """Return up to `limit` entries with an offset greater than `after`, by offset."""
        after_all = max(after, START)
        first = await self.first_offset()
        if after_all < first - 1:
            raise pruned(after_all, first)
        found = [(o, e) for o, e in self._ledger() if o > after]
        return [entry for _, entry in found][:limit]

    async def first_offset(self) -> Offset:
        """Return the first offset that is kept."""
        return next((offset for offset, _ in self._ledger()), START)

    async def read_by(self, reader: str, offset: Offset) -> None:
        """Note how far `reader` is."""
        self._readers[reader] = (offset, self._clock.monotonic_s())

    async def readers(self) -> Sequence[LogReader]:
        """Return everybody who said how far it is."""
        now_s = self._clock.monotonic_s()
        return [LogReader(r, o, now_s - at_s) for r, (o, at_s) in sorted(self._readers.items())]

    async def forget_reader(self, reader: str) -> bool:
        """Forget `reader`; return whether it was known."""
        return self._readers.pop(reader, None) is not None

    async def prune(self, *, older_than_s: float, limit: int) -> int:
        """Forget the oldest ledger entries that everybody has read."""
        passed = min((offset for offset, _ in self._readers.values()), default=START)
        last, now = await self.last_offset(), self._clock.now()
        gone: set[int] = set()
        for offset, kept in self._ledger()[:limit]:
            age_s = (now - kept.event.recorded_at).total_seconds()
            if offset > passed or offset >= last or age_s <= older_than_s:
                break
            gone.add(kept.position)
        self._pruned |= gone
        return len(gone)

    async def events(self, *, after: Offset, limit: int) -> Sequence[LogEvent]:
        """Return up to `limit` published events after `after`, as the log delivers them."""
        return [as_log_event(entry) for entry in await self.published(after=after, limit=limit)]

    async def find(self, events: Sequence[tuple[StreamId, Version]]) -> Sequence[OutboxEntry]:
        """Return those of these events that have no offset yet."""
        wanted = set(events)
        return [
            e
            for e in self._outbox
            if e.offset is None and (e.event.stream, e.event.version) in wanted
        ]

    async def status(self) -> LogStatus:
        """Return where the log stands."""
        waiting = await self.pending(limit=len(self._outbox))
        age_s = (self._clock.now() - waiting[0].event.recorded_at).total_seconds() if waiting else 0
        last = await self.last_offset()
        return LogStatus(len(self._outbox), last, len(waiting), max(0.0, age_s))

    def _ledger(self) -> list[tuple[Offset, OutboxEntry]]:
        kept = (e for e in self._outbox if e.position not in self._pruned)
        given = [(e.offset, e) for e in kept if e.offset is not None]
        return sorted(given, key=lambda pair: pair[0])

    def _commit(self, unit: Unit, broken: set[StreamId]) -> Outcome:
        try:
            check_storable(unit)
        except Rejected as error:
            return Failed(error)
        if unit.record and (known := self._known(unit.record.claim)):
            same = known.fingerprint == unit.record.fingerprint
            return Replayed(known.reply) if same else Reused()
        if any(a.stream in broken or self._version(a.stream) != a.expected for a in unit.appends):
            return Conflicted()
        try:
            check_json(unit)
        except Rejected as error:
            return Failed(error)
        for append in unit.appends:
            for event in append.events:
                self._append(append.stream, event)
            if append.snapshot:
                self._snapshots[append.stream] = append.snapshot
            if append.wake:
                self._wake(append.stream, append.wake)
        if unit.record:
            self._remember(unit.record)
        return Committed()

    def _wake(self, stream: StreamId, wake: Wake) -> None:
        self._due.pop(stream, None)
        if wake.at:
            self._due[stream] = (wake.at, wake.at)

    def _version(self, stream: StreamId) -> Version:
        return Version(len(self._streams.get(stream, ())))

    def _append(self, stream: StreamId, event: NewEvent) -> None:
        history = self._streams[stream]
        recorded = RecordedEvent(
            stream,
            Version(len(history) + 1),
            event.event_id,
            event.type,
            event.payload,
            dict(event.metadata),
            self._clock.now(),
        )
        history.append(recorded)
        self._outbox.append(OutboxEntry(len(self._outbox) + 1, None, recorded))

    def _known(self, claim: ClaimKey) -> StoredReply | None:
        remembered = self._replies.get(claim)
        if remembered is None or remembered.expires_at_s <= self._clock.monotonic_s():
            return None
        return remembered.reply

    def _remember(self, record: IdempotencyRecord) -> None:
        expires_at_s = self._clock.monotonic_s() + record.ttl_s
        reply = StoredReply(record.fingerprint, record.reply)
        self._replies[record.claim] = _Remembered(reply, expires_at_s)
