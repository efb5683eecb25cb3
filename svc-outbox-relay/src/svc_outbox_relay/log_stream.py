"""The stream of one log, as the relay sees it. Its promises are in `testing.LogStreamContract`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flotilla import Offset, StreamId, Unavailable, Version


@dataclass(frozen=True, slots=True)
class Message:
    """One event as it is published. `headers` is as on the wire: lines `name: value` with CRLF."""

    subject: str
    headers: bytes
    payload: bytes
    traceparent: str | None = None


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
