"""Where events and views live. For composition roots only: everybody else knows the ports.

A store's URL says which adapter: `postgresql://…`, `libsql:///absolute/path.db`, `memory://name`.
Opening a store migrates its schema to what this version of the code needs. With `migrate=False` it is
opened for reading: nothing is created, migrated or written, and a schema that this code cannot read
is refused: looking at a fleet must not change it.
"""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from flotilla.clock import Clock
from flotilla.due import DueStore
from flotilla.keys import Erasure, KeyStore
from flotilla.lease import LeaseStore
from flotilla.outbox import Outbox
from flotilla.privacy import Vault
from flotilla.projection import Projection, ViewStore
from flotilla.service import KeysBinding
from flotilla.shadow import ShadowStore
from flotilla.store import EventStore
from flotilla.stores.moving import Kept


class ServiceStore(EventStore, Outbox, DueStore, Protocol):
    """A service's events, their outbox and what is due: one database, one transaction."""

    flights_max: int
    """How many commits at a time are worth having in flight (see `GroupCommitter`)."""


@asynccontextmanager
async def open_store(
    url: str, *, service: str, migrate: bool = True
) -> AsyncIterator[ServiceStore]:
    """Yield the event store of `service`, migrated and ready; or only to be read.

    Raises:
        ValueError: no adapter knows this URL.
        Unavailable: the database does not answer. Without `migrate` also: the schema is missing
            (`schema-missing`) or older than this code (`schema-older`).
        Corrupt: the database was written by a newer version, or is damaged.

    """
    match url.split("://", 1)[0]:
        case "postgresql" | "postgres":
            from flotilla.stores.postgres import PostgresStore  # noqa: PLC0415 - only what is used

            async with PostgresStore.open(url, service=service, migrate=migrate) as postgres:
                yield postgres
        case "libsql":
            from flotilla.stores.libsql import LibsqlStore  # noqa: PLC0415 - only what is used

            async with LibsqlStore.open(url, service=service, migrate=migrate) as libsql:
                yield libsql
        case "memory":
            from flotilla.stores.memory import MemoryStore  # noqa: PLC0415 - only what is used

            yield MemoryStore.named(url, service=service)
        case _:
            raise ValueError(_unknown(url))


@asynccontextmanager
async def open_views(url: str, *, service: str, migrate: bool = True) -> AsyncIterator[ViewStore]:
    """Yield the read models of `service`, with the checkpoint table ready. Raises as `open_store`."""
    match url.split("://", 1)[0]:
        case "postgresql" | "postgres":
            from flotilla.stores.postgres import PostgresViews  # noqa: PLC0415 - only what is used

            async with PostgresViews.open(url, service=service, migrate=migrate) as postgres:
                yield postgres
        case "libsql":
            from flotilla.stores.libsql import LibsqlViews  # noqa: PLC0415 - only what is used

            async with LibsqlViews.open(url, service=service, migrate=migrate) as libsql:
                yield libsql
        case _:
            raise ValueError(_unknown(url))


@asynccontextmanager
async def open_leases(url: str, *, service: str, migrate: bool = True) -> AsyncIterator[LeaseStore]:
    """Yield the leases on what `service` owns; see `open_store` for `migrate`, and what it raises."""
    match url.split("://", 1)[0]:
        case "postgresql" | "postgres":
            from flotilla.stores.postgres import PostgresLeases  # noqa: PLC0415 - only what is used

            async with PostgresLeases.open(url, service=service, migrate=migrate) as postgres:
                yield postgres
        case "libsql":
            from flotilla.stores.libsql import LibsqlLeases  # noqa: PLC0415 - only what is used

            async with LibsqlLeases.open(url, service=service, migrate=migrate) as libsql:
                yield libsql
        case "memory":
            from flotilla.stores.memory_leases import MemoryLeases  # noqa: PLC0415 - only what is used

            yield MemoryLeases.named(url, service=service)
        case _:
            raise ValueError(_unknown(url))


@asynccontextmanager
async def open_keys(url: str, *, migrate: bool = True) -> AsyncIterator[KeyStore]:
    """Yield the data keys of a fleet; see `open_store` for `migrate`, and what it raises."""
    match url.split("://", 1)[0]:
        case "postgresql" | "postgres":
            from flotilla.stores.postgres import PostgresKeys  # noqa: PLC0415 - only what is used

            async with PostgresKeys.open(url, migrate=migrate) as postgres:
                yield postgres
        case "libsql":
            from flotilla.stores.libsql import LibsqlKeys  # noqa: PLC0415 - only what is used

            async with LibsqlKeys.open(url, migrate=migrate) as libsql:
                yield libsql
        case "memory":
            from flotilla.stores.memory_keys import MemoryKeys  # noqa: PLC0415 - only what is used

            yield MemoryKeys.named(url)
        case _:
            raise ValueError(_unknown(url))


@asynccontextmanager
async def open_vault(
    keys: KeysBinding, *, clock: Clock, erasures: AsyncIterable[Erasure]
) -> AsyncIterator[Vault]:
    """Yield the vault of a process, after what the log says was erased has been destroyed again.

    `erasures` are all there ever were: keys restored from a backup are alive again until then.

    Raises:
        Corrupt: there are keys that no master key here opens (`master-key-unknown`).
        ValueError, Unavailable: as `open_store`.

    """
    async with open_keys(keys.url) as store:
        vault = Vault(store, keys.master, clock)
        await vault.reconcile(erasures)
        await vault.check()
        yield vault


@asynccontextmanager
async def open_shadows(
    url: str, *, service: str, projection: Projection, clock: Clock
) -> AsyncIterator[ShadowStore]:
    """Yield the places of one projection's view among those of `service`. Raises as `open_store`."""
    match url.split("://", 1)[0]:
        case "postgresql" | "postgres":
            from flotilla.stores.postgres.shadows import (  # noqa: PLC0415 - only what is used
                PostgresShadows,
            )

            async with PostgresShadows.open(
                url, service=service, projection=projection, clock=clock
            ) as postgres:
                yield postgres
        case "libsql":
            from flotilla.stores.libsql.shadows import (  # noqa: PLC0415 - only what is used
                LibsqlShadows,
            )

            async with LibsqlShadows.open(
                url, service=service, projection=projection, clock=clock
            ) as libsql:
                yield libsql
        case _:
            raise ValueError(_unknown(url))


@asynccontextmanager
async def open_kept(url: str, *, service: str, write: bool) -> AsyncIterator[Kept]:
    """Yield all that `service` keeps, to be moved from here, or with `write` to here.

    It is one transaction, which an error takes back. Raises as `open_store` without `migrate`.
    """
    match url.split("://", 1)[0]:
        case "postgresql" | "postgres":
            from flotilla.stores.postgres.kept import PostgresKept  # noqa: PLC0415 - only what is used

            async with PostgresKept.open(url, service=service, write=write) as postgres:
                yield postgres
        case "libsql":
            from flotilla.stores.libsql.kept import LibsqlKept  # noqa: PLC0415 - only what is used

            async with LibsqlKept.open(url, write=write) as libsql:
                yield libsql
        case _:
            raise ValueError(_unknown(url))


def _unknown(url: str) -> str:
    scheme = url.split("://", 1)[0]
    return (
        f"no store adapter for {scheme!r}; write postgresql://…, libsql:///path.db or memory://name"
    )
