"""How far the library's followers are, in a table of ours."""

from typing import Any

from eventsourcing import postgres
from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Literal

from flotilla.interop.datastore import migrate

_INSERT_TRACKING = SQL(
    "insert into eventsourcing_tracking as t (tracker, application_name, notification_id)"
    " values ({}, %(application_name)s, %(notification_id)s)"
    " on conflict (tracker, application_name) do update"
    " set notification_id = excluded.notification_id"
    " where t.notification_id < excluded.notification_id returning notification_id"
)
_MAX_TRACKING_ID = SQL(
    "select max(notification_id) as max from eventsourcing_tracking"
    " where tracker = {} and application_name = %s"
)


class FlotillaTrackingRecorder(postgres.PostgresTrackingRecorder):
    """How far a follower is in the logs that it follows, for its own tables in the same schema."""

    def __init__(
        self,
        datastore: postgres.PostgresDatastore,
        *,
        tracking_table_name: str = "notification_tracking",
        **kwargs: Any,
    ) -> None:
        super().__init__(datastore, tracking_table_name=tracking_table_name, **kwargs)
        self.sql_create_statements.clear()  # its table is in our migration
        tracker = Literal(tracking_table_name)
        self.insert_tracking_statement = _INSERT_TRACKING.format(tracker)
        self.max_tracking_id_statement = _MAX_TRACKING_ID.format(tracker)

    def create_table(self) -> None:
        """Migrate the service's schema, and create what a subclass added."""
        migrate(self.datastore)
        postgres.PostgresRecorder.create_table(self)

    def _create_table(self, curs: Cursor[DictRow]) -> None:
        postgres.PostgresRecorder._create_table(self, curs)  # noqa: SLF001 - no migration of its own
