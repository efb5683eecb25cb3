"""Looking at a store changes nothing: no file, no schema, no table, no row."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import libsql
import pytest

from flotilla.embedded import PostgresServer
from flotilla.errors import Corrupt, KernelError, Unavailable
from flotilla.outbox import Offset
from flotilla.store import Committed
from flotilla.stores import open_leases, open_store, open_views
from flotilla.stores.migrations import Migration, read_migrations
from flotilla.stores.postgres.isolation import EVERY_TENANT
from flotilla.testing.store import A, append, commit_one, record

Opening = Callable[..., AbstractAsyncContextManager[Any]]


class Place:
    """Where a store may be, and a way to meddle with it."""

    def __init__(self, url: str, service: str) -> None:
        self.url = url
        self.service = service

    def looking(self, opening: Opening = open_store) -> AbstractAsyncContextManager[Any]:
        return opening(self.url, service=self.service, migrate=False)

    def working(self, opening: Opening = open_store) -> AbstractAsyncContextManager[Any]:
        return opening(self.url, service=self.service)

    async def run(self, sql: str) -> list[tuple[Any, ...]]:
        if self.url.startswith("libsql"):
            somebody = libsql.connect(self.url.removeprefix("libsql://"), isolation_level=None)
            return list(somebody.execute(sql).fetchall() or [])
        session = await asyncpg.connect(
            self.url, server_settings=EVERY_TENANT | {"search_path": self.service}
        )
        try:
            return [tuple(row) for row in await session.fetch(sql)]
        finally:
            await session.close()

    async def shape(self) -> list[tuple[Any, ...]]:
        """Return what is in the database."""
        if self.url.startswith("libsql"):
            return await self.run("select type, name, sql from sqlite_schema order by 1, 2")
        return await self.run(
            "select relname, relkind::text, relfilenode from pg_class c"
            " join pg_namespace n on n.oid = c.relnamespace"
            f" where nspname = '{self.service}' order by 1"
        )


@pytest.fixture(params=["libsql", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer) -> Place:
    service = f"s{uuid4().hex[:12]}"
    urls = {"libsql": f"libsql://{tmp_path}/thing.db", "postgres": postgres_server.dsn}
    return Place(urls[request.param], service)


async def refusal(place: Place, opening: Opening = open_store) -> KernelError:
    with pytest.raises((Unavailable, Corrupt)) as caught:
        async with place.looking(opening):
            pass
    return caught.value


@pytest.mark.parametrize("opening", [open_store, open_views, open_leases])
async def test_where_there_is_nothing_nothing_is_made(
    place: Place, opening: Opening, tmp_path: Path
) -> None:
    error = await refusal(place, opening)

    assert "schema-missing" == error.code
    assert "start its service once" in str(error)
    assert [] == list(tmp_path.iterdir())
    if place.url.startswith("postgres"):
        named = f"select 1 from pg_namespace where nspname = '{place.service}'"
        assert [] == await place.run(named)


@pytest.mark.parametrize("opening", [open_store, open_views, open_leases])
async def test_the_other_half_of_a_database_is_missing_too(place: Place, opening: Opening) -> None:
    """Events and views may share a database; who made one of them did not make the other.

    Leases come with events, for offsets are recorded under them, and not with views.
    """
    other: Opening = open_store if opening is open_views else open_views
    async with place.working(other):
        pass
    before = await place.shape()

    assert "schema-missing" == (await refusal(place, opening)).code
    assert before == await place.shape()


async def test_an_empty_file_stays_empty(tmp_path: Path) -> None:
    file = tmp_path / "thing.db"
    file.touch()

    error = await refusal(Place(f"libsql://{file}", "thing"))

    assert ("schema-missing", 0) == (error.code, file.stat().st_size)


async def test_an_older_schema_is_refused_and_stays_as_it_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer command line beside an older fleet: it must not migrate what that fleet runs on."""
    async with place.working():
        pass
    before = await place.shape()
    adapter = "libsql" if place.url.startswith("libsql") else "postgres"
    module = f"flotilla.stores.{adapter}.store.read_migrations"
    known = read_migrations(f"flotilla.stores.{adapter}")
    newer = [*known, Migration(len(known) + 1, "more", "select 1")]
    monkeypatch.setattr(module, lambda _package: newer)

    error = await refusal(place)

    assert "schema-older" == error.code
    versions = f"event_store is at schema version {len(known)} and this code reads {len(newer)}"
    assert versions in str(error)
    assert before == await place.shape()


async def test_a_newer_schema_is_refused(place: Place) -> None:
    async with place.working():
        pass
    stamp = "0" if place.url.startswith("libsql") else "now()"
    await place.run(
        f"insert into schema_migration values ('event_store', 99, 'later', 'x', {stamp})"
    )

    error = await refusal(place)

    assert "schema-newer" == error.code
    assert "start the newer release" in str(error)


async def test_everything_can_be_read_beside_the_fleet_and_nothing_written(place: Place) -> None:
    async with place.working() as store, place.working(open_views):
        await commit_one(store, append(A, 0, '"1"', '"2"'), by=record("k", reply=b"r"))
        [first, _] = await store.pending(limit=10)
        await store.record([(first.position, Offset(1))])
        before = await place.shape()

        async with place.looking() as looked, place.looking(open_views) as views:
            assert await store.load(A) == await looked.load(A)
            assert await store.read(A) == await looked.read(A)
            assert await store.pending(limit=10) == await looked.pending(limit=10)
            assert await store.published(after=Offset(0), limit=9) == await looked.published(
                after=Offset(0), limit=9
            )
            assert 2 == (await looked.status()).committed
            assert [] == list(await views.checkpoints())
            with pytest.raises((Unavailable, ValueError), match=r"read-?only"):
                await commit_one(looked, append(A, 2, '"3"'))
            with pytest.raises((Unavailable, ValueError), match=r"read-?only"):
                await views.migrate("tally", ["create table tally (n bigint)"])

        assert before == await place.shape()
        assert Committed() == await commit_one(store, append(A, 2, '"3"'))
