"""The library's recorders on our tables; `flotilla.interop.eventsourcing` says what happens in them."""

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from eventsourcing import persistence, postgres
from eventsourcing.persistence import (
    Notification,
    StoredEvent,
    Tracking,
)
from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL

from flotilla.clock import uuid7
from flotilla.errors import EventTooLarge
from flotilla.interop.datastore import ORDER, has_uuids, migrate, retried
from flotilla.interop.shape import Row, to_event, to_row
from flotilla.interop.tracking import FlotillaTrackingRecorder

POLL_INTERVAL_S = 0.1
"""How long a subscription may not see what another process wrote."""

_APPEND = SQL(
    "select eventsourcing_append(%s, %s, %s::text[], %s::text[], %s::bigint[], %s::uuid[],"
    " %s::text[], %s::text[], %s::text[]) as id"
)
_IS_WRITTEN = (
    "select from eventsourcing_originator o join event e on e.stream = o.stream"
    " where e.event_id = %s and o.originator_id = %s and e.version = %s + 1 - o.initial_version"
)
_IDS_OF = (
    "select n.notification_id as id"
    " from unnest(%s::text[], %s::bigint[]) as r (originator_id, version)"
    " join eventsourcing_originator o using (originator_id)"
    " join eventsourcing_notification n"
    " on n.stream = o.stream and n.version = r.version + 1 - o.initial_version order by 1"
)
_COLUMNS = SQL("e.stream, e.payload::text as payload, e.metadata::text as metadata")
_EVENTS = SQL(
    "select {} from eventsourcing_originator o join event e on e.stream = o.stream"
    " where o.originator_id = %(originator)s"
    " and (%(gt)s::bigint is null or e.version > %(gt)s::bigint + 1 - o.initial_version)"
    " and (%(lte)s::bigint is null or e.version <= %(lte)s::bigint + 1 - o.initial_version)"
    " order by e.version {} limit %(limit)s"
)
_NOTIFICATIONS = SQL(
    "select n.notification_id, {} from eventsourcing_notification n"
    " join event e on e.stream = n.stream and e.version = n.version"
    " where n.notification_id >= %(first)s"
    " and (%(stop)s::bigint is null or n.notification_id <= %(stop)s::bigint)"
    " {} order by n.notification_id limit %(limit)s"
)
_OF_TOPICS = SQL("and e.metadata ->> 'topic' = any (%(topics)s)")
_HEAD = "select max(notification_id) as id from eventsourcing_notification"


@dataclass(frozen=True, slots=True)
class Log:
    """Where an application's events go: the log of `service`, as streams of `tenant`."""

    service: str
    tenant: str
    application: str

    @property
    def writer(self) -> str:
        """Who may number events in this log: the first who did, and nobody else."""
        return f"{self.tenant}/{self.application or 'application'}"


class FlotillaAggregateRecorder(postgres.PostgresRecorder, persistence.AggregateRecorder):
    """Events in our tables and in the outbox, without notification ids."""

    is_numbered = False

    def __init__(self, datastore: postgres.PostgresDatastore, *, log: Log) -> None:
        super().__init__(datastore)
        self.log = log

    def create_table(self) -> None:
        """Migrate the service's schema; a subclass's `sql_create_statements` come after it."""
        migrate(self.datastore)
        postgres.PostgresRecorder.create_table(self)

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Append events; return their notification ids, if this recorder numbers them.

        Raises:
            IntegrityError: an event is not the next one of its originator. Nothing was written.
            DataError: an event cannot be stored, or is too large to be published. The same.

        """
        try:
            rows = [to_row(event, self.log.tenant) for event in stored_events]
        except (ValueError, EventTooLarge) as error:
            raise persistence.DataError(str(error)) from error
        _check_consecutive(rows)
        event_ids = [uuid7() for _ in rows]
        try:
            ids: Sequence[int] = self._insert_rows(rows, event_ids, stored_events, **kwargs)
        except persistence.IntegrityError:
            # The connection may have been lost after the commit; then the retry met ourselves.
            if not rows or not self._is_written(rows[0], event_ids[0]):
                raise
            ids = self._ids_of(rows)
        return ids or None

    @retried
    def _insert_rows(
        self,
        rows: Sequence[Row],
        event_ids: Sequence[UUID],
        stored_events: Sequence[StoredEvent],
        **kwargs: Any,
    ) -> Sequence[int]:
        with self.datastore.get_connection() as connection:
            if not self._has_more_to_insert(**kwargs):
                return self._append(connection.cursor(), rows, event_ids)
            with connection.transaction():
                cursor = connection.cursor()
                self._insert_events(cursor, stored_events, **kwargs)
                return self._append(cursor, rows, event_ids)

    def _has_more_to_insert(self, **kwargs: Any) -> bool:
        """Say whether there is more than the append, which is a transaction by itself.

        A subclass that overrides `_insert_events` gets one around both.
        """
        hook = type(self)._insert_events  # noqa: SLF001 - ours
        return bool(kwargs) or hook is not FlotillaAggregateRecorder._insert_events

    def _insert_events(
        self, curs: Cursor[DictRow], stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> None:
        """Write what belongs into the transaction of these events: for subclasses."""

    def _append(
        self, cursor: Cursor[DictRow], rows: Sequence[Row], event_ids: Sequence[UUID]
    ) -> Sequence[int]:
        if not rows:
            return []
        arguments = (
            self.log.service,
            self.log.writer if self.is_numbered else None,
            [row.originator for row in rows],
            [row.stream for row in rows],
            [row.version for row in rows],
            list(event_ids),
            [row.type for row in rows],
            [row.payload for row in rows],
            [row.metadata for row in rows],
        )
        cursor.execute(_APPEND, arguments, prepare=True)
        return sorted(row["id"] for row in cursor.fetchall())

    @retried
    def _is_written(self, row: Row, event_id: UUID) -> bool:
        with self.datastore.get_connection() as connection:
            found = connection.execute(_IS_WRITTEN, (event_id, row.originator, row.version))
            return found.fetchone() is not None

    @retried
    def _ids_of(self, rows: Sequence[Row]) -> Sequence[int]:
        arguments = ([row.originator for row in rows], [row.version for row in rows])
        with self.datastore.get_connection() as connection:
            return [row["id"] for row in connection.execute(_IDS_OF, arguments).fetchall()]

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
        """Return an originator's events with versions in (gt, lte]."""
        bounds = {"originator": str(originator_id), "gt": gt, "lte": lte, "limit": limit}
        with self.datastore.get_connection() as connection:
            query = _EVENTS.format(_COLUMNS, ORDER[bool(desc)])
            found = connection.execute(query, bounds, prepare=True).fetchall()
        return [to_event(row, uuids=has_uuids(self.datastore)) for row in found]


class FlotillaApplicationRecorder(FlotillaAggregateRecorder, persistence.ApplicationRecorder):
    """Events in our tables, in the outbox, and in the application's notification log."""

    is_numbered = True

    def __init__(self, datastore: postgres.PostgresDatastore, *, log: Log) -> None:
        super().__init__(datastore, log=log)
        self._subscriptions: weakref.WeakSet[FlotillaSubscription] = weakref.WeakSet()
        self._subscribing = threading.Lock()

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Append events and return their notification ids; see `FlotillaAggregateRecorder`."""
        ids = super().insert_events(stored_events, **kwargs)
        with self._subscribing:
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            subscription.wake()
        return ids

    @retried
    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return up to `limit` notifications from `start` to `stop`, in the order of commits."""
        first = 0 if start is None else start if inclusive_of_start else start + 1
        bounds = {"first": first, "stop": stop, "topics": list(topics), "limit": limit}
        query = _NOTIFICATIONS.format(_COLUMNS, _OF_TOPICS if topics else SQL(""))
        with self.datastore.get_connection() as connection:
            found = connection.execute(query, bounds, prepare=True).fetchall()
        uuids = has_uuids(self.datastore)
        return [cast("Notification", to_event(row, uuids=uuids)) for row in found]

    @retried
    def max_notification_id(self) -> int | None:
        """Return the head of the log; everything up to it is visible and stays as it is."""
        with self.datastore.get_connection() as connection:
            row = connection.execute(_HEAD).fetchone()
        return row["id"] if row else None

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> persistence.Subscription[persistence.ApplicationRecorder]:
        """Return an iterator over the notifications after `gt`, and then over new ones."""
        subscription = FlotillaSubscription(self, gt=gt, topics=topics)
        with self._subscribing:
            self._subscriptions.add(subscription)
        subscription.wake()
        return subscription


class FlotillaSubscription(persistence.ListenNotifySubscription[FlotillaApplicationRecorder]):
    """A subscription that is woken by its own process, and polls for what others wrote."""

    def wake(self) -> None:
        """Look for new notifications now."""
        self._has_been_notified.set()

    def _loop_on_pull(self) -> None:
        try:
            while not self._has_been_stopped:
                self._pull()
                self._has_been_notified.wait(POLL_INTERVAL_S)
        except BaseException as error:  # noqa: BLE001 - the reader of the subscription raises it
            if self._thread_error is None:
                self._thread_error = error
            self.stop()

    def _pull(self) -> None:
        self._has_been_notified.clear()
        seen, head = self._last_notification_id or 0, self._recorder.max_notification_id() or 0
        if head <= seen:
            return
        super()._pull()
        # What was not of our topics up to the head need not be read again: the order of ids is the
        # order of commits, so nothing will appear below it.
        if not self._has_been_stopped:
            self._last_notification_id = max(self._last_notification_id or 0, head)


class FlotillaProcessRecorder(
    FlotillaTrackingRecorder, FlotillaApplicationRecorder, persistence.ProcessRecorder
):
    """An application that follows others: its events and its tracking in one transaction."""

    def __init__(
        self,
        datastore: postgres.PostgresDatastore,
        *,
        log: Log,
        tracking_table_name: str = "notification_tracking",
    ) -> None:
        super().__init__(datastore, tracking_table_name=tracking_table_name, log=log)

    def _insert_events(
        self, curs: Cursor[DictRow], stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> None:
        tracking: Tracking | None = kwargs.get("tracking")
        if tracking is not None:
            self._insert_tracking(curs, tracking)
        super()._insert_events(curs, stored_events, **kwargs)


def _check_consecutive(rows: Sequence[Row]) -> None:
    last: dict[str, int] = {}
    for row in rows:
        if row.version != last.get(row.originator, row.version - 1) + 1:
            raise persistence.IntegrityError(
                f"{row.originator}: version {row.version} does not follow {last[row.originator]}"
            )
        last[row.originator] = row.version
