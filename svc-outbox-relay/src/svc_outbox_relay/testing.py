"""A stream in this process, and what every stream of a log promises, as tests."""

from collections.abc import Sequence

import pytest

from flotilla import Corrupt, Offset, StreamId, Version
from flotilla.outbox import START
from svc_outbox_relay.cloud_event import cloud_events
from svc_outbox_relay.log_stream import LogStream, Message, PublishedMessage, WrongLastSequence

LOG = "thing"


class MemoryLogStream:
    """Keeps the promises of `LogStream` in a list. `first` is the sequence it starts at."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.batches: list[int] = []
        self.first = 1

    async def last_sequence(self) -> Offset:
        return Offset(self.first - 1 + len(self.messages))

    async def restart_at(self, first: Offset) -> None:
        if self.messages:
            raise Corrupt("it is not empty")
        self.first = first

    async def publish(self, messages: Sequence[Message], *, after: Offset) -> None:
        if after != await self.last_sequence():
            raise WrongLastSequence(f"expected {after}, it is {await self.last_sequence()}")
        self.messages += messages
        self.batches.append(len(messages))

    async def read(self, *, after: Offset, limit: int) -> Sequence[PublishedMessage]:
        skip = max(0, after + 1 - self.first)
        return [
            published(Offset(self.first + n), message)
            for n, message in enumerate(self.messages[skip : skip + limit], start=skip)
        ]


def published(offset: Offset, message: Message) -> PublishedMessage:
    lines = message.headers.decode().splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    if "ce-id" not in headers:
        return PublishedMessage(offset, None, None)
    event = (StreamId(headers["ce-stream"]), Version(int(headers["ce-streamversion"])))
    return PublishedMessage(offset, headers["ce-id"], event)


message_of = cloud_events(LOG)


def a_message(n: int) -> Message:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": f"id-{n}",
        "ce-source": "urn:flotilla:service:thing",
        "ce-type": "thing.happened.v1",
        "ce-time": "2026-01-01T00:00:00+00:00",
        "ce-tenant": "acme",
        "ce-stream": "acme/thing/a",
        "ce-streamversion": str(n),
        "ce-schemaversion": "1",
        "ce-correlationid": "c",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return Message("evt.thing.acme.thing.happened", lines.encode(), f'{{"n":{n}}}'.encode())


class LogStreamContract:
    """One subclass an adapter; one method a promise."""

    @pytest.fixture
    def stream(self) -> LogStream:
        raise NotImplementedError

    async def test_a_new_stream_is_at_the_start(self, stream: LogStream) -> None:
        assert START == await stream.last_sequence()
        assert [] == list(await stream.read(after=START, limit=10))

    @pytest.mark.parametrize("count", [1, 2, 1000])
    async def test_a_batch_gets_the_next_sequences(self, stream: LogStream, count: int) -> None:
        await stream.last_sequence()
        await stream.publish([a_message(n) for n in range(1, count + 1)], after=START)

        assert count == await stream.last_sequence()
        found = list(await stream.read(after=Offset(count - 1), limit=10))
        assert [(count, f"id-{count}", ("acme/thing/a", count))] == [
            (m.offset, m.event_id, m.event) for m in found
        ]

    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("wrong", [0, 1, 3, 99])
    async def test_a_batch_with_another_expectation_is_refused_whole(
        self, stream: LogStream, count: int, wrong: int
    ) -> None:
        await stream.last_sequence()
        await stream.publish([a_message(1), a_message(2)], after=START)

        with pytest.raises(WrongLastSequence):
            await stream.publish([a_message(n) for n in range(count)], after=Offset(wrong))

        assert 2 == await stream.last_sequence()

    async def test_messages_are_read_in_order_and_in_pages(self, stream: LogStream) -> None:
        await stream.last_sequence()
        await stream.publish([a_message(n) for n in range(1, 8)], after=START)

        pages = [
            [m.offset for m in await stream.read(after=Offset(after), limit=3)]
            for after in (0, 3, 6, 7)
        ]

        assert [[1, 2, 3], [4, 5, 6], [7], []] == pages

    async def test_an_empty_stream_can_start_later(self, stream: LogStream) -> None:
        await stream.last_sequence()
        await stream.restart_at(Offset(1001))

        await stream.publish([a_message(1), a_message(2)], after=Offset(1000))

        assert 1002 == await stream.last_sequence()
        assert [1001, 1002] == [m.offset for m in await stream.read(after=START, limit=9)]

    async def test_a_stream_with_messages_cannot_start_again(self, stream: LogStream) -> None:
        await stream.last_sequence()
        await stream.publish([a_message(1)], after=START)

        with pytest.raises(Corrupt):
            await stream.restart_at(Offset(1001))

        assert 1 == await stream.last_sequence()
