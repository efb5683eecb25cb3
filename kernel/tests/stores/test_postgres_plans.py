"""What the server does with our statements: on a filled schema, and on one that grew from nothing.

A statement that reads a whole table works in every test and stops a service after a year.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from flotilla.embedded import PostgresServer
from flotilla.outbox import Offset
from flotilla.store import Committed, StreamId, Unit, stream_id
from flotilla.stores.postgres import PostgresStore
from flotilla.stores.postgres import store as statements
from flotilla.stores.postgres.connection import Connections
from flotilla.stores.postgres.rows import append_arrays, claim_arrays, event_arrays
from flotilla.stores.rounds import plan_rounds
from flotilla.testing.store import append, record

STREAMS, EVENTS_EACH = 20_000, 10
EVENTS = STREAMS * EVENTS_EACH
WAITING = 1_000
TABLES = ("event", "event_outbox", "aggregate", "idempotency")

FILL = f"""
insert into aggregate (stream, version)
select 'acme/thing/' || n, {EVENTS_EACH} from generate_series(1, {STREAMS}) n;

insert into event (stream, version, event_id, type, payload, metadata)
select 'acme/thing/' || n, v, gen_random_uuid(), 'thing.happened.v1', '{{"by": 1}}', '{{}}'
from generate_series(1, {EVENTS_EACH}) v, generate_series(1, {STREAMS}) n;

insert into event_outbox (stream, version, log, "offset")
select stream, version, 'thing', case when n <= {EVENTS - WAITING} then n end
from (select stream, version, row_number() over (order by version, stream) n from event) e
order by n;

insert into idempotency (tenant, scope, key, fingerprint, reply, expires_at)
select 'acme', 'thing', 'k' || n, 'f', 'r', now() + (n - {STREAMS}) * interval '1 second'
from generate_series(1, {EVENTS}) n;

analyze event, event_outbox, aggregate, idempotency;
"""


class Statement(NamedTuple):
    sql: str
    arguments: tuple[object, ...]


def commit_of(units_count: int) -> Statement:
    """Return the statement that commits so many units: one event and one claim each."""
    units = [
        Unit((append(StreamId(f"acme/thing/{n}"), EVENTS_EACH, "1"),), record(f"new-{n}"))
        for n in range(1, units_count + 1)
    ]
    [chains] = plan_rounds(units)
    arrays = (f(units, chains) for f in (append_arrays, claim_arrays, event_arrays))
    return Statement(statements._COMMIT, ("thing", *(a for some in arrays for a in some)))


KEYS = (["acme"] * 256, ["thing"] * 256, [f"k{n}" for n in range(256)])
A_THOUSAND = list(range(EVENTS - WAITING + 1, EVENTS + 1))
HOT = {
    "load": Statement(statements._LOAD, ([0], ["acme/thing/5"], [1], ["acme"], ["thing"], ["k1"])),
    "load of 256 streams": Statement(
        statements._LOAD,
        (list(range(256)), [f"acme/thing/{n}" for n in range(256)], [1] * 256, *KEYS),
    ),
    "read": Statement(statements._READ, ("acme/thing/5", 1, 1000)),
    "replies": Statement(statements._REPLIES, KEYS),
    "pending, a few": Statement(statements._PENDING, ("thing", 10)),
    "pending, a batch": Statement(statements._PENDING, ("thing", 1000)),
    "published, the first": Statement(statements._PUBLISHED, ("thing", 0, 1000)),
    "published, the last": Statement(statements._PUBLISHED, ("thing", EVENTS - WAITING - 9, 1000)),
    "events, a rebuild's batch": Statement(statements._EVENTS, ("thing", 0, 1000)),
    "events, the last": Statement(statements._EVENTS, ("thing", EVENTS - WAITING - 9, 1000)),
    "last offset": Statement(statements._LAST_OFFSET, ("thing",)),
    "status": Statement(statements._STATUS, ("thing",)),
    "find": Statement(
        statements._FIND, ("thing", [f"acme/thing/{n}" for n in range(1000)], [3] * 1000)
    ),
    "record": Statement(statements._RECORD, (A_THOUSAND, A_THOUSAND)),
    "forget, a few": Statement(statements._FORGET, (10,)),
    "forget, many": Statement(statements._FORGET, (10_000,)),
    "commit of 1": commit_of(1),
    "commit of 32": commit_of(32),
    "commit of 256": commit_of(256),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def filled(postgres_server: PostgresServer) -> str:
    """Fill a schema once; return its name."""
    schema = f"s{uuid4().hex[:12]}"
    async with (
        PostgresStore.open(postgres_server.dsn, service=schema) as store,
        store._connections.use() as connection,
    ):
        await connection.execute("set statement_timeout = 0")
        await connection.execute(FILL, timeout=60)
    return schema


@pytest.fixture
async def connection(
    postgres_server: PostgresServer, filled: str
) -> AsyncIterator[asyncpg.Connection]:
    """Return a connection that is set up as the store's are."""
    connections = Connections(postgres_server.dsn, schema=filled, size_max=1)
    async with connections.use() as connection:
        yield connection
    await connections.close()


async def plan_of(
    connection: asyncpg.Connection, statement: Statement, *, analyze: bool = False
) -> dict[str, Any]:
    """Return the plan that the server would take, prepared as the store prepares it."""
    options = "format json, analyze, buffers" if analyze else "format json"
    arguments = ", ".join(map(literal, statement.arguments))
    await connection.execute(f"prepare once as {statement.sql}")
    try:
        found = await connection.fetchval(f"explain ({options}) execute once({arguments})")
    finally:
        await connection.execute("deallocate once")
    plan: dict[str, Any] = json.loads(found)[0]["Plan"]
    return plan


def literal(value: object) -> str:
    """Return a value as SQL text, whose type the server makes out by itself."""
    if isinstance(value, list):
        return "'{" + ", ".join(map(element, value)) + "}'"
    return f"'{value}'"


def element(value: object) -> str:
    if isinstance(value, bytes):
        return f'"\\\\x{value.hex()}"'
    return "null" if value is None else json.dumps(str(value))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def reads_too_much(plan: dict[str, Any]) -> list[str]:
    """Return the steps that read a whole table, directly or through the whole of an index."""
    return [
        f"{node['Node Type']} on {node['Relation Name']}"
        for node in nodes(plan)
        if node.get("Relation Name") in TABLES and node["Node Type"] != "ModifyTable"
        if not {"Index Cond", "Recheck Cond", "TID Cond"} & set(node)
    ]


@pytest.mark.parametrize("name", HOT)
async def test_no_hot_statement_reads_a_whole_table(
    connection: asyncpg.Connection, name: str
) -> None:
    plan = await plan_of(connection, HOT[name])

    assert [] == reads_too_much(plan)
    assert any(n.get("Relation Name") in TABLES for n in nodes(plan))  # or nothing was checked


@pytest.mark.parametrize("name", ["pending, a few", "pending, a batch", "published, the first"])
async def test_the_order_of_a_log_comes_from_an_index(
    connection: asyncpg.Connection, name: str
) -> None:
    """A sort would read everything that waits before the first row is known."""
    plan = await plan_of(connection, HOT[name])

    assert "Sort" not in {node["Node Type"] for node in nodes(plan)}


async def pages(connection: asyncpg.Connection, statement: Statement) -> int:
    """Return how many pages a statement touches, wherever they are."""
    plan = await plan_of(connection, statement, analyze=True)
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def test_what_the_relay_reads_does_not_grow_with_the_ledger(
    connection: asyncpg.Connection, postgres_server: PostgresServer
) -> None:
    """The same thousand entries, behind a ledger of 199,000 and behind none."""
    async with PostgresStore.open(postgres_server.dsn, service=f"s{uuid4().hex[:12]}") as store:
        await commit(store, 1_000)
        async with store._connections.use() as young:
            mine = HOT["pending, a batch"]._replace(arguments=(store._log, 1000))
            without = await pages(young, mine)

    behind = await pages(connection, HOT["pending, a batch"])
    status = await pages(connection, HOT["status"])

    assert 0 < behind < 2 * without
    assert status < 2 * without


async def test_forgetting_a_few_does_not_read_all_that_expired(
    connection: asyncpg.Connection,
) -> None:
    """Or clearing a backlog would take longer the longer it is."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        few = await pages(connection, HOT["forget, a few"])
    finally:
        await transaction.rollback()

    assert 0 < few < STREAMS / 100


async def commit(store: PostgresStore, units_count: int, *, batch: int = 250) -> None:
    """Commit units of one event and one claim, in batches."""
    for start in range(0, units_count, batch):
        names = [uuid4().hex for _ in range(start, min(start + batch, units_count))]
        units = [Unit((append(stream_id("acme", "thing", n), 0, "1"),), record(n)) for n in names]
        assert [Committed()] * len(units) == list(await store.commit(units))


async def reads(connection: asyncpg.Connection) -> tuple[dict[str, int], dict[str, int]]:
    """Return, by table, how often the whole of it was read; by index, how many entries were read."""
    await connection.execute("select pg_stat_force_next_flush()")
    await connection.execute("select pg_stat_clear_snapshot()")
    tables = await connection.fetch(
        "select relname, seq_scan from pg_stat_user_tables"
        " where schemaname = current_schema() and relname = any($1)",
        list(TABLES),
    )
    indexes = await connection.fetch(
        "select indexrelname, idx_tup_read from pg_stat_user_indexes"
        " where schemaname = current_schema() and relname in ('aggregate', 'idempotency')"
    )
    return dict(map(tuple, tables)), dict(map(tuple, indexes))


async def test_a_store_that_grows_from_nothing_never_reads_a_whole_table(
    postgres_server: PostgresServer,
) -> None:
    """Plans are made while tables are empty and nobody has analysed them; the tables then grow."""
    async with PostgresStore.open(postgres_server.dsn, service=f"s{uuid4().hex[:12]}") as store:
        async with store._connections.use() as connection:
            before, _ = await reads(connection)
        await commit(store, 10, batch=1)
        await commit(store, 2_000)
        await commit(store, 10, batch=1)
        for _ in range(8):  # the relay's round; often enough for the server to settle on a plan
            waiting = await store.pending(limit=100)
            last = await store.last_offset()
            given = [(e.position, Offset(n)) for n, e in enumerate(waiting, start=last + 1)]
            await store.record(given)
            await store.published(after=last, limit=100)
            await store.find([(e.event.stream, e.event.version) for e in waiting])
            await store.load(waiting[0].event.stream, claims=[record("k").claim])
            await store.read(waiting[0].event.stream)
            await store.status()
            await store.forget_expired()

        async with store._connections.use() as connection:
            after, entries = await reads(connection)

    assert set(TABLES) == set(before)
    assert before == after
    assert sum(entries.values()) < 100, entries  # every stream and key was new
