"""Verifies an audit trail against its log: every entry made again from its event, and compared.

    log (store, or stream) ──▶ entry, chained to the one before ──▶ the same as in the view?
                                                                     no ──▶ the first difference, named

What is found: any entry that is changed in any field, missing, inserted or out of order, and an end that
is cut off, in the view or in the log, as long as both were not changed alike. Which of them was changed
two copies cannot say: kinds of differences are told with the log as the measure, and a second log (the
stream's copy beside the store's) is the judge. Whoever changed all copies alike made another history
without a mistake in it: that is found by a hash that was kept elsewhere (`head`), and by nothing else.

Entries beyond the view's checkpoint were not folded yet, and are not looked at. Memory is bounded by a
batch and the end of each tenant's chain.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

from flotilla.audit import NO_LINK, AuditEntry, AuditTrail, Link
from flotilla.outbox import START, LogEvent, Offset, Outbox, OutboxEntry, Pruned, as_log_event
from flotilla.projection import Projection, ViewStore
from flotilla.rebuild import Source
from flotilla.store import EventStore, RecordedEvent, StreamId, Version

ENTRIES_MAX = 5_000
"""How many entries are compared at a time."""
FIRST, LAST = -(2**63), 2**63 - 1
"""No offset is less, or greater: what somebody put in there is looked at, too."""

Place = Literal["view", "store", "stream"]


class Kind(StrEnum):
    """What is wrong at an offset, with the log as the measure."""

    MISSING = "missing"
    CHANGED = "changed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    HEAD_UNKNOWN = "head-unknown"
    """The hash that was kept elsewhere is that of no entry."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first entry that is not what it should be."""

    kind: Kind
    place: Place
    """Where something lacks, or is too much; of a change, where it was noticed."""
    offset: int
    expected: AuditEntry | None
    """What the log makes of it."""
    found: AuditEntry | None
    """What the view has."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Return what of a changed entry differs; the hash alone: the event's content, or its id."""
        if self.kind != Kind.CHANGED or not (self.expected and self.found):
            return ()
        return self.expected.differing(self.found)


@dataclass(frozen=True, slots=True)
class Verified:
    """What was compared: so many entries, of the log up to `upto`."""

    entries: int
    upto: Offset
    heads: Mapping[str, AuditEntry]
    """The last entry of each chain that was looked at, by tenant."""
    head_at: Offset | None
    """Where the hash is that was kept elsewhere: all up to there is as it was then."""
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Verifying:
    """How far it is."""

    offset: Offset
    target: Offset
    phase: str = "verifying"


@runtime_checkable
class Log(Outbox, EventStore, Protocol):
    """A store: its ledger, and the streams of its events."""


class _Found(Exception):
    """Ends the comparison."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.kind)
        self.difference = difference


@dataclass(slots=True)
class Audit:
    """One verification. `source` reads the log: the store's, or the copy that the stream has."""

    projection: Projection
    trail: AuditTrail
    views: ViewStore
    store: Log
    source: Source
    place: Literal["store", "stream"] = "store"
    tenant: str | None = None
    head: str | None = None
    """A hash of this tenant's that was kept elsewhere."""
    report: Callable[[Verifying], None] = lambda _progress: None
    _heads: dict[str, AuditEntry] = field(default_factory=dict)
    _ends: dict[str, Link] = field(default_factory=dict)
    _head_at: Offset | None = None
    _first: Offset = START
    """Where the ledger begins."""
    _entries: int = 0

    def against(self, place: Literal["store", "stream"], source: Source) -> "Audit":
        """Return the same verification against another copy of the log."""
        return Audit(
            *(self.projection, self.trail, self.views, self.store, source),
            place=place,
            tenant=self.tenant,
            head=self.head,
        )

    async def run(self) -> Verified:
        """Compare all of it, up to the first difference.

        Raises what store and views raise; `Unavailable` when the stream ends before the view does.
        """
        of = self.projection
        folded = (await self.views.checkpoint(of.name, of.log)).offset
        recorded = await self.store.last_offset()
        self._first = await self.store.first_offset()
        target = min(folded, recorded)
        difference = None
        try:
            await self._compare(target)
            await self._compare_ends(folded, recorded)
        except _Found as found:
            difference = found.difference
        heads = dict(sorted(self._heads.items()))
        return Verified(self._entries, target, heads, self._head_at, difference)

    async def _compare(self, target: Offset) -> None:
        for row in await self._entries_of(FIRST, START):
            raise _Found(Difference(Kind.INSERTED, "view", row.offset, None, row))
        last = START
        async with aclosing(self._dense(target)) as batches:
            async for batch in batches:
                for start in range(0, len(batch), ENTRIES_MAX):
                    part = batch[start : start + ENTRIES_MAX]
                    await self._compare_batch(part, last, part[-1].offset)
                    last = part[-1].offset
                    self.report(Verifying(last, target))

    async def _dense(self, target: Offset) -> AsyncGenerator[Sequence[LogEvent]]:
        """Yield the log's events; end with a difference where it has a hole, or ends too early."""
        last = START
        try:
            async with aclosing(self._read(target)) as batches:
                async for batch in batches:
                    for n, event in enumerate(batch):
                        if event.offset != last + 1:
                            if n:
                                yield batch[:n]
                            await self._lacks(last + 1, Kind.MISSING)
                        last = event.offset
                    yield batch
        except Pruned:  # not by the relay: it leaves no hole
            await self._lacks(last + 1, Kind.MISSING)
        if last < target:
            await self._lacks(last + 1, Kind.TRUNCATED)

    async def _read(self, target: Offset) -> AsyncGenerator[Sequence[LogEvent]]:
        """Yield the log's events. What the ledger has no more is still in the streams."""
        last = START
        if self.place == "store" and self._first > 1:
            last = Offset(min(self._first - 1, target))
            async with aclosing(self._from_streams(last)) as batches:
                async for batch in batches:
                    yield batch
        if last < target:
            async with aclosing(self.source(last, target)) as batches:
                async for batch in batches:
                    yield batch

    async def _from_streams(self, upto: Offset) -> AsyncGenerator[Sequence[LogEvent]]:
        """Yield the events that the ledger has no more, at the offsets that the view says."""
        last = START
        while rows := await self.trail.entries(
            self.views, after=last, upto=upto, tenant=None, limit=ENTRIES_MAX
        ):
            last = rows[-1].offset
            found: dict[tuple[StreamId, Version], RecordedEvent] = {}
            for stream in sorted({row.stream for row in rows}):
                versions = [row.version for row in rows if row.stream == stream]
                after, most = Version(min(versions) - 1), len(versions)
                there = await self.store.read(stream, after=after, limit=most)
                found |= {(event.stream, event.version): event for event in there}
            pairs = [(row.offset, found.get((row.stream, row.version))) for row in rows]
            yield [as_log_event(OutboxEntry(0, at, event)) for at, event in pairs if event]

    async def _lacks(self, offset: int, kind: Kind) -> None:
        """End: the log has nothing at an offset. What the view has there is told with it."""
        there = await self._entries_of(offset - 1, offset)
        found = there[0] if there else None
        place: Place = self.place if found or offset >= self._first else "view"
        raise _Found(Difference(kind, place, offset, None, found))

    async def _entries_of(self, after: int, upto: int) -> Sequence[AuditEntry]:
        return await self.trail.entries(
            self.views, after=after, upto=upto, tenant=self.tenant, limit=ENTRIES_MAX + 1
        )

    async def _compare_batch(self, batch: Sequence[LogEvent], after: int, upto: int) -> None:
        rows = {row.offset: row for row in await self._entries_of(after, upto)}
        events = {e.offset: e for e in batch if self.tenant in (None, e.tenant)}
        for offset in sorted(rows.keys() | events.keys()):
            event, row = events.get(offset), rows.get(offset)
            if event is None:
                raise _Found(Difference(Kind.INSERTED, "view", offset, None, row))
            expected = self.trail.entry(event, self._ends.get(event.tenant, NO_LINK))
            if expected != row:
                raise _Found(await self._told(expected, row))
            self._ends[event.tenant] = expected.link
            self._heads[event.tenant] = expected
            self._entries += 1
            if expected.hash == self.head:
                self._head_at = offset

    async def _told(self, expected: AuditEntry, row: AuditEntry | None) -> Difference:
        """Say what happened to the entry that should be there."""
        offset = expected.offset
        if row is None:
            behind = await self._entries_of(offset, LAST)
            kind = Kind.MISSING if behind else Kind.TRUNCATED
            return Difference(kind, "view", offset, expected, None)
        same = expected.event_id == row.event_id
        if same or (expected.stream, expected.version) == (row.stream, row.version):
            return Difference(Kind.CHANGED, "view", offset, expected, row)
        elsewhere = await self.trail.offset_of(self.views, expected.stream, expected.version)
        known = await self.store.read(row.stream, after=Version(row.version - 1), limit=1)
        kind = {
            (True, True): Kind.REORDERED,
            (True, False): Kind.INSERTED,
            (False, True): Kind.MISSING,
            (False, False): Kind.CHANGED,
        }[elsewhere is not None, any(event.event_id == row.event_id for event in known)]
        return Difference(kind, "view", offset, expected, row)

    async def _compare_ends(self, folded: Offset, recorded: Offset) -> None:
        """Look beyond the end: the view has folded what the log has, and has nothing else."""
        if recorded < folded:
            await self._lacks(recorded + 1, Kind.TRUNCATED)
        behind = await self._entries_of(folded, LAST)
        of = self.projection
        folded = (await self.views.checkpoint(of.name, of.log)).offset  # it goes on meanwhile
        for row in behind:
            if row.offset > folded:
                raise _Found(Difference(Kind.INSERTED, "view", row.offset, None, row))
        if self.head is not None and self._head_at is None:
            last = self._heads.get(self.tenant or "")
            raise _Found(
                Difference(Kind.HEAD_UNKNOWN, self.place, last.offset if last else 0, last, None)
            )
