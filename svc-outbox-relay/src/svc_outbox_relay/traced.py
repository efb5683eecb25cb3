"""A log's stream that leaves a span in the trace of every event it published."""

from collections.abc import Sequence
from dataclasses import dataclass

from flotilla import Offset
from flotilla.telemetry import mark
from svc_outbox_relay.log_stream import LogStream, Message, PublishedMessage


@dataclass(frozen=True, slots=True)
class TracedLogStream:
    """Wraps a `LogStream`; same promises."""

    stream: LogStream

    async def last_sequence(self) -> Offset:
        """Return the last sequence."""
        return await self.stream.last_sequence()

    async def restart_at(self, first: Offset) -> None:
        """Make an empty stream give `first` as its next sequence."""
        await self.stream.restart_at(first)

    async def publish(self, messages: Sequence[Message], *, after: Offset) -> None:
        """Publish all or none, and say so in their traces."""
        await self.stream.publish(messages, after=after)
        mark("relay.publish", (message.traceparent for message in messages))

    async def read(self, *, after: Offset, limit: int) -> Sequence[PublishedMessage]:
        """Return messages after `after`."""
        return await self.stream.read(after=after, limit=limit)
