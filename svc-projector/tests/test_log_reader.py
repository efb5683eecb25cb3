"""Reading a log from a real broker: in order, at once, from anywhere, and never silently stuck."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from flotilla import Corrupt, LogEvent, Offset, Unavailable, uuid7
from flotilla.embedded import NatsServer, run_nats
from flotilla.nats import connected
from flotilla.outbox import START
from flotilla.testing import eventually
from flotilla_contracts import Envelope
from flotilla_contracts.wire import event_stream, event_subject, event_subjects
from svc_projector import log_reader, read_models
from svc_projector.log_reader import (
    HEARTBEAT_S,
    REQUEST_MESSAGES,
    SILENCE_MAX_S,
    LogReader,
    _sequence,
)
from svc_projector.read_models import read_stream

AT = datetime(2026, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TYPE = "thing.happened.v1"
_logs = count(1)


class Stream:
    """The log of a service, published with nothing but a NATS client."""

    def __init__(self, connection: Client, log: str) -> None:
        self.connection = connection
        self.js = connection.jetstream()
        self.log = log
        self.name = event_stream(log)
        self.last = 0

    async def create(self) -> None:
        await self.js.add_stream(name=self.name, subjects=[event_subjects(self.log)])

    async def publish(self, n: int = 1, *, tenant: str = "acme", payload: bytes = b"") -> None:
        """Publish the next `n` events; they are there when this returns."""
        for _ in range(n):
            self.last += 1
            envelope = Envelope(
                id=str(uuid7()),
                source=f"urn:flotilla:service:{self.log}",
                type=TYPE,
                time=AT,
                tenant=tenant,
                stream=f"{tenant}/thing/a",
                streamversion=self.last,
                schemaversion=1,
                correlationid="c-ü",
                causationid="request 1",
                traceparent=TRACE,
            )
            await self.connection.publish(
                event_subject(self.log, tenant, TYPE),
                payload or b'{"n": %d}' % self.last,
                headers=envelope.to_headers(),
            )
        await eventually(self._complete, what="all is published")

    async def _complete(self) -> bool:
        return (await self.js.stream_info(self.name)).state.last_seq == self.last

    def reader(self, batch_events_max: int = 500) -> LogReader:
        return LogReader(self.connection, self.log, batch_events_max=batch_events_max)

    async def consumer(self) -> str:
        """Return the name of the one consumer that reads, once it is asked for messages."""

        async def asked() -> str | None:
            return next(
                (c.name for c in await self.js.consumers_info(self.name) if c.num_waiting), None
            )

        return await eventually(asked, what="a reader has a request open")


@pytest.fixture
async def stream(nats_server: NatsServer) -> AsyncIterator[Stream]:
    async with connected(nats_server.url, name="test") as connection:
        stream = Stream(connection, f"thing-{next(_logs)}")
        await stream.create()
        yield stream
        await stream.js.delete_stream(stream.name)


async def take(reader: LogReader, events: int, *, after: int = 0) -> list[LogEvent]:
    """Read until there are as many; more would be a surprise."""
    taken: list[LogEvent] = []
    async with asyncio.timeout(30), aclosing(reader.batches(after=Offset(after))) as batches:
        async for batch in batches:
            # an empty batch is a sign of life
            taken += batch
            if len(taken) >= events:
                break
    return taken


def offsets(events: list[LogEvent]) -> list[int]:
    return [event.offset for event in events]


@pytest.mark.parametrize("after", [0, 1, 6, 9])
async def test_it_reads_from_any_offset(stream: Stream, after: int) -> None:
    await stream.publish(10)

    events = await take(stream.reader(), 10 - after, after=after)

    assert list(range(after + 1, 11)) == offsets(events) == [e.version for e in events]


async def test_it_waits_at_an_offset_that_is_not_there_yet(stream: Stream) -> None:
    await stream.publish(2)
    reading = asyncio.create_task(take(stream.reader(), 1, after=4))
    await stream.consumer()

    await stream.publish(4)

    assert 5 == offsets(await reading)[0]


async def test_a_stream_that_lost_its_beginning_is_read_from_where_it_begins(
    stream: Stream,
) -> None:
    await stream.publish(10)
    await stream.js.purge_stream(stream.name, seq=7)

    assert [7, 8, 9, 10] == offsets(await take(stream.reader(), 4))


async def test_an_event_arrives_as_it_was_published(stream: Stream) -> None:
    await stream.publish(payload='{"n":  1.50, "é": "\\u00e9"}'.encode())

    [event] = await take(stream.reader(), 1)

    assert event == LogEvent(
        Offset(1),
        "acme",
        event.stream,
        event.version,
        TYPE,
        '{"n":  1.50, "é": "\\u00e9"}'.encode(),
        AT,
        TRACE,
        event.event_id,
        "c-ü",
        "request 1",
    )
    assert ("acme/thing/a", 1) == (event.stream, event.version)


@pytest.mark.parametrize(
    "tenant",
    ["größe", "a b", "100%25", "%2F", "a.b.>", "*", "a\r\nce-tenant: b", "🚢", '"q"', "\t"],
)
async def test_a_hostile_tenant_is_itself_again(stream: Stream, tenant: str) -> None:
    await stream.publish(tenant=tenant)

    [event] = await take(stream.reader(), 1)

    assert (tenant, f"{tenant}/thing/a") == (event.tenant, event.stream)


async def test_a_lone_event_is_there_at_once(stream: Stream) -> None:
    """Not when a batch is full, a request runs out or a heartbeat passes by."""
    loop = asyncio.get_running_loop()
    reading = asyncio.create_task(take(stream.reader(), 1))
    await stream.consumer()

    started_s = loop.time()
    await stream.publish()
    assert [1] == offsets(await reading)

    assert loop.time() - started_s < HEARTBEAT_S / 2


async def test_five_thousand_come_in_order_without_gap_or_duplicate(stream: Stream) -> None:
    await stream.publish(5000)

    events = await take(stream.reader(), 5000)

    assert list(range(1, 5001)) == offsets(events) == [e.version for e in events]


async def test_batches_are_as_large_as_allowed_and_no_larger(stream: Stream) -> None:
    await stream.publish(100)
    sizes: list[int] = []

    async with asyncio.timeout(30), aclosing(stream.reader(7).batches(after=START)) as batches:
        async for batch in batches:
            sizes.append(len(batch))
            if sum(sizes) == 100:
                break

    assert 7 == max(sizes)


async def test_requests_are_topped_up_before_they_are_used_up(stream: Stream) -> None:
    """The broker always has one open: a backlog flows, and what comes next is delivered at once."""
    await stream.publish(3 * REQUEST_MESSAGES)
    reader = stream.reader(100)
    seen = 0
    async with asyncio.timeout(30), aclosing(reader.batches(after=START)) as batches:
        async for batch in batches:
            seen += len(batch)
            assert REQUEST_MESSAGES * 3 // 2 >= reader._requested > 0
            if seen == 3 * REQUEST_MESSAGES:
                break
        await stream.publish()
        while not (batch := await anext(batches)):
            pass
        assert [3 * REQUEST_MESSAGES + 1] == offsets(batch)


async def test_a_request_that_ran_out_is_made_again(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "REQUEST_EXPIRES_S", 0.3)
    monkeypatch.setattr(log_reader, "HEARTBEAT_S", 0.1)
    requests: list[Msg] = []

    async def asked(message: Msg) -> None:
        requests.append(message)

    await stream.connection.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{stream.name}.>", cb=asked)
    await stream.publish(3)
    reading = asyncio.create_task(take(stream.reader(), 4))

    async def several() -> bool:
        return len(requests) >= 4

    await eventually(several, what="requests ran out and were made again")
    [consumer] = await stream.js.consumers_info(stream.name)
    assert (consumer.num_waiting or 0) <= 2, "requests pile up"
    await stream.publish()
    assert [1, 2, 3, 4] == offsets(await reading)


async def test_a_quiet_stream_is_no_silent_broker(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats say that somebody is there, and whoever reads is told so."""
    monkeypatch.setattr(log_reader, "SILENCE_MAX_S", 2 * HEARTBEAT_S)

    async with asyncio.timeout(30), aclosing(stream.reader().batches(after=START)) as batches:
        assert [[], [], []] == [await anext(batches) for _ in range(3)]
        await stream.publish()
        while not (batch := await anext(batches)):
            pass

    assert [1] == offsets(batch)


async def test_it_leaves_no_consumer_behind(stream: Stream) -> None:
    await stream.publish(1)

    await take(stream.reader(), 1)

    assert [] == await stream.js.consumers_info(stream.name)


async def test_two_readers_get_everything_each(stream: Stream) -> None:
    await stream.publish(50)

    both = await asyncio.gather(take(stream.reader(3), 50), take(stream.reader(), 50))

    assert [list(range(1, 51))] * 2 == [offsets(events) for events in both]


# What goes wrong.


async def test_a_stream_that_is_not_there_is_unavailable(nats_server: NatsServer) -> None:
    async with connected(nats_server.url, name="test") as connection:
        with pytest.raises(Unavailable, match="EVT_NOWHERE: cannot read"):
            await take(LogReader(connection, "nowhere", batch_events_max=5), 1)


async def test_a_consumer_that_is_deleted_under_it_is_unavailable(stream: Stream) -> None:
    await stream.publish(1)
    reading = asyncio.create_task(take(stream.reader(), 2))
    await stream.js.delete_consumer(stream.name, await stream.consumer())

    with pytest.raises(Unavailable, match=r"409 .*[Dd]eleted"):
        await reading


async def test_a_stream_that_is_deleted_under_it_is_unavailable(stream: Stream) -> None:
    reading = asyncio.create_task(take(stream.reader(), 1))
    await stream.consumer()
    await stream.js.delete_stream(stream.name)

    with pytest.raises(Unavailable):
        await reading
    await stream.create()


async def test_a_closed_connection_is_unavailable(nats_server: NatsServer) -> None:
    async with connected(nats_server.url, name="test") as connection:
        pass

    with pytest.raises(Unavailable):
        await take(LogReader(connection, "thing", batch_events_max=5), 1)


async def test_a_connection_that_is_closed_under_it_is_unavailable(
    nats_server: NatsServer, stream: Stream
) -> None:
    await stream.publish(REQUEST_MESSAGES)
    async with connected(nats_server.url, name="test") as connection:
        reader = LogReader(connection, stream.log, batch_events_max=REQUEST_MESSAGES)
        async with aclosing(reader.batches(after=START)) as batches:
            await anext(batches)
            await connection.close()
            with pytest.raises(Unavailable):
                while True:
                    await anext(batches)


async def test_something_on_the_stream_that_is_no_event_is_corrupt(stream: Stream) -> None:
    await stream.publish(1)
    await stream.js.publish(event_subject(stream.log, "acme", TYPE), b"hello")

    with pytest.raises(Corrupt, match=f"{stream.name}: message 2"):
        await take(stream.reader(1), 2)


@pytest.mark.parametrize("comes_back", ["by itself", "after a while"])
async def test_a_killed_broker_is_noticed_and_a_new_reader_goes_on(
    tmp_path: Path, comes_back: str
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        run_nats(tmp_path, supervise=comes_back == "by itself") as server,
        connected(server.url, name="test") as connection,
    ):
        stream = Stream(connection, "thing")
        await stream.create()
        await stream.publish(5)
        reader, seen = stream.reader(), list[LogEvent]()
        async with aclosing(reader.batches(after=START)) as batches:
            while len(seen) < 5:
                seen += await anext(batches)

            await server.kill()
            killed_s = loop.time()
            with pytest.raises(Unavailable):
                while True:
                    seen += await anext(batches)
            assert loop.time() - killed_s < SILENCE_MAX_S + 2.0
        await server.start()

        async def publish() -> bool:
            await stream.publish(3)
            return True

        await eventually(publish)

        async def read() -> list[LogEvent]:
            try:
                return await take(stream.reader(), 3, after=seen[-1].offset)
            except Unavailable:
                return []

        assert [6, 7, 8] == offsets(await eventually(read))
        assert [1, 2, 3, 4, 5] == offsets(seen)


# The reply subject of a delivery names its sequence.


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.EVT_THING.c1.1.4711.3.1700000000000000000.0",
        "$JS.ACK._.ACC0UNT.EVT_THING.c1.1.4711.3.1700000000000000000.0",
        "$JS.ACK.hub.ACC0UNT.EVT_THING.c1.1.4711.3.1700000000000000000.0.r4nd0m",
    ],
    ids=["before 2.15", "since 2.15", "with a token more"],
)
def test_the_sequence_is_found_in_every_form_of_reply_subject(reply: str) -> None:
    assert 4711 == _sequence(reply)


# The same log, bounded: what a rebuild reads with `--source stream`.


async def test_a_part_of_a_stream_is_read_to_its_end_and_no_further(
    stream: Stream, nats_server: NatsServer
) -> None:
    await stream.publish(10)
    read = read_stream(nats_server.url, stream.log)

    async with asyncio.timeout(30), aclosing(read(Offset(2), Offset(7))) as batches:
        events = [event async for batch in batches for event in batch]

    assert [3, 4, 5, 6, 7] == offsets(events)


async def test_a_stream_that_ends_too_early_is_not_waited_for_for_ever(
    stream: Stream, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_models, "QUIET_BATCHES_MAX", 0)
    await stream.publish(3)
    read = read_stream(nats_server.url, stream.log)

    seen: list[LogEvent] = []
    with pytest.raises(Unavailable, match="does not go on after offset 3: --source store"):
        async with asyncio.timeout(30), aclosing(read(START, Offset(5))) as batches:
            async for batch in batches:
                seen += batch

    assert [1, 2, 3] == offsets(seen)
