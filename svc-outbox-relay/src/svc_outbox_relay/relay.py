"""A late sequencer with an exact copy: no event missing, none twice, none out of order.

There is no cursor. Committed rows that have no offset get the next ones, in the order of their
positions; the offset *is* the stream's sequence. Everything is fenced by one number, the last offset:

    handshake ──agreed──▶ relaying ──nothing waits──▶ listening
        ▲                    │  ▲                        │
        └──any doubt─────────┘  └────────a ring, a while─┘

    any doubt: the broker refused or did not answer, the ledger did not, the process started

What each failure leads to:

- dies between publish and record: the handshake reads the messages back and records them;
- dies between read and publish: nothing happened;
- a zombie, or a second relay: the broker refuses its batch, because the sequence moved on; one that
  reads back what the other is recording looks again;
- a zombie whose stale offset fits again, because the broker lost its tail: the ledger has moved on
  (checked right before every publish), and a connection that was lost since the handshake is a doubt;
- a zombie whose batch the broker took and lost: another relay gave these offsets anew, and the ledger
  keeps what was recorded first; what the zombie would record is refused whole;
- the broker lost its tail, or everything: the handshake publishes it again, with the same offsets;
- somebody else published to the stream: `Corrupt`, and a human; it never guesses.

No I/O here: the ports are given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from flotilla import Corrupt, Offset, Outbox, OutboxEntry, StreamId, Unavailable, Version

BATCH_MESSAGES_MAX = 1000
"""As many as JetStream takes in one atomic batch."""


@dataclass(frozen=True, slots=True)
class Message:
    """One event as it is published. `event_id` identifies it when it is read back."""

    subject: str
    headers: dict[str, str]
    payload: bytes


@dataclass(frozen=True, slots=True)
class PublishedMessage:
    """A message read back from the stream: which event it says it is; None when it says nothing."""

    offset: Offset
    event_id: str | None
    event: tuple[StreamId, Version] | None


class WrongLastSequence(Unavailable):
    """The stream's last sequence is not what the batch expected: somebody else published."""


class LogStream(Protocol):
    """The JetStream stream of one log. Raises `Unavailable` when the broker does not answer."""

    async def last_sequence(self) -> Offset:
        """Return the last sequence; create the stream if it is not there."""
        ...

    async def restart_at(self, first: Offset) -> None:
        """Make an empty stream give `first` as its next sequence."""
        ...

    async def publish(self, messages: Sequence[Message], *, after: Offset) -> None:
        """Publish all or none, as the sequences right after `after`.

        Raises `WrongLastSequence`, with nothing published, when that is not the last one or the
        connection was lost since `last_sequence` was asked. After `Unavailable` it is not known.
        """
        ...

    async def read(self, *, after: Offset, limit: int) -> Sequence[PublishedMessage]:
        """Return up to `limit` messages with sequences greater than `after`, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Relay:
    """One log's relay. `message` says how an entry is published."""

    log: str
    outbox: Outbox
    stream: LogStream
    message: Callable[[OutboxEntry], Message]
    on_handshake: Callable[[str], None] = lambda _case: None
    batch_messages_max: int = BATCH_MESSAGES_MAX

    async def handshake(self) -> Offset:
        """Make ledger and stream agree; return the last offset of both.

        Raises `Corrupt` when the stream holds what the ledger does not know.
        """
        recorded = await self.outbox.last_offset()
        published = await self.stream.last_sequence()
        await self._check_common(min(recorded, published))
        if published > recorded:
            self.on_handshake("read-back")
            return await self._read_back(recorded, published)
        if published < recorded:
            self.on_handshake("refill")
            await self._refill(published, recorded)
        else:
            self.on_handshake("agreed")
        return recorded

    async def relay_once(self, last: Offset) -> Offset:
        """Publish and record one batch of what waits; return the new last offset.

        Publish first, record second: between the two the handshake finds it. After any error only the
        handshake knows the last offset. Raises `WrongLastSequence` when somebody else relayed.
        """
        waiting = await self.outbox.pending(limit=self.batch_messages_max)
        if not waiting:
            return last
        if await self.outbox.last_offset() != last:
            raise WrongLastSequence(f"{self.log}: another relay went on after offset {last}")
        await self.stream.publish([self.message(entry) for entry in waiting], after=last)
        offsets = [Offset(last + n) for n in range(1, len(waiting) + 1)]
        pairs = [(entry.position, offset) for entry, offset in zip(waiting, offsets, strict=True)]
        await self._record(pairs, after=last)
        return offsets[-1]

    async def _check_common(self, offset: Offset) -> None:
        """Check that ledger and stream have the same event at `offset`, as far as both are there."""
        if not offset:
            return
        before = Offset(offset - 1)
        for ours in await self.outbox.published(after=before, limit=1):
            for theirs in await self.stream.read(after=before, limit=1):
                if theirs.offset == ours.offset and theirs.event_id != ours.event.event_id:
                    raise self._foreign(theirs)

    async def _read_back(self, recorded: Offset, published: Offset) -> Offset:
        """Record what was published and not recorded."""
        while recorded < published:
            messages = await self.stream.read(after=recorded, limit=self.batch_messages_max)
            if not messages:
                raise WrongLastSequence(f"{self.log}: the stream ends before {published} by now")
            if messages[0].offset != recorded + 1:
                raise Corrupt(
                    f"{self.log}: the stream lost message {recorded + 1} before its ledger"
                )
            named = [m.event for m in messages if m.event]
            known = {(e.event.stream, e.event.version): e for e in await self.outbox.find(named)}
            offsets: list[tuple[int, Offset]] = []
            for message in messages:
                entry = known.get(message.event) if message.event else None
                if entry is None and await self.outbox.last_offset() > recorded:
                    raise WrongLastSequence(f"{self.log}: another relay recorded it meanwhile")
                if entry is None or entry.event.event_id != message.event_id:
                    raise self._foreign(message)
                offsets.append((entry.position, message.offset))
            await self._record(offsets, after=recorded)
            recorded = messages[-1].offset
        return recorded

    async def _record(self, pairs: Sequence[tuple[int, Offset]], *, after: Offset) -> None:
        try:
            await self.outbox.record(pairs)
        except Corrupt as error:
            if await self.outbox.last_offset() == after:
                raise
            raise WrongLastSequence(f"{self.log}: another relay went on after {after}") from error

    async def _refill(self, published: Offset, recorded: Offset) -> None:
        """Publish again what the broker lost, with the same offsets."""
        while published < recorded:
            entries = await self.outbox.published(after=published, limit=self.batch_messages_max)
            first = entries[0].offset if entries else None
            if first is not None and first != published + 1 and not published:
                published = Offset(
                    first - 1
                )  # older ledger rows were pruned: begin where it begins
                await self.stream.restart_at(first)
            offsets = [entry.offset for entry in entries]
            if offsets != list(range(published + 1, published + 1 + len(entries))) or not entries:
                raise Corrupt(f"{self.log}: the ledger has a gap after offset {published}")
            await self.stream.publish([self.message(entry) for entry in entries], after=published)
            published = Offset(published + len(entries))

    def _foreign(self, message: PublishedMessage) -> Corrupt:
        return Corrupt(
            f"{self.log}: message {message.offset} of the stream is not in the ledger"
            f" (it says it is {message.event}, id {message.event_id}): somebody else published to it,"
            " or the store was restored from before it; see docs/runbooks/relay.md"
        )
