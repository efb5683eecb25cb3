"""Real servers without an installation: NATS and PostgreSQL from wheels, as supervised children.

A topology that owns its machine claims a data directory, runs what it needs inside it, and passes
the addresses on. Nothing here is a dependency of production images: those bring their own servers.

    with DataDirectory.claim(Path("data"), topology="single-postgres") as directory:
        async with run_nats(directory.path) as nats, run_postgres(directory.path) as postgres:
            directory.runtime_write({"nats": nats.url, "postgres": postgres.dsn})
"""

from importlib import import_module
from typing import TYPE_CHECKING

from flotilla.embedded.data_directory import DataDirectory, runtime_read, topology_of
from flotilla.embedded.errors import EmbeddedError

if TYPE_CHECKING:
    from flotilla.embedded.nats import NatsServer, run_nats
    from flotilla.embedded.postgres import PostgresServer, run_postgres
else:
    # Who only looks at what runs in a data directory does not wait for asyncpg.
    _SERVERS = {
        "NatsServer": "nats",
        "PostgresServer": "postgres",
        "run_nats": "nats",
        "run_postgres": "postgres",
    }

    def __getattr__(name: str) -> object:
        """Import a server's module when one of its names is asked for (PEP 562)."""
        if name not in _SERVERS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_SERVERS[name]}"), name)


__all__ = [
    "DataDirectory",
    "EmbeddedError",
    "NatsServer",
    "PostgresServer",
    "run_nats",
    "run_postgres",
    "runtime_read",
    "topology_of",
]
