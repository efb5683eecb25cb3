"""The projector: how fast it catches up and rebuilds, how soon a commit is in the view."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter

from bench import latency, projection_peers
from bench.backlog import Ledger, make_backlog
from bench.figures import Figures
from bench.measure import Sample
from bench.ours import bindings
from bench.servers import Servers
from bench.suite import Samples, Tell, medians
from flotilla import LogEvent, SystemClock
from flotilla.background import Background
from flotilla.buses.local import LocalBus
from flotilla.nats import connected
from flotilla.rebuild import Rebuild, from_ledger
from flotilla.stores.postgres import PostgresStore, PostgresViews
from flotilla.stores.postgres.shadows import PostgresShadows
from svc_outbox_relay.main import compose as compose_relay
from svc_projector.counters import CounterView
from svc_projector.projector import BATCH_EVENTS_MAX, Projector
from svc_projector.running import keep_projecting

STREAMS = 10_000
EVENTS = 200_000
REBUILD_EVENTS = 1_000_000
FASTSTREAM_EVENTS = 5_000
TIMEOUT_S = 300.0
LOOK_S = 0.02
LATENCY_PER_S = 1_000
LOG = "counter"

NOTE = (
    "200,000 events of 10,000 counters on the stream, folded into the counter view; plain loop: "
    "fetch 500, executemany, one transaction a batch; eventsourcing: its projection runner on 10,000 "
    "events of its own; faststream: a handler with a transaction a message; rebuild: 1,000,000 events "
    "from the store, compared and swapped in"
)


def stretches(rounds: int) -> int:
    """Return how often `measure` tells what it does."""
    return 6 * rounds + 1


async def measure(servers: Servers, folder: Path, run: tuple[float, int], tell: Tell) -> Figures:
    """Measure everything, round after round; `run` is seconds of a stretch, and rounds."""
    del folder
    seconds, rounds = run
    samples: Samples = {}
    tell("projector: publishing 200,000 events")
    source = await publish(servers)
    ledger = await servers.database("ledger")
    await make_backlog(ledger, LOG, events=REBUILD_EVENTS, streams=STREAMS, published=True)
    for number in range(1, rounds + 1):
        work: dict[str, Callable[[], Awaitable[Sample]]] = {
            "catch_up": partial(catch_up, servers, source, f"ours{number}"),
            "plain_loop": partial(
                projection_peers.plain_loop, servers, f"plain{number}", LOG, EVENTS
            ),
            "eventsourcing": partial(projection_peers.eventsourcing, servers, f"library{number}"),
            "faststream": partial(
                projection_peers.faststream, servers, f"fs{number}", LOG, FASTSTREAM_EVENTS
            ),
            "rebuild": partial(rebuild, servers, ledger, f"rebuild{number}"),
            "commit_to_view": partial(commit_to_view, servers, f"latency{number}", seconds),
        }
        for name, stretch in work.items():
            tell(f"round {number}: projector {name}")
            samples.setdefault(name, []).append(await stretch())
    found = medians(samples)
    ours = found["catch_up"].per_s
    return {
        "projector.catch_up_per_s": ours,
        "projector.plain_loop_per_s": found["plain_loop"].per_s,
        "projector.ratio_to_plain_loop": ours / found["plain_loop"].per_s,
        "projector.eventsourcing_per_s": found["eventsourcing"].per_s,
        "projector.ratio_to_eventsourcing": ours / found["eventsourcing"].per_s,
        "projector.faststream_per_s": found["faststream"].per_s,
        "projector.ratio_to_faststream": ours / found["faststream"].per_s,
        "projector.rebuild_per_s": found["rebuild"].per_s,
        "projector.commit_to_view_per_s": found["commit_to_view"].per_s,
        "projector.commit_to_view_p50_ms": found["commit_to_view"].p50_ms,
        "projector.commit_to_view_p99_ms": found["commit_to_view"].p99_ms,
    }


async def publish(servers: Servers) -> str:
    """Bring 200,000 events onto the stream; return their store."""
    dsn = await servers.database("source")
    await make_backlog(dsn, LOG, events=EVENTS, streams=STREAMS)
    ledger = await Ledger.at(dsn, LOG)
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            compose_relay(bindings(LOG, dsn, servers.nats_url, LocalBus())),
        ):
            while await ledger.last_offset() < EVENTS:  # noqa: ASYNC110 - it is in the database
                await asyncio.sleep(LOOK_S)
    finally:
        await ledger.close()
    return dsn


async def catch_up(servers: Servers, source_dsn: str, database: str) -> Sample:
    """Fold the whole stream into a new view."""
    ended = asyncio.Event()
    view = CounterView()
    async with (
        PostgresViews.open(await servers.database(database), service="projector") as views,
        PostgresStore.open(source_dsn, service=LOG) as source,
        connected(servers.nats_url, name="bench") as nats,
    ):
        await views.migrate(view.name, view.tables)

        def applied(batch: object) -> None:
            del batch
            if projector.checkpoint.offset >= EVENTS:
                ended.set()

        projector = Projector(view, views, source, on_applied=applied)
        start = perf_counter()
        work = keep_projecting(projector, nats, BATCH_EVENTS_MAX, Background("bench"))
        folding = asyncio.create_task(work)
        await asyncio.wait_for(ended.wait(), TIMEOUT_S)
        elapsed_s = perf_counter() - start
        folding.cancel()
        with suppress(asyncio.CancelledError):
            await folding
    return Sample(EVENTS / elapsed_s)


async def rebuild(servers: Servers, ledger_dsn: str, database: str) -> Sample:
    """Make the view again from the store: built, compared with the live one, swapped in."""
    view = CounterView()
    async with (
        PostgresStore.open(ledger_dsn, service=LOG) as ledger,
        PostgresShadows.open(
            await servers.database(database),
            service="projector",
            projection=view,
            clock=SystemClock(),
        ) as places,
    ):
        await places.live.migrate(view.name, view.tables)
        start = perf_counter()
        done = await Rebuild(view, places, ledger, from_ledger(ledger)).run(swap=True)
        elapsed_s = perf_counter() - start
    if done.events != REBUILD_EVENTS:
        raise AssertionError(f"rebuilt {done.events} events of {REBUILD_EVENTS}")
    return Sample(done.events / elapsed_s)


async def commit_to_view(servers: Servers, name: str, seconds: float) -> Sample:
    """Commit on schedule; measure from the caller's answer until the view has the event."""
    log = f"{name}x{os.getpid()}"
    dsn = await servers.database(log)
    view = CounterView(log=log)  # the same view, of a log of this stretch's own
    async with (
        compose_relay(bindings(log, dsn, servers.nats_url, LocalBus())),
        latency.committing(dsn, log, servers.nats_url) as commits,
        PostgresViews.open(dsn, service="projector") as views,
        PostgresStore.open(dsn, service=log) as source,
        connected(servers.nats_url, name="bench") as nats,
    ):
        await views.migrate(view.name, view.tables)

        def applied(batch: Sequence[LogEvent]) -> None:
            for event in batch:
                commits.seen(event.stream, event.version)

        projector = Projector(view, views, source, on_applied=applied)
        work = keep_projecting(projector, nats, BATCH_EVENTS_MAX, Background("bench"))
        folding = asyncio.create_task(work)
        try:
            return await commits.run(per_s=LATENCY_PER_S, seconds=seconds)
        finally:
            folding.cancel()
            await asyncio.wait([folding])
