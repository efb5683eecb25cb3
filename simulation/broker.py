"""A broker that loses what it should keep: its tail, everything, and its connections with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from urllib.parse import unquote

from flotilla import LogEvent, Offset, Unavailable
from flotilla.store import tenant_of
from simulation.process import Process, at_once
from svc_outbox_relay.log_stream import Message, PublishedMessage, WrongLastSequence
from svc_outbox_relay.testing import MemoryLogStream, published


@lru_cache(4096)
def said_by(message: Message) -> PublishedMessage:
    """Return what a message says it is; its offset says nothing."""
    return published(Offset(0), message)


@dataclass(slots=True)
class Broker:
    """A log's stream. `fenced` is whether it looks at the expected sequence, and a line at itself."""

    fenced: bool = True
    stream: MemoryLogStream = field(default_factory=MemoryLogStream)
    connections: int = 0
    """How often all connections were lost."""
    ever: set[tuple[int, str | None]] = field(default_factory=set)
    """(offset, event id) of all that was ever published."""

    def lose(self, keep: int) -> None:
        """Forget all but the first `keep` messages; no broker can without dropping connections."""
        del self.stream.messages[keep:]
        self.connections += 1

    def publish(self, messages: Sequence[Message], after: Offset) -> None:
        """Publish, if `after` is right."""
        last = at_once(self.stream.last_sequence())
        at_once(self.stream.publish(messages, after=after if self.fenced else last))
        begin = (after if self.fenced else last) + 1
        self.ever |= {(begin + n, said_by(m).event_id) for n, m in enumerate(messages)}

    def deliver(self, after: int, limit: int) -> list[LogEvent]:
        """Return what a consumer is sent: the events after an offset."""
        found = self.stream.messages[after : after + limit]
        return [_log_event(after + n, m) for n, m in enumerate(found, start=1)]


@dataclass(slots=True)
class Line:
    """A process' connection to the broker. Implements `LogStream`."""

    process: Process
    broker: Broker
    _connection: int = -1

    async def last_sequence(self) -> Offset:
        """Return the last sequence."""

        def do() -> Offset:
            self._connection = self.broker.connections
            return at_once(self.broker.stream.last_sequence())

        return await self.process.call("last_sequence", do)

    async def restart_at(self, first: Offset) -> None:
        """Let an empty stream begin elsewhere."""
        await self.process.call(
            "restart_at", lambda: at_once(self.broker.stream.restart_at(first)), str(first)
        )

    async def publish(self, messages: Sequence[Message], *, after: Offset) -> None:
        """Publish; what is on its way on a connection that is lost does not arrive."""
        broker, sent_on = self.broker, self.broker.connections
        if broker.fenced and self._connection != sent_on:
            raise WrongLastSequence("the connection was lost since the handshake")

        def do() -> None:
            if broker.fenced and sent_on != broker.connections:
                raise Unavailable("the connection was lost")
            broker.publish(messages, after)

        told = " ".join(str(said_by(message).event_id) for message in messages)
        await self.process.call("publish", do, f"{told} after {after}")

    async def read(self, *, after: Offset, limit: int) -> Sequence[PublishedMessage]:
        """Return messages after `after`."""
        return await self.process.call(
            "read",
            lambda: at_once(self.broker.stream.read(after=after, limit=limit)),
            f"after {after}",
        )


def _log_event(offset: int, message: Message) -> LogEvent:
    said = said_by(message)
    if said.event is None:
        raise ValueError(f"not an event: {message}")
    stream, version = said.event
    return LogEvent(
        Offset(offset),
        tenant_of(stream),
        stream,
        version,
        message.subject,
        message.payload,
        _time_of(message),
    )


def _time_of(message: Message) -> datetime:
    """Return when the event was recorded, as its CloudEvent says."""
    for line in message.headers.decode().splitlines():
        if line.startswith("ce-time: "):
            return datetime.fromisoformat(unquote(line.removeprefix("ce-time: ")))
    raise ValueError(f"not an event: {message}")
