"""PostgreSQL from the wheel: it keeps what was committed, and comes back by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from flotilla.embedded import EmbeddedError, postgres, run_postgres

STOP_LIMIT_S = 5.0
CLEAR_ERROR_LIMIT_S = 10.0


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def value(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    async with run_postgres(tmp_path) as server:
        await execute(server.dsn, "CREATE TABLE t AS SELECT 7 AS n")
        async with asyncio.timeout(STOP_LIMIT_S):
            await server.stop()
        await server.start()
        assert await value(server.dsn, "SELECT n FROM t") == 7
    async with run_postgres(tmp_path, settings={"max_connections": "17"}) as server:
        assert await value(server.dsn, "SELECT n FROM t") == 7
        assert await value(server.dsn, "SHOW max_connections") == "17"


async def test_it_is_durable_private_and_speaks_utf8(tmp_path: Path) -> None:
    async with run_postgres(tmp_path) as server:
        assert await value(server.dsn, "SELECT current_user || '@' || current_database()") == (
            "fleet@flotilla"
        )
        for setting, expected in {
            "fsync": "on",
            "synchronous_commit": "on",
            "listen_addresses": "",
            "server_encoding": "UTF8",
            "data_checksums": "on",
        }.items():
            assert await value(server.dsn, f"SHOW {setting}") == expected, setting
        assert (tmp_path / "sock").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "pg").stat().st_mode & 0o777 == 0o700


async def test_what_a_superuser_made_is_the_clients_after_the_next_start(tmp_path: Path) -> None:
    """An older release, whose clients were superusers, or a restore."""
    async with run_postgres(tmp_path) as server:
        await execute(
            server.superuser_dsn,
            "CREATE SCHEMA old; CREATE TABLE old.t (n bigint GENERATED ALWAYS AS IDENTITY);"
            " CREATE VIEW old.v AS SELECT n FROM old.t;"
            " CREATE FUNCTION old.f() RETURNS int LANGUAGE sql RETURN 1",
        )
        await server.stop()
        await server.start()
        await execute(
            server.dsn,
            "ALTER TABLE old.t ADD COLUMN m int; DROP VIEW old.v; DROP FUNCTION old.f();"
            " INSERT INTO old.t DEFAULT VALUES; CREATE SCHEMA fresh",
        )
        query = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        assert (False, True) == (
            await value(server.dsn, query),
            await value(server.superuser_dsn, query),
        )


async def test_a_killed_postmaster_comes_back_by_itself_with_everything_committed(
    tmp_path: Path, eventually: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
) -> None:
    async with run_postgres(tmp_path) as server:
        first_pid, dsn = server.pid, server.dsn
        await execute(dsn, "CREATE TABLE t AS SELECT 7 AS n")
        busy = await asyncpg.connect(dsn)
        try:
            await server.kill()

            async def serves_again() -> bool:
                return await value(dsn, "SELECT n FROM t") == 7

            await eventually(serves_again)
            assert server.pid != first_pid
        finally:
            busy.terminate()


async def test_a_session_that_is_open_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    async with run_postgres(tmp_path) as server:
        idle = await asyncpg.connect(server.dsn)
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                await server.stop()
        finally:
            idle.terminate()


@pytest.mark.parametrize("folder", ["x" * 120, 'with, comma & "blank" größe'])
async def test_a_path_that_no_socket_could_have_works_and_leaves_nothing_in_tmp(
    tmp_path: Path, folder: str
) -> None:
    data = tmp_path / folder
    async with run_postgres(data) as server:
        sockets = (data / "sock").readlink()
        assert await value(server.dsn, "SELECT 1") == 1
    assert not sockets.exists()
    assert not (data / "sock").is_symlink()


async def test_a_creation_that_was_interrupted_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "pg").mkdir()
    (tmp_path / "pg.tmp" / "base").mkdir(parents=True)
    (tmp_path / "pg.tmp" / "PG_VERSION").write_text("18\n")
    async with run_postgres(tmp_path) as server:
        assert await value(server.dsn, "SELECT 1") == 1


async def damage(data: Path, how: str) -> None:
    control = data / "pg" / "global" / "pg_control"
    match how:
        case "garbage":
            control.write_bytes(b"garbage" * 1000)
        case "missing":
            control.unlink()
        case "no wal":
            for segment in (data / "pg" / "pg_wal").glob("0*"):
                segment.unlink()


@pytest.mark.parametrize("how", ["garbage", "missing", "no wal"])
async def test_a_damaged_cluster_gives_one_clear_error(tmp_path: Path, how: str) -> None:
    async with run_postgres(tmp_path):
        pass
    await damage(tmp_path, how)
    async with asyncio.timeout(CLEAR_ERROR_LIMIT_S):
        with pytest.raises(EmbeddedError) as caught:
            async with run_postgres(tmp_path):
                pass
    assert caught.value.code == "server-failed"
    cause = {"garbage": "PG_CONTROL_VERSION", "missing": "pg_control", "no wal": "checkpoint"}[how]
    assert cause in str(caught.value)
    assert "restore it from a backup" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["17", None])
async def test_a_cluster_of_another_version_is_refused_and_left_alone(
    tmp_path: Path, version: str | None
) -> None:
    async with run_postgres(tmp_path):
        pass
    marker = tmp_path / "pg" / "PG_VERSION"
    marker.unlink()
    if version is not None:
        marker.write_text(f"{version}\n")
    with pytest.raises(EmbeddedError, match=version or "no PG_VERSION") as caught:
        async with run_postgres(tmp_path):
            pass
    assert caught.value.code == "data-directory-corrupt"
    assert (tmp_path / "pg" / "global" / "pg_control").exists()


async def test_a_setting_it_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="shared_bufers") as caught:
        async with run_postgres(tmp_path, settings={"shared_bufers": "1GB"}):
            pass
    assert caught.value.code == "server-failed"


async def test_psql_understands_the_address(tmp_path: Path) -> None:
    psql = postgres._find_binaries() / "psql"
    async with run_postgres(tmp_path) as server:
        process = await asyncio.create_subprocess_exec(
            psql, "--no-psqlrc", "-Atc", "SELECT 41 + 1", server.dsn, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(CLEAR_ERROR_LIMIT_S):
            out, _ = await process.communicate()
    assert out == b"42\n"
