"""The schedules: what `flotilla schedules list` shows. Tables, apply, query: one module a read model."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from flotilla import Answer, LogEvent, Request, ViewSession, ViewStore
from flotilla.commands import parse
from flotilla.projection import Row
from flotilla_contracts.scheduler import (
    SERVICE,
    ListSchedules,
    ScheduleChanged,
    ScheduleCreated,
    ScheduleDeleted,
    ScheduleEntry,
    ScheduleFired,
    ScheduleMissed,
    SchedulePage,
    SchedulePaused,
    ScheduleResumed,
    Status,
    Timing,
)

NAME = "schedules"

_BEGIN = """
insert into schedule (
    tenant, schedule_id, version, paused, timing, next_at, last_at, fired, missed
) values ($1, $2, $3, 0, $4, $5, '', 0, 0)
"""
_CHANGE = """
update schedule set version = $1, timing = $2, next_at = $3 where tenant = $4 and schedule_id = $5
"""
_PAUSE = "update schedule set version = $1, paused = 1 where tenant = $2 and schedule_id = $3"
_RESUME = """
update schedule set version = $1, paused = 0, next_at = $2 where tenant = $3 and schedule_id = $4
"""
_FIRE = """
update schedule set version = $1, fired = fired + 1, last_at = $2, next_at = $3
where tenant = $4 and schedule_id = $5
"""
_FIRE_BY_HAND = """
update schedule set version = $1, fired = fired + 1 where tenant = $2 and schedule_id = $3
"""
_MISS = """
update schedule set version = $1, missed = missed + $2, next_at = $3
where tenant = $4 and schedule_id = $5
"""
_FORGET = "delete from schedule where tenant = $1 and schedule_id = $2"
_LIST = """
select schedule_id, version, paused, timing, next_at, last_at, fired, missed from schedule
where tenant = $1 and schedule_id > $2 order by schedule_id limit $3
"""


class SchedulesView:
    """A row a schedule: when it fires, and how often it did."""

    name = NAME
    log = SERVICE
    staleness_budget_s = 5.0
    tables = (
        """
create table schedule (
    tenant text not null,
    schedule_id text not null,
    version bigint not null,
    paused bigint not null,
    timing text not null,
    next_at text not null,
    last_at text not null,
    fired bigint not null,
    missed bigint not null,
    primary key (tenant, schedule_id)
)
""",
    )

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Write what each event changes, in order."""
        for event in batch:
            for sql, row in _changes(event):
                await view.execute_many(sql, [row])


def _changes(event: LogEvent) -> list[tuple[str, Row]]:  # noqa: PLR0911 - a case an event
    """Return how an event changes the row of its schedule."""
    key = event.tenant, event.stream.rsplit("/", 1)[1]
    at, payload = event.version, event.payload
    match event.type:
        case ScheduleCreated.type:
            made = ScheduleCreated.model_validate_json(payload)
            return [(_FORGET, key), (_BEGIN, (*key, at, timing_of(made), _text(made.next)))]
        case ScheduleChanged.type:
            changed = ScheduleChanged.model_validate_json(payload)
            return [(_CHANGE, (at, timing_of(changed), _text(changed.next), *key))]
        case SchedulePaused.type:
            return [(_PAUSE, (at, *key))]
        case ScheduleResumed.type:
            resumed = ScheduleResumed.model_validate_json(payload)
            return [(_RESUME, (at, _text(resumed.next), *key))]
        case ScheduleDeleted.type:
            return [(_FORGET, key)]
        case ScheduleFired.type:
            fired = ScheduleFired.model_validate_json(payload)
            if fired.manual:
                return [(_FIRE_BY_HAND, (at, *key))]
            return [(_FIRE, (at, _text(fired.occurrence), _text(fired.next), *key))]
        case ScheduleMissed.type:
            missed = ScheduleMissed.model_validate_json(payload)
            return [(_MISS, (at, missed.count, _text(missed.next), *key))]
    return []


def timing_of(terms: Timing) -> str:
    """Return when it fires, in a few words."""
    if terms.cron is not None:
        return f"{terms.cron} {terms.time_zone}"
    if terms.every_s is not None:
        return f"every {terms.every_s} s"
    return f"at {terms.at.isoformat() if terms.at else 'no time'}"


def _text(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).isoformat()


def _moment(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


async def answer_schedules(views: ViewStore, request: Request) -> Answer:
    """Answer with a page of the tenant's schedules."""
    query = parse(ListSchedules, request)
    rows = await views.fetch_of(request.context.tenant, _LIST, query.after or "", query.limit + 1)
    items = tuple(_entry(row) for row in rows[: query.limit])
    more = len(rows) > query.limit
    page = SchedulePage(items=items, next_cursor=items[-1].schedule_id if more else None)
    return Answer(page.model_dump_json().encode())


def _entry(row: Sequence[Any]) -> ScheduleEntry:
    schedule_id, version, paused, timing, next_at, last_at, fired, missed = row
    status: Status = "paused" if paused else "active" if next_at else "done"
    return ScheduleEntry(
        schedule_id=schedule_id,
        status=status,
        timing=timing,
        next=_moment(next_at) if status == "active" else None,
        last=_moment(last_at),
        fired=fired,
        missed=missed,
        version=version,
    )
