"""A late sequencer with an exact copy: no event missing, none twice, none out of order.

There is no cursor. Committed rows that have no offset get the next ones, in the order of their
positions; the offset *is* the stream's sequence. Everything is fenced by one number, the last offset:

    handshake ──agreed──▶ relaying ──nothing waits──▶ listening
        ▲                    │  ▲                        │
        └──any doubt─────────┘  └────────a ring, a while─┘

    any doubt: the broker refused or did not answer, the ledger did not, the process started

Relaying is a pipeline; in each step three batches are on their way, and the step ends with all three:

    read k+2      what waits, but not what is on its way
    publish k+1   after the fence: the ledger ends at k or, while k is being recorded, right before it
    record k      in the order of the offsets, one after the other: the ledger never has a gap

What each failure leads to:

- dies between publish and record: the handshake reads the messages back, up to two batches of them,
  and records them; one step of a batch that fails cancels the others, and none goes on alone;
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
from dataclasses import dataclass

from flotilla import Corrupt, Lease, Offset, Outbox, OutboxEntry
from svc_outbox_relay.handshake import Handshake
from svc_outbox_relay.log_stream import LogStream, Message, WrongLastSequence

BATCH_MESSAGES_MAX = 1000
"""As many as JetStream takes in one atomic batch."""
BATCH_BYTES_MAX = 8 * 1024**2
"""Payload bytes of a batch; a greater event goes alone."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries of the outbox on their way, in the order of their offsets."""

    positions: Sequence[int] = ()
    messages: Sequence[Message] = ()


NOTHING = Batch()


@dataclass(frozen=True, slots=True)
class Relay:
    """One log's relay. `message` says how an entry is published, `leads` whether we may still do it."""

    log: str
    outbox: Outbox
    stream: LogStream
    message: Callable[[OutboxEntry], Message]
    on_handshake: Callable[[str], None] = lambda _case: None
    leads: Callable[[], bool] = lambda: True
    lease: Callable[[], Lease | None] = lambda: None
    """Under which offsets are recorded: nothing is, once somebody else has led."""
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
        recording, publishing = NOTHING, await self._read(NOTHING, NOTHING)
        while publishing.messages or recording.messages:
            try:
                async with asyncio.TaskGroup() as step:
                    step.create_task(self._publish(publishing, last, len(recording.messages)))
                    step.create_task(self._record(recording, last))
                    reading = step.create_task(self._read(recording, publishing))
            except BaseExceptionGroup as failed:
                raise min(failed.exceptions, key=lambda e: not isinstance(e, Corrupt)) from None
            last = Offset(last + len(publishing.messages))
            recording, publishing = publishing, reading.result()
        return last

    async def _read(self, *on_their_way: Batch) -> Batch:
        """Return what waits and is not on its way: as much as one batch holds."""
        but = [position for batch in on_their_way for position in batch.positions]
        entries = await self.outbox.pending(limit=self.batch_messages_max, but=but)
        messages = self._messages(entries)
        return Batch([entry.position for entry in entries[: len(messages)]], messages)

    async def _publish(self, batch: Batch, last: Offset, recording: int) -> None:
        """Publish right after `last`, of which `recording` messages may not be in the ledger yet."""
        if not batch.messages:
            return
        if await self.outbox.last_offset() not in (last, last - recording) or not self.leads():
            raise WrongLastSequence(f"{self.log}: another relay went on after offset {last}")
        await self.stream.publish(batch.messages, after=last)

    async def _record(self, batch: Batch, last: Offset) -> None:
        """Record what was published up to `last`."""
        if not batch.messages:
            return
        if not self.leads():
            raise WrongLastSequence(f"{self.log}: another relay leads")
        first = last + 1 - len(batch.positions)
        try:
            given = [(p, Offset(o)) for o, p in enumerate(batch.positions, first)]
            await self.outbox.record(given, lease=self.lease())
        except Corrupt as error:
            if await self.outbox.last_offset() < first:
                raise
            raise WrongLastSequence(f"{self.log}: another relay recorded {first}") from error

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
