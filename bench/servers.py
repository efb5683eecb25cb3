"""The servers that a run starts for itself, and the proof that they sync what they acknowledge."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from flotilla.embedded import run_nats, run_postgres

DURABLE: Mapping[str, str] = {"fsync": "on", "synchronous_commit": "on"}
RECORDED = (*DURABLE, "wal_sync_method", "shared_buffers", "max_wal_size", "full_page_writes")
CONNECTIONS = {"max_connections": "200"}
"""Contenders keep their connections while others run: more than the embedded default's 100."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0


class NotDurableError(Exception):
    """A server would acknowledge what it has not synced: its figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Servers:
    """One PostgreSQL and one NATS that everything (but the fleet, which brings its own) uses."""

    dsn: str
    nats_url: str

    async def database(self, name: str) -> str:
        """Create a database; return its DSN."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(f'create database "{name}"')
        finally:
            await connection.close()
        return self.dsn.replace("@/flotilla?", f"@/{name}?", 1)


@dataclass(frozen=True, slots=True)
class Process:
    """A server in a process of its own."""

    url: str
    pid: int
    dsn: str | None = None


@asynccontextmanager
async def run_servers(folder: Path) -> AsyncIterator[Servers]:
    """Run both servers; data is in `folder`.

    Raises:
        NotDurableError: see `require_durable`.

    """
    async with run_postgres(folder, settings=CONNECTIONS) as postgres, run_nats(folder) as nats:
        await require_durable(postgres.dsn)
        yield Servers(postgres.dsn, nats.url)


async def require_durable(dsn: str) -> None:
    """Return if the server syncs every commit before it acknowledges it.

    Raises:
        NotDurableError: it does not.

    """
    settings = await postgres_settings(dsn)
    if wrong := {
        name: settings[name] for name, value in DURABLE.items() if settings[name] != value
    }:
        raise NotDurableError(f"refusing to measure a server with {wrong}; wanted {dict(DURABLE)}")


async def postgres_settings(dsn: str) -> dict[str, str]:
    """Return the version and the settings that matter."""
    connection = await asyncpg.connect(dsn)
    try:
        return {
            name: str(await connection.fetchval("select current_setting($1)", name))
            for name in ("server_version", *RECORDED)
        }
    finally:
        await connection.close()


def socket_of(dsn: str) -> tuple[str, str]:
    """Return the socket directory and the port in a DSN of the embedded server."""
    query = parse_qs(urlsplit(dsn).query)
    return query["host"][0], query["port"][0]


@asynccontextmanager
async def run_fleet(folder: Path) -> AsyncIterator[Process]:
    """Run `flotilla up --topology single-postgres`: the whole fleet in one process."""
    flotilla = Path(sys.executable).with_name("flotilla")
    arguments = ("up", "--topology", "single-postgres", "--port", "0", "--log-level", "error")
    command = (str(flotilla), *arguments, "--data", str(folder / "fleet"), "--json")
    async with _announced(*command) as (fleet, pid):
        dsn = fleet["stores"]["counter"]
        await require_durable(dsn)
        yield Process(fleet["api"], pid, dsn)


@asynccontextmanager
async def run_constant() -> AsyncIterator[Process]:
    """Run the same HTTP server with a route that answers a constant."""
    async with announced("bench.constant") as (constant, pid):
        yield Process(constant["api"], pid)


@asynccontextmanager
async def announced(module: str, *arguments: str) -> AsyncIterator[tuple[Any, int]]:
    """Run a module as a program; yield what its first line says, and its process id."""
    async with _announced(sys.executable, "-m", module, *arguments) as said:
        yield said


@asynccontextmanager
async def _announced(*command: str) -> AsyncIterator[tuple[Any, int]]:
    """Run a process whose first line on stdout is a JSON document about itself."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await process.stdout.readline() if process.stdout else b""
        yield json.loads(line), process.pid
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
