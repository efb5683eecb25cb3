"""Everything that a service keeps goes from one database to another, to the last row, or not at all."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import libsql
import pytest

from flotilla.embedded import PostgresServer
from flotilla.embedded.postgres_clients import DATABASE
from flotilla.errors import KernelError
from flotilla.outbox import START, LogEvent, Offset
from flotilla.projection import Checkpoint, ViewSession
from flotilla.store import (
    Append,
    ClaimKey,
    Committed,
    IdempotencyRecord,
    NewEvent,
    Replayed,
    Snapshot,
    Unit,
    Version,
    stream_id,
)
from flotilla.stores import open_kept, open_leases, open_store, open_views
from flotilla.stores.moving import Moved, MoveProgress, check_source, move
from flotilla.stores.postgres.isolation import EVERY_TENANT

_numbers = count(1)
DIRECTIONS = ["libsql-postgres", "postgres-libsql", "libsql-libsql", "postgres-postgres"]


class Seen:
    """A read model with a column of every type that projections use."""

    name, log, staleness_budget_s = "seen", "moved", 5.0
    tables = (
        """
create table seen (
    tenant text not null, id text not null, n bigint not null, share double precision, raw bytea,
    ok boolean, primary key (tenant, id)
);
create table seen_total (n bigint not null);
""",
        "create index seen_n on seen (n)",
    )

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        raise AssertionError(f"nobody folds here: {batch} into {view}")


async def make(url: str, service: str) -> None:
    """Make the schema of all that a service may keep."""
    async with open_store(url, service=service), open_leases(url, service=service):
        pass
    async with open_views(url, service=service) as views:
        await views.migrate(Seen.name, Seen.tables)


class Sides:
    """Two databases, of which the second has a schema and nothing in it."""

    def __init__(self, source: str, target: str, service: str) -> None:
        self.source, self.target, self.service = source, target, service

    async def move(self, report: Callable[[MoveProgress], None] = lambda _: None) -> Moved:
        async with (
            open_kept(self.source, service=self.service, write=False) as source,
            open_kept(self.target, service=self.service, write=True) as target,
        ):
            return await move(source, target, report)

    async def refusal(self) -> tuple[str, str]:
        with pytest.raises(KernelError) as refused:
            await self.move()
        return refused.value.code, str(refused.value)


async def another_database(url: str, name: str) -> str:
    connection = await asyncpg.connect(url)
    await connection.execute(f"create database {name}")
    await connection.close()
    return url.replace(f"/{DATABASE}?", f"/{name}?")


@pytest.fixture(params=DIRECTIONS)
async def sides(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer
) -> Sides:
    service = f"moved-{next(_numbers)}"
    first, second = request.param.split("-")
    urls = {"postgres": postgres_server.dsn}
    source = urls.get(first, f"libsql://{tmp_path}/source.db")
    target = urls.get(second, f"libsql://{tmp_path}/target.db")
    if source == target:
        target = await another_database(source, f"target_{next(_numbers)}")
    await make(source, service)
    await make(target, service)
    return Sides(source, target, service)


@asynccontextmanager
async def raw(url: str, service: str) -> AsyncIterator[Callable[..., Any]]:
    """Yield a way to run SQL with the driver alone: what the tests believe, whatever is moved."""
    if url.startswith("libsql"):
        connection: Any = libsql.connect(url.removeprefix("libsql://"), isolation_level=None)

        async def run(sql: str, *values: object) -> list[Any]:
            return connection.execute(sql, values).fetchall() or []

        yield run
        connection.close()
        return
    schema = service.replace("-", "_")
    postgres = await asyncpg.connect(url, server_settings=EVERY_TENANT | {"search_path": schema})
    try:
        yield postgres.fetch
    finally:
        await postgres.close()


_LIBSQL_COLUMNS = """
select m.name, c.name, lower(c.type) from sqlite_schema m, pragma_table_info(m.name) c
where m.type = 'table' and m.name not like 'sqlite%' order by 1, 2
"""
_POSTGRES_COLUMNS = """
select table_name, column_name, data_type from information_schema.columns c
join information_schema.tables t using (table_schema, table_name)
where table_schema = current_schema and table_type = 'BASE TABLE' order by 1, 2
"""
_ID = "0198c5a0-0000-7000-8000-000000000001"
_BY_NAME = {"event_id": _ID, "payload": '{"a": 1.50}', "metadata": "{}"}
_BY_TYPE = {
    **dict.fromkeys(["text"], "'x'"),
    **dict.fromkeys(["integer", "bigint"], "1"),
    **dict.fromkeys(["double precision", "real"], "0.5"),
    **dict.fromkeys(["timestamp with time zone"], "'1970-01-01T00:00:00.000001Z'"),
    **dict.fromkeys(["boolean"], "true"),
}


def literal(url: str, column: str, kind: str) -> str:
    if column in _BY_NAME and kind != "bytea":
        return f"'{_BY_NAME[column]}'"
    if kind in ("bytea", "blob"):
        return "x'0001ff'" if url.startswith("libsql") else r"'\x0001ff'"
    return _BY_TYPE[kind]


async def columns(url: str, service: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    async with raw(url, service) as run:
        for table, column, kind in await run(
            _LIBSQL_COLUMNS if url.startswith("libsql") else _POSTGRES_COLUMNS
        ):
            found.setdefault(table, {})[column] = kind
    del found["schema_migration"]
    return found


async def fill_every_table(url: str, service: str) -> list[str]:
    """Put a row into each table that there is, whatever it is for; return their names."""
    tables = await columns(url, service)
    async with raw(url, service) as run:
        for table, kinds in tables.items():
            names = ", ".join(f'"{name}"' for name in kinds)
            values = ", ".join(literal(url, name, kind) for name, kind in kinds.items())
            given = "" if url.startswith("libsql") else " overriding system value"
            await run(f'insert into "{table}" ({names}){given} values ({values})')
    return list(tables)


async def test_no_table_of_the_schema_is_left_behind(sides: Sides) -> None:
    tables = await fill_every_table(sides.source, sides.service)

    moved = await sides.move()

    assert {"event", "event_outbox", "aggregate", "idempotency", "log_reader", "lease"} < set(
        tables
    )
    assert sorted(table.table for table in moved.tables) == sorted(tables)
    async with raw(sides.target, sides.service) as run:
        for table in tables:
            assert [tuple(row) for row in await run(f'select count(*) from "{table}"')] == [(1,)], (
                f"{table} was not moved"
            )
    assert (await sides.move()).already, "moving again what is there is no mistake"


def unit(stream: str, first: int, events: int, *, key: str = "", text: str = "") -> Unit:
    new = tuple(
        NewEvent(
            _ID[:-12] + f"{next(_numbers):012x}",
            "tiny.said",
            json.dumps({"text": text or "é\U0001f680"}, ensure_ascii=False),
            {"traceparent": "00-a"},
        )
        for _ in range(events)
    )
    snapshot = Snapshot(Version(first + events), 1, '{"n": 1}')
    record = IdempotencyRecord(ClaimKey("t", "say", key), b"\x00f", b"\xffr", 3600) if key else None
    return Unit((Append(stream_id("t", "tiny", stream), Version(first), new, snapshot),), record)


async def write_history(url: str, service: str) -> None:
    """Two streams, seven events, five of them with an offset, a reader and a checkpoint."""
    async with open_store(url, service=service) as store:
        told = await store.commit([unit("b", 0, 4, key="k1"), unit("A", 0, 3)])
        assert [type(outcome) for outcome in told] == [Committed, Committed]
        entries = await store.pending(limit=5)
        await store.record([(e.position, Offset(n)) for n, e in enumerate(entries, start=1)])
        await store.read_by("projection:views:seen", Offset(5))
    async with open_views(url, service=service) as views:
        at = Checkpoint(Offset(5), entries[-1].event.recorded_at)

        async def fold(view: ViewSession) -> None:
            sql = "insert into seen (tenant, id, n, share, raw, ok) values ($1, $2, $3, $4, $5, $6)"
            rows: list[tuple[Any, ...]] = [("t", "é", 2**40, 0.1, b"\x00", True)]
            await view.execute_many(sql, [*rows, ("T", "e", -1, None, None, None)])

        await views.advance("seen", service, (START, at), fold)


async def test_a_service_goes_on_where_it_was(sides: Sides) -> None:
    service = sides.service
    await write_history(sides.source, service)
    async with open_store(sides.source, service=service) as store:
        before = [*await store.published(after=START, limit=9), *await store.pending(limit=9)]

    seen: list[MoveProgress] = []
    moved = await sides.move(seen.append)

    assert all(table.same for table in moved.tables)
    assert (seen[-1].rows, seen[-1].target) == (
        seen[-1].target,
        2 * sum(t.source_rows for t in moved.tables),
    )
    async with open_store(sides.target, service=service) as store:
        assert before == [
            *await store.published(after=START, limit=9),
            *await store.pending(limit=9),
        ]
        again, new = await store.commit([unit("b", 4, 1, key="k1"), unit("A", 3, 1)])
        assert (again, type(new)) == (Replayed(b"\xffr"), Committed), "an old key, a new event"
        positions = [entry.position for entry in await store.pending(limit=9)]
        assert positions == sorted(positions)
        assert positions[-1] > max(entry.position for entry in before)
        assert [(r.reader, r.offset) for r in await store.readers()] == [
            ("projection:views:seen", 5)
        ]
        loaded = await store.load(stream_id("t", "tiny", "b"), snapshot_schema=1)
        assert (loaded.version, loaded.snapshot) == (4, Snapshot(Version(4), 1, '{"n": 1}'))
    async with open_views(sides.target, service=service) as views:
        assert (await views.checkpoint("seen", service)).offset == 5
        assert len(await views.fetch_across("select n from seen where ok")) == 1


async def test_a_target_with_something_else_in_it_is_refused_and_stays(sides: Sides) -> None:
    await write_history(sides.source, sides.service)
    async with open_store(sides.target, service=sides.service) as store:
        await store.commit([unit("other", 0, 1)])

    code, said = await sides.refusal()

    assert (code, "move to a new one" in said) == ("target-not-empty", True), said
    async with open_store(sides.target, service=sides.service) as store:
        assert (await store.status()).committed == 1


HOLES = {
    "ledger": 'update event_outbox set "offset" = 9 where "offset" = 5',
    "is said to be at version 7": "update aggregate set version = 7 where stream = 't/tiny/b'",
    "has events and no version": "delete from aggregate where stream = 't/tiny/A'",
    "which is no event": "update event_outbox set version = 99 where position = 7",
}


@pytest.mark.parametrize("told", HOLES)
async def test_a_source_with_a_hole_is_refused(sides: Sides, told: str) -> None:
    await write_history(sides.source, sides.service)
    async with raw(sides.source, sides.service) as run:
        await run(HOLES[told])

    code, said = await sides.refusal()

    assert (code, told in said) == ("store-has-holes", True), said
    assert not any(await rows_of(sides)), "nothing was written"


async def rows_of(sides: Sides) -> list[int]:
    async with raw(sides.target, sides.service) as run:
        names = await columns(sides.target, sides.service)
        return [(await run(f'select count(*) from "{name}"'))[0][0] for name in names]


SCHEMAS = {
    "move with the newer release": ("insert", 2),
    "start the fleet of the source once": ("delete", 2),
    "does not have": ("strange", 1),
}


@pytest.mark.parametrize("cure", SCHEMAS)
async def test_a_source_of_another_schema_is_refused(sides: Sides, cure: str) -> None:
    await write_history(sides.source, sides.service)
    what, _ = SCHEMAS[cure]
    async with raw(sides.source, sides.service) as run:
        if what == "delete":
            await run(
                "delete from schema_migration where component = 'event_store' and version > 1"
            )
        else:
            component = "event_store" if what == "insert" else "strange"
            at = "0" if sides.source.startswith("libsql") else "now()"
            await run(
                "insert into schema_migration (component, version, name, checksum, applied_at)"
                f" values ('{component}', 99, 'later', 'x', {at})"
            )

    code, said = await sides.refusal()

    assert (code, cure in said) == ("move-refused", True), said


async def test_a_table_that_no_migration_made_is_named(sides: Sides) -> None:
    async with raw(sides.source, sides.service) as run:
        await run("create table by_hand (n bigint primary key)")

    code, said = await sides.refusal()

    assert (code, "by_hand" in said) == ("table-unknown", True), said


async def test_a_move_that_ends_in_the_middle_has_written_nothing(sides: Sides) -> None:
    await write_history(sides.source, sides.service)

    class Ended(Exception):
        """The process would have died here."""

    def end(progress: MoveProgress) -> None:
        if progress.rows > progress.target // 2:
            raise Ended

    with pytest.raises(Ended):
        await sides.move(end)

    assert not any(await rows_of(sides))
    assert not (await sides.move()).already, "and the next one does it"


async def test_a_schema_that_is_in_use_is_not_moved(postgres_server: PostgresServer) -> None:
    service, url = f"moved-{next(_numbers)}", postgres_server.dsn
    await make(url, service)
    async with open_store(url, service=service) as store:
        await store.status()
        with pytest.raises(KernelError, match="stop the fleet there"):
            async with open_kept(url, service=service, write=False):
                raise AssertionError


async def test_what_was_never_written_to_is_no_source(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    for url in (f"libsql://{tmp_path}/nobody.db", postgres_server.dsn):
        with pytest.raises(KernelError) as refused:
            async with open_kept(url, service="nobody", write=False) as source:
                await check_source(source)
        assert refused.value.code == "schema-missing"
    assert not (tmp_path / "nobody.db").exists()
