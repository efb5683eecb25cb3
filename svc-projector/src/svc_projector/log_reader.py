"""Reads a log from JetStream, from any offset on, in batches, without waiting for a full one.

A pull consumer without acknowledgements, made for this reader and forgotten by the broker soon after
it is gone: where to go on is known by the database alone. Requests for messages are kept open ahead of
need, so a lone event is delivered at once and a backlog flows without round trips between batches.
A silent broker is noticed by its missing heartbeats.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from urllib.parse import unquote

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from flotilla import Corrupt, LogEvent, Offset, StreamId, Unavailable, Version
from flotilla_contracts.wire import event_stream

REQUEST_MESSAGES = 500
HEARTBEAT_S = 1.0
SILENCE_MAX_S = 3.5
REQUEST_EXPIRES_S = 30.0
INACTIVE_THRESHOLD_S = 60.0
TIMEOUT_S = 5.0
_BROKER_ERRORS = (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError)


class LogReader:
    """One reading of one log. Iterate over `batches`; an error ends it, and a new one is made."""

    def __init__(self, connection: Client, log: str, *, batch_events_max: int) -> None:
        self._connection = connection
        self._stream = event_stream(log)
        self._batch_events_max = batch_events_max
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._requested = 0

    async def batches(self, *, after: Offset) -> AsyncGenerator[list[LogEvent]]:
        """Yield what follows `after`, for ever, in order; an empty batch is a sign of life.

        Raises:
            Unavailable: the broker, the stream or the consumer is gone, or silent for too long.
            Corrupt: a message is no event: somebody else published to the stream.

        """
        async with self._consumer(after) as (request_subject, inbox):
            while True:
                await self._request(request_subject, inbox)
                yield [self._log_event(message) for message in await self._next()]

    @asynccontextmanager
    async def _consumer(self, after: Offset) -> AsyncIterator[tuple[str, str]]:
        js = self._connection.jetstream(timeout=TIMEOUT_S)
        inbox = self._connection.new_inbox()
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=INACTIVE_THRESHOLD_S,
            mem_storage=True,
        )
        try:
            consumer = (await js.add_consumer(self._stream, config)).name
            subscription = await self._connection.subscribe(inbox, cb=self._arrive)
        except _BROKER_ERRORS as error:
            raise Unavailable(f"{self._stream}: cannot read: {error!r}") from error
        try:
            yield f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{consumer}", inbox
        finally:
            try:
                async with asyncio.timeout(1.0):
                    await subscription.unsubscribe()
                    await js.delete_consumer(self._stream, consumer)
            except _BROKER_ERRORS:
                pass  # the broker forgets it by itself

    async def _arrive(self, message: Msg) -> None:
        self._arrived.put_nowait(message)

    async def _request(self, subject: str, inbox: str) -> None:
        if self._requested > REQUEST_MESSAGES // 2:
            return
        request = {
            "batch": REQUEST_MESSAGES,
            "expires": int(REQUEST_EXPIRES_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        try:
            await self._connection.publish(subject, json.dumps(request).encode(), reply=inbox)
        except _BROKER_ERRORS as error:
            raise Unavailable(f"{self._stream}: cannot ask for more: {error!r}") from error
        self._requested += REQUEST_MESSAGES

    async def _next(self) -> list[Msg]:
        """Return what has arrived, at least one message or status; not more than a batch."""
        try:
            async with asyncio.timeout(SILENCE_MAX_S):
                first = await self._arrived.get()
        except TimeoutError as error:
            raise Unavailable(f"{self._stream}: silent for {SILENCE_MAX_S} s") from error
        arrived = [first]
        while len(arrived) < self._batch_events_max and not self._arrived.empty():
            arrived.append(self._arrived.get_nowait())
        events = []
        for message in arrived:
            status = (message.headers or {}).get("Status")
            if status is None:
                self._requested -= 1
                events.append(message)
            elif status != "100":  # 100 is a heartbeat
                self._end_request(status, message.headers or {})
        return events

    def _end_request(self, status: str, headers: dict[str, str]) -> None:
        """A request ran out (408), or the consumer is no more (404, 409)."""
        text = headers.get("Description", "")
        if status != "408" and "batch completed" not in text.lower():
            raise Unavailable(f"{self._stream}: {status} {text}")
        self._requested = max(0, self._requested - int(headers.get("Nats-Pending-Messages", "0")))

    def _log_event(self, message: Msg) -> LogEvent:
        offset = _sequence(message.reply)
        try:
            return _log_event(offset, message)
        except (KeyError, ValueError) as error:
            raise Corrupt(
                f"{self._stream}: message {offset} is no event ({error!r}): somebody else published"
                " to the stream; see docs/runbooks/projector.md"
            ) from error


def _log_event(offset: Offset, message: Msg) -> LogEvent:
    headers = message.headers or {}
    return LogEvent(
        offset,
        unquote(headers["ce-tenant"]),
        StreamId(unquote(headers["ce-stream"])),
        Version(int(headers["ce-streamversion"])),
        unquote(headers["ce-type"]),
        message.data,
        datetime.fromisoformat(unquote(headers["ce-time"])),
        headers.get("traceparent"),
        unquote(headers["ce-id"]),
        unquote(headers["ce-correlationid"]),
        unquote(caused) if (caused := headers.get("ce-causationid")) else None,
    )


def _sequence(reply: str) -> Offset:
    """Return the stream sequence that a delivered message's reply subject names.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.…`, or since NATS 2.15
    `$JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<stream seq>.…`.
    """
    tokens = reply.split(".")
    return Offset(int(tokens[5] if len(tokens) == 9 else tokens[7]))  # noqa: PLR2004 - see above
