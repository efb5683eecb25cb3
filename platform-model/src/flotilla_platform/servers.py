"""The servers that a topology brings along, for as long as its process lives."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from flotilla.embedded import PostgresServer, run_nats, run_postgres
from flotilla_platform.model import Layout, Service
from flotilla_platform.shutdown import Shutdown


@dataclass(frozen=True, slots=True)
class Servers:
    """Where what the topology binds can be reached."""

    nats_url: str
    stores: dict[str, str]
    """The URL of each store, by the service that keeps something in it."""
    postgres: str | None
    """Where the PostgreSQL server is; None where stores are files."""


async def start_servers(
    topology: Layout,
    services: Sequence[Service],
    data: Path,
    stack: AsyncExitStack,
    shutdown: Shutdown,
) -> Servers:
    """Start the servers of `topology` in `data`; `stack` ends them.

    Raises:
        EmbeddedError: one is missing, or does not start.

    """
    stores, postgres = await start_stores(topology, services, data, stack)
    if postgres is not None:
        shutdown.owns(postgres)
    nats = await stack.enter_async_context(run_nats(data))
    shutdown.owns(nats)
    return Servers(nats.url, stores, postgres.dsn if postgres else None)


async def start_stores(
    topology: Layout, services: Sequence[Service], data: Path, stack: AsyncExitStack
) -> tuple[dict[str, str], PostgresServer | None]:
    """Start what the stores of `topology` need in `data`; return their URLs, and the server if any.

    Raises `EmbeddedError` when it is missing, or does not start.
    """
    keeping = [service.name for service in services if service.keeps]
    match topology.resources.store.engine:
        case "postgres":
            postgres = await stack.enter_async_context(run_postgres(data))
            return dict.fromkeys(keeping, postgres.dsn), postgres
        case "libsql":
            return {name: f"libsql://{data / name}.db" for name in keeping}, None
        case engine:
            raise ValueError(f"no store is a {engine}")
