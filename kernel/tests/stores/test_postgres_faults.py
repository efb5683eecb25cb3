"""What callers of the Postgres store are told when something breaks, and what is true afterwards.

An acknowledgement is a promise. Anything else a caller hears is `Unavailable`, and then the same
request with the same idempotency key settles it: it happened, or it happens now, but never twice.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from uuid import uuid4

import asyncpg
import pytest

from flotilla import GroupCommitter
from flotilla.embedded import PostgresServer, run_postgres
from flotilla.errors import Corrupt, Unavailable
from flotilla.metrics import STORE_CONNECTIONS
from flotilla.outbox import Offset
from flotilla.store import (
    EMPTY,
    Append,
    Committed,
    Conflicted,
    Failed,
    Replayed,
    StreamId,
    Unit,
    Version,
    stream_id,
)
from flotilla.stores.migrations import read_migrations
from flotilla.stores.postgres import PostgresStore, PostgresViews
from flotilla.stores.postgres import connection as connections
from flotilla.stores.postgres.isolation import EVERY_TENANT
from flotilla.stores.postgres.store import CONNECTIONS_MAX
from flotilla.testing import new_event
from flotilla.testing.servers import open_folder
from flotilla.testing.store import A, B, append, commit_one, payloads, record

CALLERS = 16
ANSWER_LIMIT_S = 20.0
PROCESS_LIMIT_S = 60


def a_service() -> str:
    """Each test has a schema of its own on the shared server."""
    return f"s{uuid4().hex[:12]}"


@pytest.fixture
async def store(postgres_server: PostgresServer) -> AsyncIterator[PostgresStore]:
    async with PostgresStore.open(postgres_server.dsn, service=a_service()) as opened:
        yield opened


def open_connections(schema: str) -> float:
    return float(STORE_CONNECTIONS.labels(schema)._value.get())


async def test_open_connections_are_counted_until_they_end_however_they_end(
    postgres_server: PostgresServer,
) -> None:
    schema = a_service()
    pool = connections.Connections(postgres_server.dsn, schema=schema, size_max=2)
    assert open_connections(schema) == 0
    async with pool.use(), pool.use():
        assert open_connections(schema) == 2
    assert open_connections(schema) == 2, "they are kept for the next user"
    with pytest.raises(Unavailable):
        async with pool.use() as connection:
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")
    async with asyncio.timeout(ANSWER_LIMIT_S):
        while open_connections(schema) != 1:
            await asyncio.sleep(0.01)
        await pool.close()
        while open_connections(schema):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def somebody_else(
    server: PostgresServer, store: PostgresStore
) -> AsyncIterator[asyncpg.Connection]:
    """Lend a session that is not the store's, in its schema."""
    session = await asyncpg.connect(
        server.dsn, server_settings=EVERY_TENANT | {"search_path": store._log}
    )
    try:
        yield session
    finally:
        session.terminate()


# Under load.


@dataclass
class Load:
    """Callers who each bring one unit after the other and insist until they know what became of it."""

    store: PostgresStore
    over: asyncio.Event = field(default_factory=asyncio.Event)
    acknowledged: dict[str, StreamId] = field(default_factory=dict)
    """Event ids by what they were promised to be in."""
    unavailable: int = 0
    replayed: int = 0
    """How often it had happened although the caller did not hear of it."""
    others: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.committer = GroupCommitter(self.store)
        self._numbers = count()

    async def call(self, stream: StreamId) -> None:
        """Append to a stream of one's own, again and again."""
        version = 0
        while not self.over.is_set():
            event = new_event(str(next(self._numbers)))
            claim = record(event.event_id, reply=event.event_id.encode())
            unit = Unit((Append(stream, Version(version), (event,)),), claim)
            await self._settle(unit)
            self.acknowledged[event.event_id] = stream
            version += 1

    async def _settle(self, unit: Unit) -> None:
        while True:
            try:
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    [outcome] = await self.committer.commit([unit])
            except Unavailable:
                self.unavailable += 1
                await asyncio.sleep(0.02)
                continue
            assert unit.record is not None
            assert outcome in (Committed(), Replayed(unit.record.reply)), outcome
            self.replayed += outcome != Committed()
            return

    async def truth(self) -> list[str]:
        """Return what contradicts what callers were told."""
        await self.committer.drain()
        found: dict[str, list[StreamId]] = {}
        for entry in await self.store.pending(limit=1_000_000):
            found.setdefault(entry.event.event_id, []).append(entry.event.stream)
        return [
            f"{event_id}: told {self.acknowledged.get(event_id)}, found {found.get(event_id)}"
            for event_id in found.keys() | self.acknowledged.keys()
            if found.get(event_id) != [self.acknowledged.get(event_id)]
        ]


@asynccontextmanager
async def under_load(store: PostgresStore) -> AsyncIterator[Load]:
    """Keep callers calling for the length of the block; every one of them comes to an end."""
    load = Load(store)
    async with asyncio.TaskGroup() as callers:
        for n in range(CALLERS):
            callers.create_task(load.call(stream_id("acme", "thing", f"s{n}")))
        try:
            yield load
        finally:
            load.over.set()


async def at_least(number: Callable[[], int], wanted: int) -> None:
    """Return when there are so many; the test's own time limit is the limit."""
    async with asyncio.timeout(60):
        while number() < wanted:
            await asyncio.sleep(0.005)


async def test_a_terminated_backend_loses_and_repeats_nothing(
    postgres_server: PostgresServer, store: PostgresStore
) -> None:
    async with somebody_else(postgres_server, store) as killer, under_load(store) as load:
        for round_ in range(1, 16):
            await at_least(lambda: len(load.acknowledged), 20 * round_)
            before = load.unavailable
            while load.unavailable == before:  # whoever is hit between two commits does not notice
                await killer.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name = $1 and state = 'active'",
                    f"flotilla-{store._log}",
                )

    assert [] == await load.truth()
    assert load.unavailable >= 15
    versions = [len(await store.read(stream)) for stream in set(load.acknowledged.values())]
    assert len(load.acknowledged) == sum(versions)


async def test_a_killed_postmaster_loses_and_repeats_nothing() -> None:
    with open_folder() as folder:
        async with (
            run_postgres(folder) as server,
            PostgresStore.open(server.dsn, service="thing") as store,
        ):
            async with under_load(store) as load:
                await at_least(lambda: len(load.acknowledged), 200)
                await server.kill()
                await at_least(lambda: load.unavailable, 1)
                known = len(load.acknowledged)
                await at_least(lambda: len(load.acknowledged), known + 200)

            assert [] == await load.truth()
            assert load.unavailable >= CALLERS / 2


async def test_a_cancelled_caller_leaves_a_whole_unit_or_nothing(
    postgres_server: PostgresServer, store: PostgresStore
) -> None:
    """And a connection of which nobody knows what it is in is not lent again."""
    unit = Unit((append(A, 0, '"1"'), append(B, 0, '"1"')), record("k", reply=b"then"))
    await store.read(A)
    [connection] = store._of_tenants._idle
    async with somebody_else(postgres_server, store) as session:
        async with holding(session, "lock table event_outbox in share mode"):
            waiting = asyncio.create_task(store.commit([unit]))
            await until_waiting(session, store)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert connection.is_closed()

        [outcome] = await store.commit([unit])

    assert outcome in (Committed(), Replayed(b"then"))
    assert (['"1"'], ['"1"']) == (await payloads(store, A), await payloads(store, B))
    assert 2 == (await store.status()).committed


# Locks.


@asynccontextmanager
async def holding(session: asyncpg.Connection, sql: str) -> AsyncIterator[None]:
    """Hold for the length of the block what a statement locks."""
    transaction = session.transaction()
    await transaction.start()
    try:
        await session.execute(sql)
        yield
    finally:
        await transaction.rollback()


async def until_waiting(session: asyncpg.Connection, store: PostgresStore) -> None:
    """Return when one of the store's sessions waits for a lock."""
    async with asyncio.timeout(10):
        while not await session.fetchval(
            "select count(*) from pg_stat_activity"
            " where application_name = $1 and wait_event_type = 'Lock'",
            f"flotilla-{store._log}",
        ):
            await asyncio.sleep(0.005)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait two seconds for a lock, and long enough for others to go on meanwhile."""
    hurried = connections.SERVER_SETTINGS | {"lock_timeout": "1s"}
    monkeypatch.setattr(connections, "SERVER_SETTINGS", hurried)


@pytest.mark.usefixtures("impatient")
async def test_a_locked_stream_is_unavailable_and_others_go_on(
    postgres_server: PostgresServer, store: PostgresStore
) -> None:
    await commit_one(store, append(A, 0, '"1"'))
    unit = Unit((append(A, 1, '"2"'), append(B, 0, '"no"')), record("k"))

    async with somebody_else(postgres_server, store) as session:
        async with holding(session, f"select from aggregate where stream = '{A}' for update"):
            waiting = asyncio.create_task(store.commit([unit]))
            await until_waiting(session, store)
            for n in range(20):
                assert Committed() == await commit_one(
                    store, append(stream_id("x", "y", "z"), n, "1")
                )
            assert not waiting.done()
            with pytest.raises(Unavailable, match="lock timeout"):
                await waiting

        assert (['"1"'], []) == (await payloads(store, A), await payloads(store, B))
        assert [Committed()] == list(await store.commit([unit]))


async def test_whoever_waited_for_a_lock_sees_what_was_written_under_it(
    postgres_server: PostgresServer, store: PostgresStore
) -> None:
    """Its snapshot was older than the lock's holder: decided on that, it would be torn."""
    await commit_one(store, append(A, 0, '"1"'))

    async with somebody_else(postgres_server, store) as session:
        transaction = session.transaction()
        await transaction.start()
        await session.execute("update aggregate set version = 2 where stream = $1", A)
        await session.execute(
            "insert into event (stream, version, event_id, type, payload, metadata)"
            " values ($1, 2, gen_random_uuid(), 't', '7', '{}')",
            A,
        )
        units = [
            Unit((append(A, 1, '"late"'),), record("k1")),
            Unit((append(B, 0, '"fine"'),), record("k2")),
        ]
        waiting = asyncio.create_task(store.commit(units))
        await until_waiting(session, store)
        await transaction.commit()

        assert [Conflicted(), Committed()] == list(await waiting)

    assert ['"1"', "7"] == await payloads(store, A)
    assert not (await store.load(A, claims=[record("k1").claim])).replies


# Connections.


async def test_recording_what_somebody_records_at_this_moment_is_a_no_op_too(
    postgres_server: PostgresServer, store: PostgresStore
) -> None:
    """Two relays: one reads back what the other published and is about to record."""
    await commit_one(store, append(A, 0, '"1"', '"2"'))
    waiting = await store.pending(limit=10)
    offsets = [(entry.position, Offset(n)) for n, entry in enumerate(waiting, start=1)]

    async with somebody_else(postgres_server, store) as session:
        other = session.transaction()
        await other.start()
        await session.executemany(
            'update event_outbox set "offset" = $2 where position = $1', offsets
        )
        recording = asyncio.create_task(store.record(offsets))
        await until_waiting(session, store)
        await other.commit()

        await recording

    assert 2 == await store.last_offset()


async def test_when_all_connections_are_busy_it_is_unavailable_in_time(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ACQUIRE_TIMEOUT_S", 0.05)
    free = asyncio.Event()

    async def occupy() -> None:
        async with store._of_tenants.use():
            await free.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS_MAX):
            group.create_task(occupy())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="all connections are busy"):
            await store.load(A)
        free.set()

    assert Committed() == await commit_one(store, append(A, 0, "1"))


async def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        async with PostgresStore.open("postgresql://x@/x?host=/nowhere", service="thing"):
            pass


async def test_after_closing_it_is_unavailable(postgres_server: PostgresServer) -> None:
    async with PostgresStore.open(postgres_server.dsn, service=a_service()) as store:
        pass

    with pytest.raises(Unavailable, match="is closed"):
        await store.load(A)


async def settings_of(session: asyncpg.Connection) -> dict[str, str]:
    names = [name for name in connections.SERVER_SETTINGS if name != "timezone"]
    names += ["TimeZone", "transaction_timeout"]
    rows = await session.fetch(
        "select name, current_setting(name) from pg_settings where name = any($1)", names
    )
    return {row[0].lower(): row[1] for row in rows}


async def test_limits_are_in_force_on_every_connection(store: PostgresStore) -> None:
    """Nothing waits for ever, whatever the server's own configuration says."""
    everybody = asyncio.Barrier(CONNECTIONS_MAX)

    async def look() -> dict[str, str]:
        async with store._of_tenants.use() as connection:
            await everybody.wait()
            return await settings_of(connection)

    found = await asyncio.gather(*(look() for _ in range(CONNECTIONS_MAX)))

    limits = {"timezone": "UTC", "transaction_timeout": "1min"}
    assert [connections.SERVER_SETTINGS | limits] * CONNECTIONS_MAX == list(found)
    wanted = {"lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"}
    wanted |= {"transaction_timeout"}
    assert wanted < set(found[0])
    assert "0" not in {found[0][name] for name in wanted}


async def test_a_session_that_forgets_its_transaction_is_ended(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs holds its locks no longer than that."""
    hurried = connections.SERVER_SETTINGS | {"idle_in_transaction_session_timeout": "100ms"}
    monkeypatch.setattr(connections, "SERVER_SETTINGS", hurried)
    async with PostgresStore.open(postgres_server.dsn, service=a_service()) as store:
        with pytest.raises(Unavailable):
            async with store._connections.use() as connection:
                await connection.execute("begin")
                async with asyncio.timeout(10):
                    while not connection.is_closed():
                        await asyncio.sleep(0.01)
                await connection.execute("select 1")

        assert Committed() == await commit_one(store, append(A, 0, "1"))


@asynccontextmanager
async def statements_of(store: PostgresStore) -> AsyncIterator[list[str]]:
    """Collect what the store's only connection asks the server for."""
    [connection] = store._of_tenants._idle
    statements: list[str] = []

    def note(asked: asyncpg.connection.LoggedQuery) -> None:
        statements.append(asked.query)

    with connection.query_logger(note):
        yield statements
        await asyncio.sleep(0)  # the driver tells of each one step of the event loop later
    assert [connection] == store._of_tenants._idle


async def test_connections_are_kept_and_a_batch_is_one_statement(store: PostgresStore) -> None:
    await commit_one(store, append(B, 0, "1"), by=record("k"))  # the driver learns types once
    [backend] = [c.get_server_pid() for c in store._of_tenants._idle]
    streams = [stream_id("acme", "thing", f"s{n}") for n in range(100)]

    async with statements_of(store) as statements:
        for version in range(3):
            units = [Unit((append(s, version, "1"),), record(f"{s}{version}")) for s in streams]
            assert [Committed()] * 100 == list(await store.commit(units))
        hot = [Unit((append(A, n, "1"),), record(f"k{n}")) for n in range(100)]
        assert [Committed()] * 100 == list(await store.commit(hot))

    assert (4, 1) == (len(statements), len(set(statements)))
    assert [backend] == [c.get_server_pid() for c in store._of_tenants._idle]


async def test_a_load_is_one_statement_too(store: PostgresStore) -> None:
    await commit_one(store, append(A, 0, "1"), by=record("k"))

    async with statements_of(store) as statements:
        loaded = await store.load(A, snapshot_schema=1, claims=[record("k").claim])

    assert (1, 1, 1) == (loaded.version, len(loaded.replies), len(statements))


# What the database says no to.


async def test_a_server_that_became_read_only_is_unavailable_and_not_the_callers_fault(
    store: PostgresStore,
) -> None:
    """After a failover, the old primary still answers; nobody's command is "unstorable" for that."""
    await store.read(A)
    [connection] = store._of_tenants._idle
    await connection.execute("set default_transaction_read_only = on")
    units = [Unit((append(s, 0, "1"),), record(s)) for s in (A, B)]

    with pytest.raises(Unavailable, match="read-only"):
        await store.commit(units)

    await connection.execute("set default_transaction_read_only = off")
    assert [Committed()] * 2 == list(await store.commit(units))


async def test_a_missing_table_is_nobodys_unstorable_unit(
    postgres_server: PostgresServer, store: PostgresStore
) -> None:
    async with somebody_else(postgres_server, store) as session:
        await session.execute("alter table event_outbox rename to gone")

    with pytest.raises(asyncpg.UndefinedTableError):
        await store.commit([Unit((append(A, 0, "1"),)), Unit((append(B, 0, "1"),))])


TOO_LONG = "".join(uuid4().hex for _ in range(400))


@pytest.mark.parametrize(
    "unit",
    [
        Unit((Append(A, EMPTY, (replace(new_event(), event_id="no uuid"),)),)),
        Unit((append(A, 0, "1"),), record(TOO_LONG)),
        Unit((append(A, 0, "1"),), record("k", ttl_s=10**15)),
        Unit((append(A, 2**63, "1"),)),
    ],
    ids=["no uuid", "too long for an index", "no 32-bit number", "no 64-bit number"],
)
async def test_what_the_database_cannot_store_fails_alone(store: PostgresStore, unit: Unit) -> None:
    failed, committed = await store.commit([unit, Unit((append(B, 0, "1"),))])

    assert isinstance(failed, Failed)
    assert ("rejected", Committed()) == (failed.error.family, committed)
    assert [] == await payloads(store, A)


@pytest.mark.parametrize(
    "forbidden",
    [
        "update event set payload = '0'",
        "update event set version = 9",
        "delete from event",
        "truncate event",
        "truncate event cascade",
        "insert into event select * from event on conflict (stream, version) do update set type = 'x'",
        "merge into event e using event o on e.stream = o.stream when matched then delete",
    ],
)
async def test_events_are_immutable(
    postgres_server: PostgresServer, store: PostgresStore, forbidden: str
) -> None:
    """Even for the owner of the table, even when nothing would change."""
    await commit_one(store, append(A, 0, '"1"'))
    async with somebody_else(postgres_server, store) as session:
        with pytest.raises(asyncpg.PostgresError, match="events are immutable"):
            await session.execute(forbidden)

    assert ['"1"'] == await payloads(store, A)


# Schemas.

MIGRATE = """
import asyncio, sys
from flotilla.stores.postgres import PostgresStore, PostgresViews
async def main():
    async with (
        PostgresStore.open(sys.argv[1], service=sys.argv[2]) as store,
        PostgresViews.open(sys.argv[1], service=sys.argv[2]),
    ):
        await store.status()
asyncio.run(main())
"""


def run_together(code: str, *arguments: str, processes: int) -> list[tuple[int, bytes]]:
    """Run a program in several processes at once; return how each ended and what it complained of."""
    running = [
        subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE)
        for _ in range(processes)
    ]
    ends = [process.communicate(timeout=PROCESS_LIMIT_S)[1] for process in running]
    return [(process.returncode, end) for process, end in zip(running, ends, strict=True)]


async def test_several_processes_migrate_at_once(postgres_server: PostgresServer) -> None:
    service = a_service()

    ends = await asyncio.to_thread(run_together, MIGRATE, postgres_server.dsn, service, processes=3)

    assert [(0, b"")] * 3 == ends
    async with (
        PostgresStore.open(postgres_server.dsn, service=service) as store,
        store._connections.use() as connection,
    ):
        applied = await connection.fetch(
            "select component, version from schema_migration order by 1, 2"
        )
    steps = [("event_store", s.version) for s in read_migrations("flotilla.stores.postgres")]
    others = [(name, 1) for name in ("heartbeat", "lease", "parking", "views")]
    assert [("due", 1), *steps, *others] == [tuple(r) for r in applied]


async def test_many_migrate_at_the_very_same_moment(postgres_server: PostgresServer) -> None:
    service = a_service()
    everybody = asyncio.Barrier(8)

    async def start() -> int:
        async with PostgresStore.open(postgres_server.dsn, service=service) as store:
            await everybody.wait()
            return (await store.status()).committed

    assert [0] * 8 == list(await asyncio.gather(*(start() for _ in range(8))))


@pytest.mark.parametrize(
    ("tampering", "code"),
    [
        (
            "insert into schema_migration values ('event_store', 99, 'later', 'x')",
            "schema-newer",
        ),
        ("update schema_migration set checksum = 'x'", "schema-changed"),
        ("update schema_migration set version = version + 50", "schema-newer"),
    ],
)
async def test_a_schema_of_another_code_is_corrupt(
    postgres_server: PostgresServer, tampering: str, code: str
) -> None:
    service = a_service()
    async with (
        PostgresStore.open(postgres_server.dsn, service=service) as store,
        somebody_else(postgres_server, store) as session,
    ):
        await session.execute(tampering)

    with pytest.raises(Corrupt) as caught:
        async with PostgresStore.open(postgres_server.dsn, service=service):
            pass

    assert code == caught.value.code


async def test_a_migration_that_fails_leaves_nothing(postgres_server: PostgresServer) -> None:
    async with PostgresViews.open(postgres_server.dsn, service=a_service()) as views:
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await views.migrate("bad", ["create table half (n bigint)", "create tabl oops"])
        with pytest.raises(asyncpg.UndefinedTableError):
            await views.fetch_across("select n from half")

        await views.migrate("bad", ["create table half (n bigint)"])

        assert [] == list(await views.fetch_across("select n from half"))
