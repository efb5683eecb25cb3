"""What the server does with our statements: on a filled schema, and on one that grew from nothing.

A statement that reads a whole table works in every test and stops a service after a year.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from flotilla.embedded import PostgresServer
from flotilla.outbox import Offset
from flotilla.store import Committed, Snapshot, StreamId, Unit, Version, stream_id
from flotilla.stores.postgres import PostgresStore
from flotilla.stores.postgres import outbox as ledger
from flotilla.stores.postgres import store as statements
from flotilla.stores.postgres.connection import Connections
from flotilla.stores.postgres.isolation import of_tenants
from flotilla.stores.postgres.rows import documents
from flotilla.stores.rounds import plan_rounds
from flotilla.testing.store import append, record

STREAMS, EVENTS_EACH = 100_000, 10
EVENTS = STREAMS * EVENTS_EACH
WAITING = 1_000
TABLES = ("event", "event_outbox", "aggregate", "idempotency")

FILL = f"""
insert into aggregate (stream, version)
select 'acme/thing/' || n, {EVENTS_EACH} from generate_series(1, {STREAMS}) n;

insert into event (stream, version, event_id, type, payload, metadata)
select 'acme/thing/' || n, v, '{uuid4()}'::uuid, 'thing.happened.v1', '{{"by": 1}}', '{{}}'
from generate_series(1, {STREAMS}) n, generate_series(1, {EVENTS_EACH}) v;

insert into event_outbox (stream, version, log, "offset")
select 'acme/thing/' || 1 + (n - 1) % {STREAMS}, 1 + (n - 1) / {STREAMS}, 'thing',
    case when n <= {EVENTS - WAITING} then n end
from generate_series(1, {EVENTS}) n;

insert into idempotency (tenant, scope, key, fingerprint, reply, expires_at)
select 'acme', 'thing', 'k' || n, 'f', 'r', now() + (n - {STREAMS}) * interval '1 second'
from generate_series(1, {EVENTS}) n;
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
    return Statement(statements._COMMIT, ("thing", *documents(units, chains), ["acme"]))


def of_acme(sql: str, *arguments: object) -> Statement:
    """Return a statement for one tenant, as the store puts it."""
    return Statement(of_tenants(sql, len(arguments)), (*arguments, ["acme"]))


KEYS = (["acme"] * 256, ["thing"] * 256, [f"k{n}" for n in range(256)])
A_THOUSAND = list(range(EVENTS - WAITING + 1, EVENTS + 1))
HOT = {
    "load": of_acme(statements._LOAD, [0], ["acme/thing/5"], [1], ["acme"], ["thing"], ["k1"]),
    "load of 256 streams": of_acme(
        statements._LOAD,
        *(list(range(256)), [f"acme/thing/{n}" for n in range(256)], [1] * 256, *KEYS),
    ),
    "read": of_acme(statements._READ, "acme/thing/5", 1, 1000),
    "replies": of_acme(statements._REPLIES, *KEYS),
    "pending, a few": Statement(ledger._PENDING, ("thing", 10, [])),
    "pending, a batch": Statement(ledger._PENDING, ("thing", 1000, [])),
    "pending, behind a batch": Statement(ledger._PENDING, ("thing", 100, A_THOUSAND[:500])),
    "prune": Statement(ledger._PRUNE, ("thing", 0.0, 1000)),
    "published, the first": Statement(ledger._PUBLISHED, ("thing", 0, 1000)),
    "published, the last": Statement(ledger._PUBLISHED, ("thing", EVENTS - WAITING - 9, 1000)),
    "events, a rebuild's batch": Statement(ledger._EVENTS, ("thing", 0, 1000)),
    "events, the last": Statement(ledger._EVENTS, ("thing", EVENTS - WAITING - 9, 1000)),
    "last offset": Statement(ledger._LAST_OFFSET, ("thing",)),
    "status": Statement(ledger._STATUS, ("thing",)),
    "find": Statement(
        ledger._FIND, ("thing", [f"acme/thing/{n}" for n in range(1000)], [3] * 1000)
    ),
    "record": Statement(ledger._RECORD, (A_THOUSAND, A_THOUSAND, "relay:thing", 1)),
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
        await connection.execute("set statement_timeout = 0; set transaction_timeout = 0")
        async with indexed_later(connection):
            await connection.execute(FILL, timeout=120)
        await connection.execute(f"analyze {', '.join(TABLES)}")
    return schema


@asynccontextmanager
async def indexed_later(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Take the indexes away while a million rows go in, and bring the very same ones back."""
    indexes = await connection.fetch(
        "select i.indexrelid::regclass::text as name, i.indrelid::regclass::text as table,"
        " pg_get_indexdef(i.indexrelid) as made, c.conname, pg_get_constraintdef(c.oid) as constraint"
        " from pg_index i left join pg_constraint c on c.conindid = i.indexrelid"
        " where i.indrelid = any($1::text[]::regclass[])",
        TABLES,
    )
    for row in indexes:
        of = f"alter table {row['table']} drop constraint"
        await connection.execute(
            f"{of} {row['conname']}" if row["conname"] else f"drop index {row['name']}"
        )
    for table in TABLES:
        await connection.execute(f"alter table {table} set unlogged")
    yield
    await connection.execute("set maintenance_work_mem = '128MB'")
    for row in indexes:
        of = f"alter table {row['table']} add constraint {row['conname']} {row['constraint']}"
        await connection.execute(of if row["conname"] else row["made"], timeout=120)


@pytest.fixture
async def connection(
    postgres_server: PostgresServer, filled: str
) -> AsyncIterator[asyncpg.Connection]:
    """Return a connection that is set up as the store's are."""
    connections = Connections(postgres_server.dsn, schema=filled, size_max=1, every_tenant=True)
    async with connections.use() as connection:
        # What a policy's functions read of the catalog, the first time in a session, is no row's.
        await connection.execute(
            "select array_position(array['acme'], split_part('acme/x', '/', 1))"
        )
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
    """The same thousand entries, behind a ledger of 999,000 and behind none."""
    async with PostgresStore.open(postgres_server.dsn, service=f"s{uuid4().hex[:12]}") as store:
        await commit(store, 1_000)
        async with store._connections.use() as young:
            mine = HOT["pending, a batch"]._replace(arguments=(store._log, 1000, []))
            without = await pages(young, mine)

    behind = await pages(connection, HOT["pending, a batch"])
    status = await pages(connection, HOT["status"])

    assert 0 < behind < 2 * without
    assert status < 2 * without


PAGES_MAX = {
    "load": 60,
    "load of 256 streams": 10_000,
    "read": 30,
    "replies": 2_000,
    "pending, a few": 120,
    "pending, a batch": 10_000,
    "published, the first": 14_000,
    "published, the last": 120,
    "last offset": 10,
    "status": 60,
    "record": 40_000,
    "forget, a few": 300,
    "commit of 1": 100,
    "commit of 32": 1_500,
    "commit of 256": 15_000,
}
"""About twice what it takes: some four pages a row and index. A statement that grows shows here."""


@pytest.mark.parametrize("name", PAGES_MAX)
async def test_a_million_events_cost_a_hot_statement_no_more_than_a_few_pages_a_row(
    connection: asyncpg.Connection, name: str
) -> None:
    transaction = connection.transaction()
    await transaction.start()
    try:
        found = await pages(connection, HOT[name])
    finally:
        await transaction.rollback()

    assert 0 < found <= PAGES_MAX[name]


async def test_a_stream_of_a_thousand_events_is_loaded_as_one_of_ten_is(
    connection: asyncpg.Connection, postgres_server: PostgresServer, filled: str
) -> None:
    """One statement, a snapshot and a short tail, among a million events of others."""
    seen: dict[int, tuple[int, int, int, int]] = {}
    async with PostgresStore.open(postgres_server.dsn, service=filled) as store:
        for count in (10, 1000):
            stream = stream_id("acme", "thing", f"long-{uuid4().hex}")
            start = append(stream, 0, *("1" for _ in range(count - 5)))
            snapshot = Snapshot(Version(count - 5), 1, "{}")
            for some in (replace(start, snapshot=snapshot), append(stream, count - 5, *"12345")):
                assert [Committed()] == list(await store.commit([Unit((some,))]))
            [mine] = store._of_tenants._idle
            asked: list[str] = []
            with mine.query_logger(lambda query: asked.append(query.query)):  # noqa: B023 - used now
                loaded = await store.load(stream, snapshot_schema=1)
                await asyncio.sleep(0)
            once = HOT["load"]._replace(
                arguments=([0], [stream], [1], ["acme"], ["thing"], ["x"], ["acme"])
            )
            plan = await plan_of(connection, once, analyze=True)
            read = [n for n in nodes(plan) if n.get("Relation Name") == "event"]
            touched = int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
            rows = sum(int(n["Actual Rows"] * n["Actual Loops"]) for n in read)
            seen[count] = (len(asked), len(loaded.events), rows, touched)

    assert [(1, 5, 5)] * 2 == [found[:3] for found in seen.values()]
    assert seen[1000][3] <= seen[10][3] + 2  # the pages that five rows happen to lie on


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
