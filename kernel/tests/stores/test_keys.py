"""Every key store keeps the contract; what was destroyed is not in libSQL's files either."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from flotilla.embedded import PostgresServer
from flotilla.errors import Conflict
from flotilla.keys import COPY_KEYS_MAX, Erasure, copy_keys
from flotilla.stores.libsql import LibsqlKeys
from flotilla.stores.memory_keys import MemoryKeys
from flotilla.stores.postgres import PostgresKeys
from flotilla.stores.postgres.keys import HELD, NOT_VACUUMED, REMAINS
from flotilla.testing import KeyStoreContract
from flotilla.testing.keys import a_key


class TestMemoryKeys(KeyStoreContract):
    @pytest.fixture
    def store(self) -> MemoryKeys:
        return MemoryKeys()


class TestLibsqlKeys(KeyStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[LibsqlKeys]:
        async with LibsqlKeys.open(f"libsql://{tmp_path}/keys.db") as store:
            yield store

    async def test_no_byte_of_a_destroyed_key_is_left_in_its_files(self, tmp_path: Path) -> None:
        url = f"libsql://{tmp_path}/keys.db"
        material = [a_key(id_=n).wrapped or b"" for n in range(1, 200)]
        async with LibsqlKeys.open(url) as store:
            for n in range(1, 200):
                await store.create(a_key(f"s{n}", id_=n))
            assert any(key in _bytes_of(tmp_path) for key in material)

            await store.destroy(Erasure("acme"))
            assert () == await store.scrub()

            assert not [key for key in material if key in _bytes_of(tmp_path)]

    async def test_a_reader_in_the_way_is_told_and_the_next_scrub_does_the_rest(
        self, tmp_path: Path
    ) -> None:
        url = f"libsql://{tmp_path}/keys.db"
        async with LibsqlKeys.open(url, lock_wait_s=0.05) as store:
            key = await store.create(a_key())
            assert key.wrapped
            async with LibsqlKeys.open(url) as other:
                lane = other._database.reader
                await lane.run(lambda c: (c.run("begin"), c.rows("select * from data_key")))
                await store.destroy(Erasure("acme"))

                [words] = await store.scrub()
                assert "somebody reads it" in words
                await lane.run(lambda c: c.rollback())

            assert () == await store.scrub()
            assert key.wrapped not in _bytes_of(tmp_path)


class TestPostgresKeys(KeyStoreContract):
    @pytest.fixture
    async def store(self, postgres_server: PostgresServer) -> AsyncIterator[PostgresKeys]:
        schema = f"s{uuid4().hex[:12]}"  # each test has one of its own on the shared server
        async with PostgresKeys.open(postgres_server.dsn, schema=schema) as store:
            yield store


async def test_a_role_that_does_not_own_the_keys_destroys_them_and_says_what_it_may_not(
    postgres_server: PostgresServer,
) -> None:
    schema, role = (f"{letter}{uuid4().hex[:12]}" for letter in "sr")
    async with PostgresKeys.open(postgres_server.dsn, schema=schema) as owner:
        await owner.create(a_key())
        assert REMAINS == await owner.scrub()
    admin = await asyncpg.connect(postgres_server.superuser_dsn)
    try:
        await admin.execute(f"""
            create role {role} login;
            grant usage on schema {schema} to {role};
            grant select on {schema}.schema_migration to {role};
            grant select, insert, update on {schema}.data_key to {role};
        """)
        async with PostgresKeys.open(_as_role(postgres_server.dsn, role), schema=schema) as store:
            await store.create(a_key("bob", id_=2))
            assert 2 == (await store.destroy(Erasure("acme"))).keys
            assert (NOT_VACUUMED, *REMAINS) == await store.scrub()

        async with PostgresKeys.open(postgres_server.dsn, schema=schema) as owner:
            async with admin.transaction():
                await admin.execute(f"lock table {schema}.data_key in share mode")
                assert (HELD, *REMAINS) == await owner.scrub()
            assert REMAINS == await owner.scrub()
            assert 0 == (await owner.status()).alive
    finally:
        await admin.close()


def _as_role(dsn: str, role: str) -> str:
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    query = "&".join(part for part in parts.query.split("&") if part and "user=" not in part)
    return urlunsplit(parts._replace(netloc=f"{role}@{host}", query=query))


async def test_keys_are_copied_to_another_store_once(tmp_path: Path) -> None:
    source = MemoryKeys()
    for n in range(1, COPY_KEYS_MAX + 3):
        await source.create(a_key(f"s{n}", id_=n))
    await source.destroy(Erasure("acme", "s1"))
    async with LibsqlKeys.open(f"libsql://{tmp_path}/keys.db") as target:
        assert COPY_KEYS_MAX + 1 == await copy_keys(source, target)
        assert COPY_KEYS_MAX + 1 == await copy_keys(source, target)

        assert a_key("s2", id_=2) == await target.of_subject("acme", "s2")
        assert await target.of_subject("acme", "s1") is None
        await target.destroy(Erasure("acme", "s2"))
        with pytest.raises(Conflict, match="other keys"):
            await copy_keys(source, target)


def _bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))
