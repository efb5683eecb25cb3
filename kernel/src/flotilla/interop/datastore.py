"""The library's datastore, in the schema of a service: its connections, its tables, its retries."""

from typing import Any, cast

from eventsourcing.persistence import InterfaceError, OperationalError
from eventsourcing.postgres import PostgresDatastore
from eventsourcing.utils import retry
from psycopg.sql import SQL, Identifier

from flotilla.stores.migrations import AppliedMigration, plan, read_migrations
from flotilla.stores.postgres.connection import SERVER_SETTINGS
from flotilla.stores.postgres.isolation import EVERY_TENANT, OF_NOBODY, OPEN_TABLES, closing

MIGRATION_LOCK = 0x666C6F74  # the one of flotilla.stores.postgres: both migrate one schema
ORDER = {False: SQL("asc"), True: SQL("desc")}

# As the library does it: a lost connection is tried again, an IntegrityError never.
retried = retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)


def migrate(datastore: PostgresDatastore) -> None:
    """Bring our tables and the library's in the datastore's schema to what this code needs.

    Safe from many processes at once, and beside `PostgresStore.open`, which records the same
    migrations. Raises `Corrupt` as `flotilla.stores.migrations.plan` does.
    """
    components = {
        "event_store": read_migrations("flotilla.stores.postgres"),
        "eventsourcing": read_migrations("flotilla.interop"),
    }
    schema = Identifier(datastore.schema)
    with datastore.transaction(commit=True) as cursor:
        cursor.execute("set local lock_timeout = '60s'; set local statement_timeout = 0")
        cursor.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        cursor.execute(SQL("create schema if not exists {}").format(schema))
        cursor.execute(
            "create table if not exists schema_migration ("
            " component text not null, version integer not null, name text not null,"
            " checksum text not null, applied_at timestamptz not null default now(),"
            " primary key (component, version))"
        )
        for component, available in components.items():
            cursor.execute(
                "select version, checksum from schema_migration where component = %s", (component,)
            )
            applied = [AppliedMigration(r["version"], r["checksum"]) for r in cursor.fetchall()]
            for step in plan(component, available, applied):
                cursor.execute(step.sql.encode())
                cursor.execute(
                    "insert into schema_migration (component, version, name, checksum)"
                    " values (%s, %s, %s, %s)",
                    (component, step.version, step.name, step.checksum),
                )
        cursor.execute(OPEN_TABLES.replace("$1", "%s"), (list(OF_NOBODY),))
        for row in cursor.fetchall():
            cursor.execute(closing(row["name"], row["columns"]).encode())


def configure(datastore: PostgresDatastore) -> None:
    """Make every connection work in the service's schema, as `PostgresStore`'s own do.

    For every tenant: the library knows none, and its originators are an application's own.
    """
    settings = SERVER_SETTINGS | EVERY_TENANT | {"search_path": datastore.schema}
    if datastore.lock_timeout:
        settings["lock_timeout"] = f"{datastore.lock_timeout}s"
    kwargs = cast("dict[str, Any]", datastore.pool.kwargs)
    kwargs["application_name"] = f"flotilla-eventsourcing-{datastore.schema}"
    kwargs["options"] = " ".join(f"-c {name}={value}" for name, value in settings.items())


def has_uuids(datastore: PostgresDatastore) -> bool:
    """Say whether originators are UUIDs, and not text."""
    return datastore.originator_id_type == "uuid"
