"""Nobody sees another tenant's, on every store; on Postgres not even with SQL of one's own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from flotilla.embedded import PostgresServer
from flotilla.store import EMPTY, Append, Unit
from flotilla.stores.libsql import LibsqlStore, LibsqlViews
from flotilla.stores.memory import MemoryStore
from flotilla.stores.postgres import PostgresStore, PostgresViews
from flotilla.stores.postgres.isolation import EVERY_TENANT, OF_NOBODY, OPEN_TABLES
from flotilla.testing import TenantIsolationContract, ViewIsolationContract
from flotilla.testing.isolation import NOTES, coloured, write_notes


class TestMemory(TenantIsolationContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestLibsql(TenantIsolationContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[LibsqlStore]:
        async with LibsqlStore.open(f"libsql://{tmp_path}/s.db", service="thing") as store:
            yield store


class TestLibsqlViews(ViewIsolationContract):
    @pytest.fixture
    async def views(self, tmp_path: Path) -> AsyncIterator[LibsqlViews]:
        async with LibsqlViews.open(f"libsql://{tmp_path}/v.db", service="thing") as views:
            await views.migrate("note", [NOTES])
            yield views


@pytest.fixture
def service() -> str:
    return f"s{uuid4().hex[:12]}"


@pytest.fixture
async def store(postgres_server: PostgresServer, service: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore.open(postgres_server.dsn, service=service) as store:
        yield store


class TestPostgres(TenantIsolationContract):
    operations = 4_000

    @pytest.fixture
    async def store(
        self, postgres_server: PostgresServer, service: str
    ) -> AsyncIterator[PostgresStore]:
        async with PostgresStore.open(postgres_server.dsn, service=service) as store:
            yield store


class TestPostgresViews(ViewIsolationContract):
    @pytest.fixture
    async def views(
        self, postgres_server: PostgresServer, service: str
    ) -> AsyncIterator[PostgresViews]:
        async with PostgresViews.open(postgres_server.dsn, service=service) as views:
            await views.migrate("note", [NOTES, "create table total (n bigint not null)"])
            yield views

    async def test_a_condition_that_is_forgotten_shows_nothing_of_others(
        self, views: PostgresViews
    ) -> None:
        await write_notes(views)
        for sql in (
            "select body from note where tenant = $1 or true",
            "select body from note where tenant = $1 union select body from note",
            "select max(body) from note, (select $1 as tenant) t where t.tenant = $1",
        ):
            assert [("acme",)] == list(await views.fetch_of("acme", sql))

    async def test_who_says_nothing_sees_nothing(self, views: PostgresViews) -> None:
        await write_notes(views)
        assert [(0,)] == list(await views.fetch("select count(*) from note"))

    async def test_a_table_without_tenants_is_closed_to_all_of_them(
        self, views: PostgresViews
    ) -> None:
        """Nobody knows whose its rows are: it is read across tenants, explicitly, or not at all."""
        await views.transact(
            lambda view: view.execute_many("insert into total values ($1)", [(7,)])
        )
        sql = (
            "select n from total where 'acme' = $1 or (select $1 as tenant) is null or tenant = $1"
        )
        asked = sql.replace("or tenant = $1", "or exists (select from note where tenant = $1)")
        assert [] == list(await views.fetch_of("acme", asked))
        assert [] == list(await views.fetch("select n from total"))
        assert [(7,)] == list(await views.fetch_across("select n from total"))


@asynccontextmanager
async def session(
    server: PostgresServer, service: str, *tenants: str
) -> AsyncIterator[asyncpg.Connection]:
    """Lend a session of the service's role, in a transaction that names these tenants, if any."""
    connection = await asyncpg.connect(server.dsn, server_settings={"search_path": service})
    try:
        async with connection.transaction():
            if tenants:
                await connection.execute(
                    "select set_config('flotilla.tenants', $1::text[]::text, true)", list(tenants)
                )
            yield connection
    finally:
        await connection.close()


@pytest.fixture
async def filled(store: PostgresStore) -> PostgresStore:
    """Fill the store with two tenants' events, keys and wakes."""
    await store.commit([coloured(tenant, "a", by="k") for tenant in ("acme", "rival")])
    return store


OF_TENANTS = ("event", "aggregate", "idempotency", "due")


async def test_the_role_of_a_service_is_not_above_the_policies(
    postgres_server: PostgresServer, service: str
) -> None:
    async with session(postgres_server, service) as raw:
        row = await raw.fetchrow(
            "select rolsuper, rolbypassrls, rolcreaterole from pg_roles where rolname = current_user"
        )
    assert (False, False, False) == tuple(row)


async def test_every_table_is_closed_and_what_was_left_open_is_closed_when_a_service_starts(
    postgres_server: PostgresServer, service: str
) -> None:
    """Of an older release, for example."""
    url = postgres_server.dsn
    async with (
        PostgresStore.open(url, service=service),
        PostgresViews.open(url, service=service) as views,
    ):
        await views.migrate("note", [NOTES])
    raw = await asyncpg.connect(url, server_settings={"search_path": service})
    try:
        assert [] == await raw.fetch(OPEN_TABLES, OF_NOBODY)
        await raw.execute("alter table event no force row level security")
        await raw.execute("alter table note disable row level security")
        await raw.execute("drop policy every_tenant_1 on idempotency")
        assert 3 == len(await raw.fetch(OPEN_TABLES, OF_NOBODY))
        async with PostgresStore.open(url, service=service):
            assert [] == await raw.fetch(OPEN_TABLES, OF_NOBODY)
        tables = "select relname from pg_class c where relkind = 'r' and not relrowsecurity"
        there = await raw.fetch(f"{tables} and relnamespace = to_regnamespace($1)", service)
        assert {row[0] for row in there} <= set(OF_NOBODY)
    finally:
        await raw.close()


@pytest.mark.parametrize("who", [(), ("nobody",), ("acme%",), ("{acme,rival}",), ("",)])
async def test_who_names_no_tenant_of_them_reads_and_changes_nothing(
    postgres_server: PostgresServer, service: str, filled: PostgresStore, who: tuple[str, ...]
) -> None:
    async with session(postgres_server, service, *who) as raw:
        for table in (*OF_TENANTS, "event_outbox", "outbox_entry"):
            assert 0 == await raw.fetchval(f"select count(*) from {table}"), table
            out: list[bytes] = []
            await raw.copy_from_query(f"select * from {table}", output=_into(out))
            assert [] == out, table
        assert "UPDATE 0" == await raw.execute("update aggregate set version = 9")
        assert "UPDATE 0" == await raw.execute('update event_outbox set "offset" = position')
        for table in ("aggregate", "idempotency", "due", "event_outbox"):
            assert "DELETE 0" == await raw.execute(f"delete from {table}"), table
    assert 1 == (await filled.load(coloured("acme", "a").appends[0].stream)).version
    assert 2 == len(await filled.pending(limit=9))


@pytest.mark.usefixtures("filled")
async def test_a_tenant_reads_its_own_rows_and_only_those(
    postgres_server: PostgresServer, service: str
) -> None:
    async with session(postgres_server, service, "acme") as raw:
        for table in ("event", "aggregate"):
            assert ["acme/thing/a"] == [
                r[0] for r in await raw.fetch(f"select stream from {table}")
            ]
        assert ["acme"] == [r[0] for r in await raw.fetch("select tenant from idempotency")]
        assert 0 == await raw.fetchval("select count(*) from event_outbox"), "numbers of the log"


WRITES = {
    "an event": "insert into event (stream, version, event_id, type, payload, metadata)"
    " values ('{}/thing/{}', 1, gen_random_uuid(), 't', '1', '{{}}')",
    "a stream": "insert into aggregate (stream, version) values ('{}/thing/{}', 1)",
    "a stream, or not": "insert into aggregate (stream, version) values ('{}/thing/{}', 1)"
    " on conflict do nothing",
    "a stream, or else": "insert into aggregate as g (stream, version) values ('{}/thing/{}', 1)"
    " on conflict (stream) do update set version = g.version + 1",
    "a key": "insert into idempotency values ('{}', 'thing', '{}', 'f', 'r', now())",
    "a place in the log": "insert into event_outbox (stream, version, log)"
    " values ('{}/thing/{}', 1, 'thing')",
}


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("what", WRITES)
async def test_a_write_for_another_is_refused_in_the_same_words_whether_it_is_there_or_not(
    postgres_server: PostgresServer, service: str, what: str
) -> None:
    """No unique key and no error tells that somebody has such a row."""
    told = []
    for name in ("a", "k", "free"):
        async with session(postgres_server, service, "rival") as raw:
            with pytest.raises(asyncpg.InsufficientPrivilegeError) as refused:
                async with raw.transaction():
                    await raw.execute(WRITES[what].format("acme", name))
            told.append((str(refused.value), refused.value.detail, refused.value.constraint_name))
    assert 1 == len(set(told)), told
    assert "acme" not in str(told)


@pytest.mark.usefixtures("filled")
async def test_rows_do_not_change_hands_and_offsets_are_not_a_tenants_to_give(
    postgres_server: PostgresServer, service: str
) -> None:
    for sql in (
        "update idempotency set tenant = 'rival' where tenant = 'acme'",
        "update aggregate set stream = 'rival/thing/b'",
        "insert into event_outbox (stream, version, log, \"offset\") values ('acme/x/y', 1, 'thing', 1)",
    ):
        async with session(postgres_server, service, "acme") as raw:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                async with raw.transaction():
                    await raw.execute(sql)


async def test_copy_in_functions_and_statistics_are_no_way_around(
    postgres_server: PostgresServer, service: str, filled: PostgresStore
) -> None:
    async with filled._connections.use() as every:
        await every.execute("analyze event; analyze aggregate")
    async with session(postgres_server, service, "rival") as raw:
        assert 0 == await raw.fetchval(
            "select count(*) from pg_stats where schemaname = $1", service
        )
        await raw.execute(
            "create function pg_temp.tell(s text) returns bool language plpgsql cost 0.0001 as"
            " $$ begin if s like 'acme%' then raise '%', s; end if; return true; end $$"
        )
        found = await raw.fetch("select stream from event where pg_temp.tell(stream)")
        assert ["rival/thing/a"] == [row[0] for row in found]
        with pytest.raises(asyncpg.FeatureNotSupportedError):
            async with raw.transaction():
                await raw.copy_records_to_table(
                    "aggregate", columns=("stream", "version"), records=[("acme/thing/z", 1)]
                )


async def test_what_a_statement_says_ends_with_it_also_when_it_fails(
    filled: PostgresStore,
) -> None:
    stuck = Append(coloured("acme", "a").appends[0].stream, EMPTY)
    await filled.commit([coloured("acme", "b"), Unit((stuck,))])
    await filled.load(stuck.stream)
    await filled.commit([Unit((), None)])
    for connection in filled._of_tenants._idle:
        assert "" == (await connection.fetchval("select current_setting('flotilla.tenants', true)"))
        assert 0 == await connection.fetchval("select count(*) from event")


async def test_who_works_for_every_tenant_has_connections_of_its_own(
    filled: PostgresStore,
) -> None:
    await filled.pending(limit=1)
    said = "select current_setting('flotilla.every_tenant', true)"
    assert {None} >= {await each.fetchval(said) for each in filled._of_tenants._idle}
    assert {"on"} == {await each.fetchval(said) for each in filled._connections._idle}
    assert {"flotilla.every_tenant": "on"} == EVERY_TENANT


def _into(out: list[bytes]) -> Callable[[bytes], Awaitable[None]]:
    async def take(data: bytes) -> None:
        out.append(data)

    return take
