"""Making ledger and stream agree: what a relay does before it goes on, and after any doubt.

    the stream is ahead   it was published and not recorded: read it back, record it
    the stream is behind  the broker lost its tail, or everything: publish it again, same offsets
    they differ           somebody else wrote to one of them: `Corrupt`, and a human; it never guesses

May be begun again at any point. Another relay may still be at work: then what looks like a difference
is none, and this says so instead of waking anybody. No I/O here: the ports are given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flotilla import Corrupt, Lease, Offset, Outbox, OutboxEntry
from flotilla.outbox import START
from svc_outbox_relay.log_stream import LogStream, Message, PublishedMessage, WrongLastSequence


@dataclass(frozen=True, slots=True)
class Handshake:
    """One log's. `pack` makes the messages of the first entries: as many as one batch holds."""

    log: str
    outbox: Outbox
    stream: LogStream
    pack: Callable[[Sequence[OutboxEntry]], Sequence[Message]]
    on_handshake: Callable[[str], None]
    batch_messages_max: int
    lease: Callable[[], Lease | None] = lambda: None

    async def shake(self) -> Offset:
        """Make ledger and stream agree; return the last offset of both.

        Raises `Corrupt` when the stream holds what the ledger does not know; `WrongLastSequence` when
        that may be because somebody else went on meanwhile; `LeaseLost` when somebody else leads.
        """
        found = await self._ends()
        try:
            return await self._agree(*found)
        except Corrupt as error:
            if found != await self._ends():
                raise WrongLastSequence(f"{self.log}: not standing still: {error}") from error
            raise

    async def _ends(self) -> tuple[Offset, Offset]:
        return await self.outbox.last_offset(), await self.stream.last_sequence()

    async def _agree(self, recorded: Offset, published: Offset) -> Offset:
        await self._check_common(min(recorded, published))
        if published > recorded:
            self.on_handshake("read-back")
            return await self._read_back(recorded, published)
        self.on_handshake("refill" if published < recorded else "agreed")
        if published < recorded:
            await self._refill(published, recorded)
        return recorded

    async def _check_common(self, last: Offset) -> None:
        """Check that ledger and stream agree at both ends and in the middle of what both have."""
        if not last:
            return
        oldest = await self.stream.read(after=START, limit=1)
        first = max(await self.outbox.first_offset(), *(m.offset for m in oldest), 1)
        for offset in {first, (first + last) // 2, last} if first <= last else ():
            before = Offset(offset - 1)
            for ours in await self.outbox.published(after=before, limit=1):
                for theirs in await self.stream.read(after=before, limit=1):
                    if (theirs.offset, theirs.event_id) != (ours.offset, ours.event.event_id):
                        raise self._foreign(theirs)

    async def _read_back(self, recorded: Offset, published: Offset) -> Offset:
        """Record what was published and not recorded."""
        while recorded < published:
            messages = await self.stream.read(after=recorded, limit=self.batch_messages_max)
            if not messages:
                raise WrongLastSequence(f"{self.log}: the stream lost what it had after {recorded}")
            if messages[0].offset != recorded + 1:
                raise Corrupt(
                    f"{self.log}: the stream lost message {recorded + 1} before its ledger"
                )
            named = [m.event for m in messages if m.event]
            known = {(e.event.stream, e.event.version): e for e in await self.outbox.find(named)}
            offsets: list[tuple[int, Offset]] = []
            for message in messages:
                entry = known.get(message.event) if message.event else None
                if entry is None or entry.event.event_id != message.event_id:
                    raise self._foreign(message)
                offsets.append((entry.position, message.offset))
            await self.outbox.record(offsets, lease=self.lease())
            recorded = messages[-1].offset
        return recorded

    async def _refill(self, published: Offset, recorded: Offset) -> None:
        """Publish again what the broker lost, with the same offsets."""
        if published + 1 < (first := await self.outbox.first_offset()):
            await self.stream.restart_at(first)  # older entries were pruned: begin where it begins
            published = Offset(first - 1)
        while published < recorded:
            entries = await self.outbox.published(after=published, limit=self.batch_messages_max)
            messages = self.pack(entries)
            offsets = [entry.offset for entry in entries[: len(messages)]]
            if offsets != list(range(published + 1, published + 1 + len(messages))) or not offsets:
                raise Corrupt(f"{self.log}: the ledger has a gap after offset {published}")
            await self.stream.publish(messages, after=published)
            published = Offset(published + len(messages))

    def _foreign(self, message: PublishedMessage) -> Corrupt:
        return Corrupt(
            f"{self.log}: message {message.offset} of the stream is not in the ledger"
            f" (it says it is {message.event}, id {message.event_id}): somebody else published to it,"
            " or the store was restored from before it; see docs/runbooks/relay.md"
        )
