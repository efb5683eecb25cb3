"""Services small enough to see through, each with one habit. Imported by fleets under test."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from flotilla.bus import Answer, Context, Request
from flotilla.embedded import EmbeddedError
from flotilla.errors import Unavailable
from flotilla.heartbeat import Heartbeat, beat
from flotilla.keys import Erasure
from flotilla.outbox import START, LogEvent, Offset, as_log_event
from flotilla.parking import Parking
from flotilla.projection import Checkpoint, Fenced, Projection, ViewSession, ViewStore
from flotilla.rebuild import ReadModels, Source
from flotilla.service import Bindings, Compose, Health, Running
from flotilla.store import EMPTY, Append, NewEvent, StreamId, Unit, Version, stream_id
from flotilla.stores import ServiceStore, open_leases, open_store, open_vault, open_views
from flotilla_contracts.parked import RetriedReply, RetryParked, retry_subject
from flotilla_contracts.wire import relay_lease


async def _healthy() -> Health:
    return Health()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Answer `qry.tiny.say`, and do nothing else."""

    async def say(request: Request) -> Answer:
        return Answer(request.body)

    await bindings.bus.serve("qry.tiny.say", say)
    yield Running("tiny", _healthy)


@asynccontextmanager
async def seals(bindings: Bindings) -> AsyncIterator[Running]:
    """Seal what it is told on `cmd.seals.seal`, and open it on `qry.seals.open`."""
    assert bindings.keys is not None

    async def nothing_erased() -> AsyncIterator[Erasure]:
        for erasure in list[Erasure]():
            yield erasure

    async with open_vault(bindings.keys, clock=bindings.clock, erasures=nothing_erased()) as vault:

        async def seal(request: Request) -> Answer:
            return Answer((await vault.seal("acme", "ada", request.body.decode())).encode())

        async def unseal(request: Request) -> Answer:
            return Answer(str(await vault.open("acme", request.body.decode())).encode())

        await bindings.bus.serve("cmd.seals.seal", seal)
        await bindings.bus.serve("qry.seals.open", unseal)
        yield Running("seals", _healthy)


@asynccontextmanager
async def listens(bindings: Bindings) -> AsyncIterator[Running]:
    """Answer every HTTP request with its own name."""
    assert bindings.http is not None

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntiny")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, bindings.http.host, bindings.http.port)
    port = server.sockets[0].getsockname()[1]
    _say("listening")
    try:
        yield Running("listens", _healthy, address=f"http://{bindings.http.host}:{port}")
    finally:
        server.close()


@asynccontextmanager
async def is_slow(bindings: Bindings) -> AsyncIterator[Running]:
    """Take a while to answer `cmd.slow.work`, and close what the work needs when stopping."""
    closed = False

    async def work(_request: Request) -> Answer:
        _say("working")
        await asyncio.sleep(0.5)
        if closed:
            raise Unavailable("what I need is closed")
        return Answer(b'"done"')

    await bindings.bus.serve("cmd.slow.work", work)
    yield Running("is-slow", _healthy)
    closed = True


@asynccontextmanager
async def asks(bindings: Bindings) -> AsyncIterator[Running]:
    """Ask `compose` above, wherever it runs, before it says that it runs."""
    request = Request("qry.tiny.say", b"{}", Context(tenant="t", correlation_id="c"))
    await bindings.bus.request(request)
    yield Running("asks", _healthy)


@asynccontextmanager
async def lacks_something(_bindings: Bindings) -> AsyncIterator[Running]:
    async def health() -> Health:
        return Health(missing=("a spanner",))

    yield Running("lacks-something", health)


@asynccontextmanager
async def ends_soon(_bindings: Bindings) -> AsyncIterator[Running]:
    """Serve, and break a moment later, every time."""

    async def work() -> None:
        await asyncio.sleep(0.05)
        raise ArithmeticError("broken again")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work())
        yield Running("ends-soon", _healthy)


@asynccontextmanager
async def checks_order(bindings: Bindings) -> AsyncIterator[Running]:
    """Ask `compose` above when starting and when stopping."""
    request = Request("qry.tiny.say", b"{}", Context(tenant="t", correlation_id="c"))
    await bindings.bus.request(request)
    yield Running("checks-order", _healthy)
    await bindings.bus.request(request)


@asynccontextmanager
async def fails_to_start(_bindings: Bindings) -> AsyncIterator[Running]:
    raise RuntimeError("no luck")
    yield Running("never", _healthy)


@asynccontextmanager
async def finds_port_taken(_bindings: Bindings) -> AsyncIterator[Running]:
    raise EmbeddedError("port-taken", "port 8080 on 127.0.0.1 is taken: choose another")
    yield Running("never", _healthy)


@asynccontextmanager
async def never_starts(_bindings: Bindings) -> AsyncIterator[Running]:
    _say("starting")
    await asyncio.Event().wait()
    yield Running("never", _healthy)


@asynccontextmanager
async def dies_later(bindings: Bindings) -> AsyncIterator[Running]:
    """Lose its background work when asked to (`cmd.dies.now`)."""
    asked = asyncio.Event()

    async def die(_request: Request) -> Answer:
        asked.set()
        return Answer(b"{}")

    async def work() -> None:
        await asked.wait()
        raise Unavailable("the work is gone")

    await bindings.bus.serve("cmd.dies.now", die)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work())
        yield Running("dies-later", _healthy)


@asynccontextmanager
async def will_not_stop(_bindings: Bindings) -> AsyncIterator[Running]:
    """Be deaf to cancellation, as a service with a bug is."""
    yield Running("will-not-stop", _healthy)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


@asynccontextmanager
async def takes_its_time(_bindings: Bindings) -> AsyncIterator[Running]:
    """Have work left for an hour, and take a cancellation for what it is."""
    yield Running("takes-its-time", _healthy)
    await asyncio.sleep(3600)


@asynccontextmanager
async def blocks_the_loop(_bindings: Bindings) -> AsyncIterator[Running]:
    yield Running("blocks-the-loop", _healthy)
    while True:
        time.sleep(0.1)


@asynccontextmanager
async def fails_to_stop(_bindings: Bindings) -> AsyncIterator[Running]:
    yield Running("fails-to-stop", _healthy)
    raise RuntimeError("stuck at the end")


def _event(number: int) -> NewEvent:
    return NewEvent(f"0197a000-0000-7000-8000-{number:012d}", "tiny.said.v1", "{}", {})


@asynccontextmanager
async def keeps(bindings: Bindings) -> AsyncIterator[Running]:
    """Commit five events; three of them have an offset, and somebody leads the log."""
    url = bindings.stores["keeps"]
    async with (
        open_store(url, service="keeps") as store,
        open_leases(url, service="keeps") as leases,
    ):
        await leases.acquire(relay_lease("keeps"), "tiny", ttl_s=3600)
        if (await store.status()).committed == 0:
            stream = stream_id("t", "tiny", "one")
            events = tuple(_event(number) for number in range(1, 6))
            await store.commit([Unit((Append(stream, EMPTY, events),))])
            pending = await store.pending(limit=3)
            await store.record([(e.position, Offset(i)) for i, e in enumerate(pending, start=1)])
        yield Running("keeps", _healthy)


@asynccontextmanager
async def relays(bindings: Bindings) -> AsyncIterator[Running]:
    """Give every event an offset, once: a relay that lives for a moment."""
    async with open_store(bindings.stores["keeps"], service="keeps") as store:
        last = await store.last_offset()
        pending = await store.pending(limit=100)
        await store.record([(e.position, Offset(last + i)) for i, e in enumerate(pending, start=1)])
    yield Running("relays", _healthy)


def folds_to(offset: int) -> Compose:
    @asynccontextmanager
    async def folds(bindings: Bindings) -> AsyncIterator[Running]:
        async with (
            open_store(bindings.stores["keeps"], service="keeps") as store,
            open_views(bindings.stores["folds"], service="folds") as views,
        ):
            last = (await store.published(after=Offset(offset - 1), limit=1))[0]
            at = Checkpoint(Offset(offset), last.event.recorded_at)
            nothing: Callable[[ViewSession], Awaitable[None]] = _nothing
            await views.advance("said", "keeps", (START, at), nothing)
            yield Running("folds", _healthy)

    return folds


async def _nothing(_view: ViewSession) -> None:
    return


folds_two = folds_to(2)
folds_all = folds_to(5)


@asynccontextmanager
async def folds_punctually(bindings: Bindings) -> AsyncIterator[Running]:
    """Promise to be a tenth of a second late at most, fold two events, and live on."""
    async with (
        folds_two(bindings) as running,
        open_views(bindings.stores["folds"], service="folds") as views,
    ):
        await beat(views, [Heartbeat("said", "keeps", 0.1, bindings.clock.now())])
        yield running


class SaidUnlessPoison:
    """Keeps what was said. The third event is poison, until there is a file `cured`."""

    name = "said"
    log = "keeps"
    staleness_budget_s = 5.0
    tables = ("create table said (at bigint primary key)",)

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        if any(event.offset == 3 for event in batch) and not Path("cured").exists():
            raise ValueError("cannot fold this")
        await view.execute_many(
            "insert into said (at) values ($1)", [(event.offset,) for event in batch]
        )


@asynccontextmanager
async def folds_poison(bindings: Bindings) -> AsyncIterator[Running]:
    """Fold a log with poison in it, and take orders about what is parked."""
    async with (
        open_store(bindings.stores["keeps"], service="keeps") as store,
        open_views(bindings.stores["folds"], service="folds") as views,
    ):
        await views.migrate(SaidUnlessPoison.name, SaidUnlessPoison.tables)
        parking = Parking(SaidUnlessPoison(), views)
        entries = await store.published(after=START, limit=100)
        async for _ in parking.fold(START, [as_log_event(entry) for entry in entries]):
            pass

        async def retry(request: Request) -> Answer:
            wanted = RetryParked.model_validate_json(request.body)
            events = await parking.retry(wanted.key)
            return Answer(RetriedReply(events=events).model_dump_json().encode())

        await bindings.bus.serve(retry_subject("folds"), retry)
        yield Running("folds", _healthy)


_STORY = (
    ("tiny.opened.v1", '{"name": "one"}'),
    ("tiny.moved.v1", '{"by": 5, "value": 5}'),
    ("tiny.moved.v1", '{"by": -2, "value": 3}'),
    ("never.heard.of.v9", '{"odd": "[red]\\u001b[31m", "deep": {"a": [1, null]}}'),
    ("tiny.moved.v1", '{"by": 9, "value": 12}'),
)


@asynccontextmanager
async def tells(bindings: Bindings) -> AsyncIterator[Running]:
    """Commit a story of five events, each a little later than the one before; none has an offset."""
    async with open_store(bindings.stores["keeps"], service="keeps") as store:
        stream = stream_id("t", "tiny", "one")
        for at, (kind, payload) in enumerate(_STORY):
            metadata = {"correlation": f"talk-{at}", "causation": "c"} if at else {}
            event = NewEvent(f"0197a000-0000-7000-8000-{at:012d}", kind, payload, metadata)
            await store.commit([Unit((Append(stream, Version(at), (event,)),))])
            await asyncio.sleep(0.02)
        long = stream_id("t", "tiny", "long")
        crowd = tuple(
            NewEvent(f"0197a000-0000-7000-8001-{at:012d}", "tiny.said.v1", "{}", {})
            for at in range(2500)
        )
        await store.commit([Unit((Append(long, EMPTY, crowd),))])
        yield Running("keeps", _healthy)


class Said:
    """Counts events by stream; folding one twice counts it twice."""

    name = "said"
    log = "keeps"
    staleness_budget_s = 5.0
    tables = ("create table said (stream text primary key, n bigint not null)",)
    pause_s = 0.0

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        await asyncio.sleep(self.pause_s)
        await view.execute_many(
            "insert into said (stream, n) values ($1, 1)"
            " on conflict (stream) do update set n = said.n + 1",
            [(event.stream,) for event in batch],
        )


class Seen(Said):
    """Keeps the last version of each stream: replayable."""

    name = "seen"
    replayable = True
    tables = ("create table seen (stream text primary key, n bigint not null)",)

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        await view.execute_many(
            "insert into seen (stream, n) values ($1, $2)"
            " on conflict (stream) do update set n = excluded.n",
            [(event.stream, event.version) for event in batch],
        )

    async def forget(self, view: ViewSession, _tenant: str, stream: StreamId | None) -> None:
        only = "" if stream is None else " and stream = $1"
        rows = [()] if stream is None else [(stream,)]
        await view.execute_many(f"delete from seen where true{only}", rows)


class Sulks(Said):
    """Never folds the third event."""

    name = "sulks"
    tables = ("create table sulks (stream text primary key, n bigint not null)",)

    async def apply(self, _view: ViewSession, batch: Sequence[LogEvent]) -> None:
        if any(event.offset == 3 for event in batch):
            raise ArithmeticError("not this one")


class Dawdles(Said):
    """Takes its time."""

    name = "dawdles"
    tables = Said.tables
    pause_s = 3600.0


def read_models() -> ReadModels:
    def no_stream(_url: str, log: str) -> Source:
        raise Unavailable(f"{log} has no stream here")

    return ReadModels((Said(), Seen(), Sulks(), Dawdles()), no_stream)


@asynccontextmanager
async def projects(bindings: Bindings) -> AsyncIterator[Running]:
    """Fold `said` and `seen`, as a projector does, for as long as it runs."""

    async def follow(views: ViewStore, store: ServiceStore, projection: Projection) -> None:
        while True:
            at = (await views.checkpoint(projection.name, "keeps")).offset
            batch = await store.events(after=at, limit=2)
            if not batch:
                await asyncio.sleep(0.02)
                continue
            end = Checkpoint(batch[-1].offset, batch[-1].recorded_at)
            with suppress(Fenced):
                await views.advance(
                    projection.name,
                    "keeps",
                    (at, end),
                    partial(_apply, projection, batch),
                )

    async with (
        open_store(bindings.stores["keeps"], service="keeps") as store,
        open_views(bindings.stores["folds"], service="folds") as views,
    ):
        tasks = []
        for projection in (Said(), Seen()):
            await views.migrate(projection.name, projection.tables)
            tasks.append(asyncio.create_task(follow(views, store, projection)))
        yield Running("folds", _healthy)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _apply(projection: Projection, batch: Sequence[LogEvent], view: ViewSession) -> None:
    await projection.apply(view, batch)
