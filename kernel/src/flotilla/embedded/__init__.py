"""Real servers without an installation: NATS and PostgreSQL from wheels, as supervised children.

A topology that owns its machine claims a data directory, runs what it needs inside it, and passes
the addresses on. Nothing here is a dependency of production images: those bring their own servers.

    with DataDirectory.claim(Path("data"), topology="single-postgres") as directory:
        async with run_nats(directory.path) as nats, run_postgres(directory.path) as postgres:
            directory.runtime_write({"nats": nats.url, "postgres": postgres.dsn})
"""

from flotilla.embedded.data_directory import DataDirectory, runtime_read
from flotilla.embedded.errors import EmbeddedError
from flotilla.embedded.nats import NatsServer, run_nats
from flotilla.embedded.postgres import PostgresServer, run_postgres

__all__ = [
    "DataDirectory",
    "EmbeddedError",
    "NatsServer",
    "PostgresServer",
    "run_nats",
    "run_postgres",
    "runtime_read",
]
