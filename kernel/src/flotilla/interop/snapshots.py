"""The library's snapshots: beside the events, never published."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventsourcing import persistence, postgres
from eventsourcing.persistence import StoredEvent
from psycopg.sql import SQL

from flotilla.interop.datastore import ORDER, has_uuids, migrate, retried

_INSERT_SNAPSHOT = (
    "insert into eventsourcing_snapshot (kind, originator_id, originator_version, topic, state)"
    " values (%s, %s, %s, %s, %s)"
)
_SNAPSHOTS = SQL(
    "select originator_id, originator_version, topic, state from eventsourcing_snapshot"
    " where kind = %(kind)s and originator_id = %(originator)s"
    " and (%(gt)s::bigint is null or originator_version > %(gt)s::bigint)"
    " and (%(lte)s::bigint is null or originator_version <= %(lte)s::bigint)"
    " order by originator_version {} limit %(limit)s"
)


class FlotillaSnapshotRecorder(postgres.PostgresRecorder, persistence.AggregateRecorder):
    """The library's snapshots: a cache beside the events, never published."""

    def __init__(self, datastore: postgres.PostgresDatastore, *, kind: str) -> None:
        super().__init__(datastore)
        self.kind = kind

    def create_table(self) -> None:
        """Migrate the service's schema."""
        migrate(self.datastore)

    @retried
    def insert_events(self, stored_events: Sequence[StoredEvent], **_kwargs: Any) -> None:
        """Store snapshots, all or none. Raises `IntegrityError` when one is there already."""
        rows = [
            (self.kind, str(e.originator_id), e.originator_version, e.topic, e.state)
            for e in stored_events
        ]
        if rows:
            with self.datastore.transaction(commit=True) as cursor:
                cursor.executemany(_INSERT_SNAPSHOT, rows)

    @retried
    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return an originator's snapshots at versions in (gt, lte]."""
        bounds = {
            "kind": self.kind,
            "originator": str(originator_id),
            "gt": gt,
            "lte": lte,
            "limit": limit,
        }
        with self.datastore.get_connection() as connection:
            query = _SNAPSHOTS.format(ORDER[bool(desc)])
            found = connection.execute(query, bounds, prepare=True).fetchall()
        uuids = has_uuids(self.datastore)
        return [
            StoredEvent(
                originator_id=UUID(row["originator_id"]) if uuids else row["originator_id"],
                originator_version=row["originator_version"],
                topic=row["topic"],
                state=bytes(row["state"]),
            )
            for row in found
        ]
