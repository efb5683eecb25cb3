"""What we compare with, on the same server: pgbench, a plain transaction, and `eventsourcing`.

pgbench is the reference: the best single statement we know that writes the same rows (event,
aggregate, idempotency, outbox), prepared, sent by a C program that decides nothing. The plain
transaction is what a careful service without a framework does. `eventsourcing` does less than the
others: it keeps no idempotency record, and its outbox is its own notification log.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import batched, count
from pathlib import Path
from random import Random
from time import perf_counter
from typing import ClassVar
from uuid import NAMESPACE_URL, UUID, uuid5

import asyncpg
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError

from bench.measure import MANY_STREAMS, Ask, Load, Sample
from bench.servers import Servers, socket_of
from flotilla import uuid7
from flotilla.embedded.postgres import _find_binaries  # there is no public name for it yet

SNAPSHOT_EVERY_EVENTS = 100
CALLERS_MAX = 32

SCHEMA = """
create table event (
    stream text collate "C", version bigint, event_id uuid not null, type text not null,
    payload json not null, metadata json not null, recorded_at timestamptz default now(),
    primary key (stream, version));
create table aggregate (
    stream text collate "C" primary key, version bigint not null) with (fillfactor = 80);
create table outbox (
    position bigint generated always as identity primary key, stream text collate "C",
    version bigint, log text collate "C", "offset" bigint, unique (stream, version));
create index on outbox (log, position) where "offset" is null;
create table idempotency (
    tenant text collate "C", scope text collate "C", key text collate "C", fingerprint bytea,
    reply bytea, expires_at timestamptz, primary key (tenant, scope, key));
create index on idempotency (expires_at);
insert into aggregate select 'acme/counter/c' || n, 1 from generate_series(0, {streams} - 1) n;
analyze aggregate;
"""

PGBENCH = """
\\set n random(0, :streams - 1)
with a as (
    update aggregate set version = version + 1 where stream = 'acme/counter/c' || :n
    returning stream, version),
i as (
    insert into idempotency values (
        'acme', 'counter', gen_random_uuid()::text,
        '\\x6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b',
        '{"counter_id":"c1234","value":5,"version":2}', now() + interval '1 day')),
e as (
    insert into event (stream, version, event_id, type, payload, metadata)
    select stream, version, gen_random_uuid(), 'counter.incremented.v1',
        '{"counter_id":"c1234","by":5,"value":5}', '{"correlation":"bench"}' from a)
insert into outbox (stream, version, log) select stream, version, 'counter' from a;
"""


@asynccontextmanager
async def reference_tables(servers: Servers, name: str) -> AsyncIterator[str]:
    """Make a database with the tables of the reference; yield its DSN."""
    dsn = await servers.database(name)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(SCHEMA.format(streams=MANY_STREAMS))
    finally:
        await connection.close()
    yield dsn


class PgbenchError(Exception):
    """pgbench did not say how fast it was."""


@dataclass(frozen=True, slots=True)
class Pgbench:
    """The reference: the statement above from `callers` clients of one thread."""

    dsn: str
    script: Path

    async def run(self, load: Load, seconds: float) -> Sample:
        """Return its rate.

        Raises:
            PgbenchError: it failed.

        """
        process = await asyncio.create_subprocess_exec(
            _find_binaries() / "pgbench",
            *("-n", "-M", "prepared", "-j", "1", "-c", str(load.callers)),
            *("-T", str(max(1, round(seconds))), "-D", f"streams={load.streams}"),
            *("-f", self.script, self.dsn),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        found = re.search(rb"tps = ([\d.]+)", output)
        if process.returncode or not found:
            raise PgbenchError(errors.decode(errors="replace")[-2000:])
        return Sample(float(found[1]))


@asynccontextmanager
async def pgbench(servers: Servers, folder: Path) -> AsyncIterator[Pgbench]:
    """Yield the reference."""
    script = folder / "pgbench.sql"
    script.write_text(PGBENCH)
    async with reference_tables(servers, "pgbench") as dsn:
        yield Pgbench(dsn, script)


@asynccontextmanager
async def plain(servers: Servers) -> AsyncIterator[list[Ask]]:
    """Yield callers that each own a connection and run five statements in a transaction."""
    keys = count()

    async def ask(connection: asyncpg.Connection, number: int) -> None:
        stream, key = f"acme/counter/c{number}", f"k{next(keys)}"
        async with connection.transaction():
            version = await connection.fetchval(
                "select version from aggregate where stream = $1 for update", stream
            )
            await connection.execute(
                "insert into idempotency values"
                " ('acme', 'counter', $1, $2, $3, now() + interval '1 day')",
                *(key, b"0" * 32, b'{"counter_id":"c1234","value":5,"version":2}'),
            )
            await connection.execute(
                "update aggregate set version = $2 + 1 where stream = $1 and version = $2",
                *(stream, version),
            )
            await connection.execute(
                "insert into event (stream, version, event_id, type, payload, metadata)"
                " values ($1, $2, $3, 'counter.incremented.v1', $4, $5)",
                *(stream, version + 1, uuid7()),
                *('{"counter_id":"c1234","by":5,"value":5}', '{"correlation":"bench"}'),
            )
            await connection.execute(
                "insert into outbox (stream, version, log) values ($1, $2, 'counter')",
                *(stream, version + 1),
            )

    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(reference_tables(servers, "plain"))
        connections = [await asyncpg.connect(dsn) for _ in range(CALLERS_MAX)]
        for connection in connections:
            stack.push_async_callback(connection.close)
        yield [partial(ask, connection) for connection in connections]


@asynccontextmanager
async def bare(servers: Servers) -> AsyncIterator[Ask]:
    """Yield a bare round trip and a bare fsync: a `select`, and a commit of one row."""
    connection = await asyncpg.connect(await servers.database("bare"))
    try:
        await connection.execute("create table tick (n bigint); insert into tick values (0)")

        async def ask(_: int) -> None:
            await connection.fetchval("select 1")
            await connection.execute("update tick set n = n + 1")

        yield ask
    finally:
        await connection.close()


class Tally(Aggregate):
    """A counter in the manner of `eventsourcing`: one event a command."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.value = 0

    @staticmethod
    def create_id(number: int) -> UUID:
        """Return the id of this number's counter."""
        return uuid5(NAMESPACE_URL, f"/tally/{number}")

    @event("Incremented")
    def increment(self, by: int) -> None:
        """Count up."""
        self.value += by


class Tallies(Application[UUID]):
    """The application, with snapshots as often as ours."""

    snapshotting_intervals: ClassVar = {Tally: SNAPSHOT_EVERY_EVENTS}

    def increment(self, number: int) -> None:
        """Load, decide, append; again when somebody was faster."""
        while True:
            tally: Tally = self.repository.get(Tally.create_id(number))
            tally.increment(1)
            try:
                self.save(tally)
            except IntegrityError:
                continue
            return


@dataclass(frozen=True, slots=True)
class Eventsourcing:
    """The library on its Postgres recorder, `callers` threads."""

    app: Tallies

    async def run(self, load: Load, seconds: float) -> Sample:
        """Return its rate."""
        start = perf_counter()
        work = (
            asyncio.to_thread(self._caller, n, load, start + seconds) for n in range(load.callers)
        )
        commands = sum(await asyncio.gather(*work))
        return Sample(commands / (perf_counter() - start))

    def _caller(self, number: int, load: Load, end: float) -> int:
        chance = Random(number)  # noqa: S311 - which aggregate, not a secret
        commands = 0
        while perf_counter() < end:
            self.app.increment(chance.randrange(load.streams))
            commands += 1
        return commands


def environment(servers: Servers, database: str) -> dict[str, str]:
    """Return the library's settings for a database of this server."""
    host, port = socket_of(servers.dsn)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": database,
        "POSTGRES_HOST": host,
        "POSTGRES_PORT": port,
        "POSTGRES_USER": "flotilla",
        "POSTGRES_PASSWORD": "unused",
        "POSTGRES_POOL_SIZE": str(CALLERS_MAX),
        "POSTGRES_MAX_OVERFLOW": "0",
        "POSTGRES_MAX_WAITING": str(CALLERS_MAX),
    }


@asynccontextmanager
async def eventsourcing(servers: Servers, *, tuned: bool) -> AsyncIterator[Eventsourcing]:
    """Yield the library, as it comes or with the settings of its documentation that help it."""
    name = "eventsourcing_tuned" if tuned else "eventsourcing"
    await servers.database(name)
    env = environment(servers, name)
    if tuned:
        env |= {"AGGREGATE_CACHE_MAXSIZE": str(MANY_STREAMS), "POSTGRES_ENABLE_DB_FUNCTIONS": "y"}
    app = await asyncio.to_thread(Tallies, env)
    try:
        for numbers in batched(range(MANY_STREAMS), 500):
            await asyncio.to_thread(app.save, *map(Tally, numbers))
        yield Eventsourcing(app)
    finally:
        await asyncio.to_thread(app.close)
