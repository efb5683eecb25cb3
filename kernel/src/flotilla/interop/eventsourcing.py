"""A persistence module for the library `eventsourcing`, on our event store and its outbox.

An application that was written with the library publishes to JetStream by one setting:

    PERSISTENCE_MODULE=flotilla.interop.eventsourcing

beside its usual `POSTGRES_*`, and `FLOTILLA_SERVICE` (the schema and the log). What happens to an
event, in one transaction and one round trip:

    insert_events ─▶ eventsourcing_append() ─▶ event + aggregate + event_outbox   (ours: the relay's)
                                           └▶ eventsourcing_notification         (the library's log)

Notification ids do not come from the outbox: its positions are not given in the order of commits
(ADR 0001), and followers of the library remember a position. They come from one row a service that
every numbered append updates last and holds until it is committed. So ids are dense, their order is
the order of commits, and this module's writers to one service commit one after the other. Native
writers (`PostgresStore`) to the same service are neither slowed down nor able to break it.

No NOTIFY: subscriptions are woken by the writers of their own process and poll for others.
"""

import re

from eventsourcing import persistence, postgres
from eventsourcing.utils import Environment, EnvType, resolve_topic, strtobool

from flotilla.interop.datastore import configure
from flotilla.interop.recorders import (
    FlotillaAggregateRecorder,
    FlotillaApplicationRecorder,
    FlotillaProcessRecorder,
    Log,
)
from flotilla.interop.snapshots import FlotillaSnapshotRecorder
from flotilla.interop.tracking import FlotillaTrackingRecorder
from flotilla.store import stream_id
from flotilla.stores.postgres.connection import schema_of

__all__ = [
    "Factory",
    "FlotillaAggregateRecorder",
    "FlotillaApplicationRecorder",
    "FlotillaProcessRecorder",
    "FlotillaSnapshotRecorder",
    "FlotillaTrackingRecorder",
    "Log",
]


class Factory(postgres.PostgresFactory):
    """What `PERSISTENCE_MODULE=flotilla.interop.eventsourcing` stands for.

    Settings, besides the library's `POSTGRES_*`; as with those, `<APPLICATION>_` in front makes one
    of them for that application alone:

    - `FLOTILLA_SERVICE`: whose schema and log, e.g. `bank`. One service is written by one application.
    - `FLOTILLA_TENANT` (`default`): the first part of every stream id.
    """

    FLOTILLA_SERVICE = "FLOTILLA_SERVICE"
    FLOTILLA_TENANT = "FLOTILLA_TENANT"

    aggregate_recorder_class = FlotillaAggregateRecorder  # type: ignore[assignment]
    application_recorder_class = FlotillaApplicationRecorder  # type: ignore[assignment]
    tracking_recorder_class = FlotillaTrackingRecorder
    process_recorder_class = FlotillaProcessRecorder  # type: ignore[assignment]

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        service = self.env.get(self.FLOTILLA_SERVICE) or ""
        tenant = self.env.get(self.FLOTILLA_TENANT) or "default"
        self.log = Log(service, tenant, self.env.name.lower())
        schema = schema_of(service)
        _check_settings(self.env, schema, tenant)
        self.datastore.schema = schema
        configure(self.datastore)

    def aggregate_recorder(self, purpose: str = "events") -> persistence.AggregateRecorder:
        """Return a recorder of events without numbers, or (`snapshots`) of something beside them."""
        recorder: FlotillaAggregateRecorder | FlotillaSnapshotRecorder
        if purpose == "events":
            recorder = FlotillaAggregateRecorder(self.datastore, log=self.log)
        else:
            kind = f"{self.log.application or 'stored'}_{purpose}"
            recorder = FlotillaSnapshotRecorder(self.datastore, kind=kind)
        if self.env_create_table():
            recorder.create_table()
        return recorder

    def application_recorder(self) -> persistence.ApplicationRecorder:
        """Return the recorder of an application."""
        topic = self.env.get(self.APPLICATION_RECORDER_TOPIC)
        kind = resolve_topic(topic) if topic else FlotillaApplicationRecorder
        _check_class(kind, FlotillaApplicationRecorder)
        recorder: FlotillaApplicationRecorder = kind(self.datastore, log=self.log)
        if self.env_create_table():
            recorder.create_table()
        return recorder

    def process_recorder(self) -> persistence.ProcessRecorder:
        """Return the recorder of an application that follows others."""
        topic = self.env.get(self.PROCESS_RECORDER_TOPIC)
        kind = resolve_topic(topic) if topic else FlotillaProcessRecorder
        _check_class(kind, FlotillaProcessRecorder)
        tracker = f"{self.log.application or 'notification'}_tracking"
        recorder: FlotillaProcessRecorder = kind(
            self.datastore, log=self.log, tracking_table_name=tracker
        )
        if self.env_create_table():
            recorder.create_table()
        return recorder


def _check_settings(env: Environment, schema: str, tenant: str) -> None:
    """Raise `OSError`, as the library does for its own settings."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", schema):
        raise OSError(
            f"FLOTILLA_SERVICE is {schema!r}: name the service whose log this is, such as bank or"
            " bank-accounts"
        )
    if (other := env.get("POSTGRES_SCHEMA") or schema) != schema:
        raise OSError(
            f"POSTGRES_SCHEMA is {other!r}, but the service's schema is {schema!r}: leave it out"
        )
    if not strtobool(env.get("SINGLE_ROW_TRACKING") or "t"):
        raise OSError("SINGLE_ROW_TRACKING=no is the library's legacy and not supported here")
    try:
        stream_id(tenant, "aggregate", "key")
    except ValueError as error:
        raise OSError(f"FLOTILLA_TENANT: {error}") from error


def _check_class(kind: object, expected: type[object]) -> None:
    if not (isinstance(kind, type) and issubclass(kind, expected)):
        raise OSError(f"{kind!r} does not write our tables: derive it from {expected.__name__}")
