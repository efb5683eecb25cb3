"""The relay: how fast it drains a backlog, how soon a commit is on the stream, what idling costs."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter

from nats.js.api import StreamConfig

from bench import latency
from bench.backlog import Ledger, make_backlog
from bench.figures import Figures
from bench.measure import Sample
from bench.ours import bindings
from bench.servers import Servers, announced
from bench.suite import Samples, Tell, medians
from flotilla import Offset
from flotilla.buses.local import LocalBus
from flotilla.embedded import run_nats
from flotilla.nats import connected
from flotilla.stores.postgres import PostgresStore
from flotilla_contracts.wire import event_stream, event_subjects
from svc_outbox_relay.cloud_event import cloud_events
from svc_outbox_relay.jetstream import JetStreamLog
from svc_outbox_relay.log_stream import Message
from svc_outbox_relay.main import compose

BATCH = 1000
STREAMS = 10_000
BACKLOG = 200_000
STRICT_BACKLOG = 50_000
ASYNC_MESSAGES = 20_000
WINDOW = 1_000
DRAIN_TIMEOUT_S = 300.0
LOOK_S = 0.02
LATENCY_PER_S = 1_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

NOTE = (
    "backlog: 200,000 committed events without an offset; drained by svc-outbox-relay's composition "
    "root; bare: the same messages, made before, published as atomic batches of 1,000; strict: "
    "nats-server with `sync_interval: always`"
)


def stretches(rounds: int) -> int:
    """Return how often `measure` tells what it does."""
    return 5 * rounds + 1


@dataclass(frozen=True, slots=True)
class World:
    """Servers, and names for logs that nobody has used."""

    servers: Servers
    strict_url: str
    numbers: "count[int]"

    async def log(self, *, events: int) -> tuple[str, str]:
        """Return a new log with a backlog, and its store."""
        log = f"bench{next(self.numbers)}"
        dsn = await self.servers.database(log)
        await make_backlog(dsn, log, events=events, streams=STREAMS)
        return log, dsn


async def measure(servers: Servers, folder: Path, run: tuple[float, int], tell: Tell) -> Figures:
    """Measure everything, round after round; `run` is seconds of a stretch, and rounds."""
    seconds, rounds = run
    samples: Samples = {}
    async with run_nats(folder / "strict", sync_always=True) as strict:
        world = World(servers, strict.url, count())
        url = servers.nats_url
        for number in range(1, rounds + 1):
            work: dict[str, Callable[[], Awaitable[Sample]]] = {
                "drain": partial(drain, world, url, BACKLOG),
                "bare_publish": partial(bare_publish, world, url, BACKLOG),
                "strict_drain": partial(drain, world, strict.url, STRICT_BACKLOG),
                "strict_publish_async": partial(publish_async, world, strict.url),
                "commit_to_stream": partial(commit_to_stream, world, seconds),
            }
            for name, stretch in work.items():
                tell(f"round {number}: relay {name}")
                samples.setdefault(name, []).append(await stretch())
        tell("relay idle")
        cpu_share, queries_per_s = await idle(world, max(10.0, seconds))
    found = medians(samples)
    drained, strictly = found["drain"].per_s, found["strict_drain"].per_s
    return {
        "relay.drain_per_s": drained,
        "relay.bare_publish_per_s": found["bare_publish"].per_s,
        "relay.ratio_to_bare_publish": drained / found["bare_publish"].per_s,
        "relay.strict_drain_per_s": strictly,
        "relay.strict_ratio_to_own": strictly / drained,
        "relay.strict_publish_async_per_s": found["strict_publish_async"].per_s,
        "relay.strict_ratio_to_publish_async": strictly / found["strict_publish_async"].per_s,
        "relay.commit_to_stream_per_s": found["commit_to_stream"].per_s,
        "relay.commit_to_stream_p50_ms": found["commit_to_stream"].p50_ms,
        "relay.commit_to_stream_p99_ms": found["commit_to_stream"].p99_ms,
        "relay.idle_cpu_percent": cpu_share * 100,
        "relay.idle_queries_per_s": queries_per_s,
    }


async def drain(world: World, nats_url: str, events: int) -> Sample:
    """Let the relay publish a backlog; the clock runs from its start until the ledger is full."""
    log, dsn = await world.log(events=events)
    ledger = await Ledger.at(dsn, log)
    try:
        start = perf_counter()
        async with (
            asyncio.timeout(DRAIN_TIMEOUT_S),
            compose(bindings(log, dsn, nats_url, LocalBus())),
        ):
            while await ledger.last_offset() < events:  # noqa: ASYNC110 - it is in the database
                await asyncio.sleep(LOOK_S)
            elapsed_s = perf_counter() - start
    finally:
        await ledger.close()
        await forget(nats_url, log)
    return Sample(events / elapsed_s)


async def bare_publish(world: World, nats_url: str, events: int) -> Sample:
    """Publish the same messages, and do nothing else."""
    log, dsn = await world.log(events=events)
    async with PostgresStore.open(dsn, service=log) as store:
        entries = await store.pending(limit=events)
    message = cloud_events(log)
    batches: list[list[Message]] = [
        [message(entry) for entry in entries[first : first + BATCH]]
        for first in range(0, events, BATCH)
    ]
    async with connected(nats_url, name="bench") as nats:
        stream = JetStreamLog(nats, log)
        last = await stream.last_sequence()
        start = perf_counter()
        for batch in batches:
            await stream.publish(batch, after=last)
            last = Offset(last + len(batch))
        elapsed_s = perf_counter() - start
    await forget(nats_url, log)
    return Sample(events / elapsed_s)


async def publish_async(world: World, nats_url: str) -> Sample:
    """Publish with nats-py's own window of acknowledgements: what one does without atomic batches."""
    log = f"bench{next(world.numbers)}"
    payload = b'{"counter_id":"c1234","by":1,"value":5}'
    headers = {"ce-type": "counter.incremented.v1", "ce-id": "x" * 36, "ce-source": "bench"}
    subject = event_subjects(log).replace(">", "acme.counter.incremented.v1")
    async with connected(nats_url, name="bench") as nats:
        js = nats.jetstream(publish_async_max_pending=WINDOW)
        await js.add_stream(StreamConfig(name=event_stream(log), subjects=[event_subjects(log)]))
        start = perf_counter()
        for _ in range(ASYNC_MESSAGES):
            await js.publish_async(subject, payload, headers=dict(headers), wait_stall=30)
        await asyncio.wait_for(js.publish_async_completed(), DRAIN_TIMEOUT_S)
        elapsed_s = perf_counter() - start
        await js.delete_stream(event_stream(log))
    return Sample(ASYNC_MESSAGES / elapsed_s)


async def commit_to_stream(world: World, seconds: float) -> Sample:
    """Commit on schedule; measure from the caller's answer to the message's arrival."""
    log = f"bench{next(world.numbers)}"
    dsn = await world.servers.database(log)
    async with (
        compose(bindings(log, dsn, world.servers.nats_url, LocalBus())),
        latency.committing(dsn, log, world.servers.nats_url) as commits,
        latency.arrivals(world.servers.nats_url, log, commits.seen),
    ):
        return await commits.run(per_s=LATENCY_PER_S, seconds=seconds)


async def idle(world: World, seconds: float) -> tuple[float, float]:
    """Return the share of one processor and the queries a second of a relay that waits."""
    log, dsn = await world.log(events=0)
    async with announced("bench.idle_relay", log, dsn, world.servers.nats_url) as (_, pid):
        ledger = await Ledger.at(world.servers.dsn, "public")
        await asyncio.sleep(3)  # connected, and its pauses grown to their longest
        cpu, queries, start = _cpu_s(pid), await ledger.transactions(log), perf_counter()
        await asyncio.sleep(seconds)
        elapsed_s = perf_counter() - start
        cpu, queries = _cpu_s(pid) - cpu, await ledger.transactions(log) - queries
        await ledger.close()
    return cpu / elapsed_s, queries / elapsed_s


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


async def forget(nats_url: str, log: str) -> None:
    """Delete the stream of `log`: its disk space is the next one's."""
    async with connected(nats_url, name="bench") as nats:
        await nats.jetstream().delete_stream(event_stream(log))
