"""The stream of one log on a real broker: atomic batches, fenced by the expected last sequence."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from flotilla import Corrupt, Offset, StreamId, Unavailable, Version, uuid7
from flotilla.nats import hpub_frame, send_frames, while_connected
from flotilla_contracts import Envelope
from flotilla_contracts.wire import event_stream, event_subjects
from svc_outbox_relay.log_stream import Message, PublishedMessage, WrongLastSequence

TIMEOUT_S = 5.0
READS_IN_FLIGHT_MAX = 64
WRONG_LAST_SEQUENCE = 10071
HEADERS_MORE_BYTES = 64
"""What may still be added around a message's headers."""


class JetStreamLog:
    """Implements `LogStream` with nats-py."""

    def __init__(self, connection: Client, log: str) -> None:
        self._connection = connection
        self._js = connection.jetstream(timeout=TIMEOUT_S)
        self._log = log
        self._name = event_stream(log)
        self._reconnects = -1

    async def last_sequence(self) -> Offset:
        """Return the last sequence; create the stream if it is not there."""
        async with self._answered():
            try:
                info = await self._js.stream_info(self._name)
            except nats.js.errors.NotFoundError:
                info = await self._js.add_stream(self._config())
        self._reconnects = self._connection.stats["reconnects"]
        return Offset(info.state.last_seq)

    async def restart_at(self, first: Offset) -> None:
        """Make an empty stream give `first` as its next sequence."""
        async with self._answered():
            info = await self._js.stream_info(self._name)
            if info.state.messages:
                raise Corrupt(f"{self._name} is not empty: it cannot start at {first}")
            await self._js.delete_stream(self._name)
            await self._js.add_stream(self._config(first))

    async def publish(self, messages: Sequence[Message], *, after: Offset) -> None:
        """Publish all or none, as the sequences right after `after`."""
        if not self._connection.is_connected:  # nats-py would keep the batch and send it later
            raise Unavailable(f"{self._name}: not connected")
        if self._connection.stats["reconnects"] != self._reconnects:
            raise WrongLastSequence(f"{self._name}: the connection was lost since the handshake")
        frames, last = self._frames(messages, after)
        async with self._answered():
            if frames:
                await send_frames(self._connection, b"".join(frames), count=len(frames))
            headers = dict(line.split(": ", 1) for line in last.headers.decode().splitlines())
            reply = await self._connection.request(
                last.subject, last.payload, headers=headers, timeout=TIMEOUT_S
            )
        self._check(json.loads(reply.data), Offset(after + len(messages)))

    async def read(self, *, after: Offset, limit: int) -> Sequence[PublishedMessage]:
        """Return up to `limit` messages with sequences greater than `after`, in order."""
        async with self._answered():
            state = (await self._js.stream_info(self._name)).state
            first = max(after + 1, state.first_seq)
            wanted = list(range(first, min(first + limit, state.last_seq + 1)))
            found: list[PublishedMessage] = []
            for start in range(0, len(wanted), READS_IN_FLIGHT_MAX):
                window = wanted[start : start + READS_IN_FLIGHT_MAX]
                found += await asyncio.gather(*(self._read_one(Offset(n)) for n in window))
        return found

    async def _read_one(self, offset: Offset) -> PublishedMessage:
        message = await self._js.get_msg(self._name, offset)
        try:
            envelope = Envelope.from_headers(message.headers or {})
        except ValueError:
            return PublishedMessage(offset, None, None)
        event = (StreamId(envelope.stream), Version(envelope.streamversion))
        return PublishedMessage(offset, envelope.id, event)

    def _frames(self, messages: Sequence[Message], after: Offset) -> tuple[list[bytes], Message]:
        """Return all but the last as frames, and the last one, which commits the batch."""
        expected = f"Nats-Expected-Last-Sequence: {after}\r\n".encode()
        batch = f"Nats-Batch-Id: {uuid7()}\r\n".encode()
        frames: list[bytes] = []
        last = messages[0]
        for n, message in enumerate(messages, start=1):
            headers = message.headers
            if n == 1:
                headers = expected + headers
            if len(messages) > 1:
                headers = b"%bNats-Batch-Sequence: %d\r\n%b" % (batch, n, headers)
            self._check_size(message, len(headers))
            if n < len(messages):
                frames.append(hpub_frame(message.subject, headers, message.payload))
                continue
            if n > 1:
                headers = b"Nats-Batch-Commit: 1\r\n" + headers
            last = replace(message, headers=headers)
        return frames, last

    def _check_size(self, message: Message, headers_bytes: int) -> None:
        """Refuse what the server would end the connection for."""
        size, most = headers_bytes + len(message.payload), self._connection.max_payload
        if size + HEADERS_MORE_BYTES > most:
            raise Unavailable(
                f"{self._name}: a message on {message.subject} has {size} bytes and the server takes"
                f" {most}: raise its max_payload, see docs/runbooks/relay.md"
            )

    def _check(self, reply: dict[str, Any], expected: Offset) -> None:
        if error := reply.get("error"):
            text = f"{self._name}: {error.get('description')} ({error.get('err_code')})"
            if error.get("err_code") == WRONG_LAST_SEQUENCE:
                raise WrongLastSequence(text)
            raise Unavailable(text)
        if reply.get("seq") != expected:
            raise Corrupt(
                f"{self._name}: published up to {expected}, broker says {reply.get('seq')}"
            )

    def _config(self, first: Offset | None = None) -> StreamConfig:
        return StreamConfig(
            name=self._name,
            subjects=[event_subjects(self._log)],
            description=f"The log of {self._log}. Written by its outbox relay alone.",
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            allow_atomic=True,
            allow_direct=True,
            deny_delete=True,
            deny_purge=True,
            first_seq=first,
        )

    @asynccontextmanager
    async def _answered(self) -> AsyncIterator[None]:
        """Bound what is asked in the block, and turn what it raises into our families."""
        try:
            async with while_connected(self._connection, within_s=TIMEOUT_S):
                yield
        except nats.js.errors.APIError as error:
            raise Unavailable(f"JetStream: {error.description} ({error.err_code})") from error
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            raise Unavailable(f"the broker does not answer: {error!r}") from error
