"""A late sequencer with an exact copy: no event missing, none twice, none out of order.

There is no cursor. Committed rows that have no offset get the next ones, in the order of their
positions; the offset *is* the stream's sequence. Everything is fenced by one number, the last offset:

    handshake ──agreed──▶ relaying ──nothing waits──▶ listening
        ▲                    │  ▲                        │
        └──any doubt─────────┘  └────────a ring, a while─┘

    any doubt: the broker refused or did not answer, the ledger did not, the process started

Two loops, so that neither waits for the other, with at most two batches between them:

    publishing   what waits and is not on its way, right after the last message, if the ledger ends
                 where we record; after a full batch there is more, and it is read meanwhile
    recording    all that is published, in the order of the offsets: the ledger never has a gap

What each failure leads to:

- dies between publish and record: the handshake reads the messages back, up to two batches of them,
  and records them; the loop that fails cancels the other, and none goes on alone;
- dies between read and publish: nothing happened;
- paused, and woken when another one leads: it asks `leads` before it publishes and before it records;
  paused after that, its record is refused in the store: `lease` is not the newest any more;
- a zombie, or a second relay: the broker refuses its batch, because the sequence moved on;
- a zombie whose stale offset fits again, because the broker lost its tail: the ledger has moved on
  (checked right before every publish), and a connection that was lost since the handshake is a doubt;
- a zombie whose batch the broker took and lost: another relay gave these offsets anew, and the ledger
  keeps what was recorded first; what the zombie would record is refused whole;
- the broker lost its tail, or everything: the handshake publishes it again, with the same offsets;
- somebody else published to the stream: `Corrupt`, and a human; it never guesses.

No I/O here: the ports are given.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flotilla import Corrupt, Lease, Offset, Outbox, OutboxEntry
from svc_outbox_relay.handshake import Handshake
from svc_outbox_relay.log_stream import LogStream, Message, WrongLastSequence

BATCH_MESSAGES_MAX = 1000
"""As many as JetStream takes in one atomic batch."""
BATCH_BYTES_MAX = 8 * 1024**2
"""Payload bytes of a batch; a greater event goes alone."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries of the outbox, in the order in which they are published."""

    positions: Sequence[int]
    messages: Sequence[Message]
    is_full: bool = False


@dataclass(slots=True)
class Published:
    """What the stream has up to `last`, and the ledger not yet: the positions of the last offsets."""

    last: Offset
    positions: list[int] = field(default_factory=list)
    recording: int = 0
    """How many of the first positions are being recorded."""
    added: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ledger_ends(self) -> set[int]:
        """Where the ledger ends: before what is being recorded, or after it."""
        first = self.last - len(self.positions)
        return {first, first + self.recording}

    def add(self, batch: Batch) -> None:
        """Note what was published."""
        self.positions += batch.positions
        self.last = Offset(self.last + len(batch.positions))
        self.added.set()

    def drop(self) -> None:
        """Note that what was being recorded is."""
        del self.positions[: self.recording]
        self.recording = 0


@dataclass(frozen=True, slots=True)
class Relay:
    """One log's relay. `message` says how an entry is published, `leads` whether we may still do it."""

    log: str
    outbox: Outbox
    stream: LogStream
    message: Callable[[OutboxEntry], Message]
    on_handshake: Callable[[str], None] = lambda _case: None
    on_recorded: Callable[[int], object] = lambda _events: None
    leads: Callable[[], bool] = lambda: True
    lease: Callable[[], Lease | None] = lambda: None
    """Under which offsets are recorded: nothing is, once somebody else has led."""
    rang: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by whoever knows that something was committed: then it is looked for at once."""
    batch_messages_max: int = BATCH_MESSAGES_MAX
    batch_bytes_max: int = BATCH_BYTES_MAX

    async def handshake(self) -> Offset:
        """Make ledger and stream agree; return the last offset of both. Raises as `Handshake`."""
        settle = (self._messages, self.on_handshake, self.batch_messages_max, self.lease)
        return await Handshake(self.log, self.outbox, self.stream, *settle).shake()

    async def relay(self, last: Offset) -> Offset:
        """Publish and record until nothing waits; return the new last offset.

        After any error only the handshake knows the last offset. Raises `WrongLastSequence` when
        somebody else relayed, or leads.
        """
        published = Published(last)
        try:
            async with asyncio.TaskGroup() as loops:
                recording = loops.create_task(self._keep_recording(published))
                await self._keep_publishing(published, loops)
                recording.cancel()
        except BaseExceptionGroup as failed:
            raise min(failed.exceptions, key=lambda e: not isinstance(e, Corrupt)) from None
        return published.last

    async def _keep_publishing(self, published: Published, loops: asyncio.TaskGroup) -> None:
        batch = await self._read(published.positions)
        while batch.messages or published.positions:
            if not batch.messages:
                await self.rang.wait()
                batch = await self._read(published.positions)
                continue
            while len(published.positions) > self.batch_messages_max:
                self.rang.clear()
                await self.rang.wait()
            but = [*published.positions, *batch.positions]
            ahead = loops.create_task(self._read(but)) if batch.is_full else None
            await self._publish(batch, published)
            batch = await (ahead or self._read(published.positions))

    async def _keep_recording(self, published: Published) -> None:
        while True:
            while not published.positions:
                published.added.clear()
                await published.added.wait()
            await self._record(published)
            self.rang.set()

    async def _read(self, but: Sequence[int]) -> Batch:
        """Return what waits, but not `but`: as much as one batch holds."""
        self.rang.clear()
        entries = await self.outbox.pending(limit=self.batch_messages_max, but=but)
        messages = self._messages(entries)
        is_full = len(messages) < len(entries) or len(entries) == self.batch_messages_max
        return Batch([entry.position for entry in entries[: len(messages)]], messages, is_full)

    async def _publish(self, batch: Batch, published: Published) -> None:
        """Publish right after the last message, unless the ledger says that somebody else went on."""
        ends, last = published.ledger_ends, published.last
        if await self.outbox.last_offset() not in ends | published.ledger_ends or not self.leads():
            raise WrongLastSequence(f"{self.log}: another relay went on after offset {last}")
        await self.stream.publish(batch.messages, after=last)
        published.add(batch)

    async def _record(self, published: Published) -> None:
        """Record what is published and not in the ledger."""
        if not self.leads():
            raise WrongLastSequence(f"{self.log}: another relay leads")
        positions = published.positions[: self.batch_messages_max]
        first = published.last + 1 - len(published.positions)
        published.recording = len(positions)
        try:
            given = [(p, Offset(o)) for o, p in enumerate(positions, first)]
            await self.outbox.record(given, lease=self.lease())
        except Corrupt as error:
            if await self.outbox.last_offset() < first:
                raise
            raise WrongLastSequence(f"{self.log}: another relay recorded {first}") from error
        self.on_recorded(published.recording)
        published.drop()

    def _messages(self, entries: Sequence[OutboxEntry]) -> list[Message]:
        """Return the messages of the first entries: as many as one batch holds, at least one."""
        messages: list[Message] = []
        free = self.batch_bytes_max
        for entry in entries:
            message = self.message(entry)
            free -= len(message.payload)
            if free < 0 and messages:
                break
            messages.append(message)
        return messages
