"""What the projector is compared with: the plainest loop, `eventsourcing`'s runner, FastStream.

All fold the same events, increments of 10,000 counters, into a table of counters on the same server,
with their position in the same transaction.
"""

import asyncio
import json
from itertools import batched
from time import perf_counter
from typing import Any
from urllib.parse import unquote

import asyncpg
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage
from nats.js.api import ConsumerConfig, DeliverPolicy
from psycopg.sql import SQL, Identifier

from bench.measure import Sample
from bench.peers import Tallies, Tally, environment
from bench.servers import Servers
from flotilla.nats import connected
from flotilla_contracts.wire import event_stream, event_subjects

BATCH = 500
TIMEOUT_S = 120.0
LIBRARY_AGGREGATES = 500
LIBRARY_EVENTS_EACH = 20

_TABLES = """
create table counter_view (tenant text, counter_id text, value bigint, version bigint,
    primary key (tenant, counter_id));
create table checkpoint (log text primary key, "offset" bigint);
"""
_UPSERT = """
insert into counter_view values ($1, $2, $3, $4)
on conflict (tenant, counter_id) do update set value = excluded.value, version = excluded.version
"""
_MOVE = """
insert into checkpoint values ($1, $2) on conflict (log) do update set "offset" = excluded."offset"
"""


async def plain_loop(servers: Servers, database: str, log: str, events: int) -> Sample:
    """Fetch 500, one `executemany`, one transaction a batch: no gaps seen, nobody fenced."""
    view = await asyncpg.connect(await servers.database(database))
    try:
        await view.execute(_TABLES)
        async with connected(servers.nats_url, name="bench") as nats:
            js = nats.jetstream(timeout=TIMEOUT_S)
            config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, max_ack_pending=10 * BATCH)
            pull = await js.pull_subscribe(
                event_subjects(log), stream=event_stream(log), config=config
            )
            start, done = perf_counter(), 0
            while done < events:
                messages = await pull.fetch(BATCH, timeout=TIMEOUT_S)
                rows = []
                for message in messages:
                    headers: dict[str, Any] = message.headers or {}
                    value = json.loads(message.data)["value"]
                    counter = unquote(headers["ce-stream"]).rsplit("/", 1)[1]
                    rows.append(("acme", counter, value, int(headers["ce-streamversion"])))
                done += len(rows)
                async with view.transaction():
                    await view.executemany(_UPSERT, rows)
                    await view.execute(_MOVE, log, done)
                for message in messages:
                    await message.ack()
            elapsed_s = perf_counter() - start
            await pull.unsubscribe()
    finally:
        await view.close()
    return Sample(events / elapsed_s)


async def faststream(servers: Servers, database: str, log: str, events: int) -> Sample:
    """Let a FastStream handler fold one message a transaction."""
    pool = await asyncpg.create_pool(await servers.database(database), min_size=1, max_size=1)
    broker = NatsBroker(servers.nats_url, logger=None)
    ended = asyncio.Event()
    seen = 0

    @broker.subscriber(
        event_subjects(log),
        stream=JStream(event_stream(log), declare=False),
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.ACK,
    )
    async def fold(body: dict[str, Any], message: NatsMessage) -> None:
        nonlocal seen
        version = int(message.headers["ce-streamversion"])
        async with pool.acquire() as view, view.transaction():
            await view.execute(_UPSERT, "acme", body["counter_id"], body["value"], version)
            await view.execute(_MOVE, log, seen)
        seen += 1
        if seen >= events:
            ended.set()

    try:
        await pool.execute(_TABLES)
        start = perf_counter()
        async with broker:
            await broker.start()
            await asyncio.wait_for(ended.wait(), TIMEOUT_S)
            elapsed_s = perf_counter() - start
    finally:
        await pool.close()
    return Sample(seen / elapsed_s)


class TallyView(PostgresTrackingRecorder):
    """A table of tallies, in the manner of the library's documentation."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        schema = self.datastore.schema
        self.sql_create_statements.append(
            SQL("create table if not exists {}.tally (id uuid primary key, value bigint)").format(
                Identifier(schema)
            )
        )
        self._upsert = (
            f"insert into {schema}.tally as t values (%s, 1)"  # noqa: S608 - our own schema
            " on conflict (id) do update set value = t.value + 1"
        )

    def count(self, tally: object, tracking: Tracking) -> None:
        """Count one event, with its position."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(self._upsert, (tally,))


class CountTallies(Projection[TallyView]):
    """Counts what happened to each tally."""

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Count one event."""
        self.view.count(domain_event.originator_id, tracking)


async def eventsourcing(servers: Servers, database: str) -> Sample:
    """Let the library's projection runner catch up with events of its own."""
    await servers.database(database)
    env = environment(servers, database)

    def catch_up() -> float:
        app = Tallies(env)
        for numbers in batched(range(LIBRARY_AGGREGATES), 100):
            tallies = [Tally(number) for number in numbers]
            for tally in tallies:
                for _ in range(LIBRARY_EVENTS_EACH - 1):
                    tally.increment(1)
            app.save(*tallies)
        last = app.recorder.max_notification_id()
        app.close()
        start = perf_counter()
        with ProjectionRunner(
            application_class=Tallies,
            projection_class=CountTallies,
            view_class=TallyView,
            env=env,
        ) as runner:
            runner.wait(last, timeout=TIMEOUT_S)
            return perf_counter() - start

    elapsed_s = await asyncio.to_thread(catch_up)
    return Sample(LIBRARY_AGGREGATES * LIBRARY_EVENTS_EACH / elapsed_s)
