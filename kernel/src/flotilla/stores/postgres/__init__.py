"""Postgres (asyncpg): the event store, its outbox, and read models. A schema a service."""

from flotilla.stores.postgres.keys import PostgresKeys
from flotilla.stores.postgres.leases import PostgresLeases
from flotilla.stores.postgres.store import PostgresStore
from flotilla.stores.postgres.views import PostgresViews

__all__ = ["PostgresKeys", "PostgresLeases", "PostgresStore", "PostgresViews"]
