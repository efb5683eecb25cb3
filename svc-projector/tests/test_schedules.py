"""The list of schedules, on both stores: where each stands, as its own events say."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from flotilla import Context, LogEvent, Offset, Request, StreamId, Version, ViewSession, ViewStore
from flotilla.embedded import PostgresServer
from flotilla.outbox import START
from flotilla.projection import Checkpoint
from flotilla.stores.libsql import LibsqlViews
from flotilla.stores.postgres import PostgresViews
from flotilla_contracts.scheduler import (
    ListSchedules,
    ScheduleChanged,
    ScheduleCreated,
    ScheduleDeleted,
    ScheduleEvent,
    ScheduleFired,
    ScheduleMissed,
    SchedulePage,
    SchedulePaused,
    ScheduleResumed,
)
from svc_projector.schedules import SchedulesView, answer_schedules

AT = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)


@pytest.fixture(params=["libsql", "postgres"])
async def views(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer
) -> AsyncIterator[ViewStore]:
    if request.param == "libsql":
        async with LibsqlViews.open(f"libsql://{tmp_path}/views.db", service="projector") as libsql:
            yield libsql
    else:
        service = f"p{uuid4().hex[:12]}"
        async with PostgresViews.open(postgres_server.dsn, service=service) as postgres:
            yield postgres


def later(hours: int) -> datetime:
    return AT + timedelta(hours=hours)


def log_of(*events: tuple[str, ScheduleEvent]) -> list[LogEvent]:
    """Return a log of (tenant, event) pairs."""
    versions: dict[str, int] = {}
    log = []
    for n, (tenant, event) in enumerate(events, start=1):
        stream = f"{tenant}/schedule/{event.schedule_id}"
        versions[stream] = versions.get(stream, 0) + 1
        version, payload = Version(versions[stream]), event.model_dump_json().encode()
        log.append(LogEvent(Offset(n), tenant, StreamId(stream), version, event.type, payload, AT))
    return log


async def folded(views: ViewStore, log: Sequence[LogEvent], *, batch: int = 3) -> None:
    view = SchedulesView()
    await views.migrate(view.name, view.tables)
    before = START
    for first in range(0, len(log), batch):
        part = log[first : first + batch]

        async def apply(session: ViewSession, part: Sequence[LogEvent] = part) -> None:
            await view.apply(session, part)

        after = Checkpoint(part[-1].offset, part[-1].recorded_at)
        await views.advance(view.name, view.log, (before, after), apply)
        before = after.offset


async def shown(views: ViewStore, tenant: str = "acme", **query: object) -> SchedulePage:
    body = ListSchedules.model_validate(query).model_dump_json().encode()
    request = Request(ListSchedules.subject, body, Context(tenant, "c"))
    return SchedulePage.model_validate_json((await answer_schedules(views, request)).body)


def made(name: str) -> ScheduleCreated:
    return ScheduleCreated(schedule_id=name, every_s=3600, next=later(1))


def fired(name: str, *, at: int, manual: bool = False, more: bool = True) -> ScheduleFired:
    upcoming = later(at + 1) if more else None
    return ScheduleFired(
        schedule_id=name,
        occurrence=later(at),
        late_by_s=0.1,
        missed=0,
        manual=manual,
        payload={},
        next=upcoming,
    )


async def test_each_schedule_stands_where_its_events_left_it(views: ViewStore) -> None:
    missed = ScheduleMissed(schedule_id="c", count=4, first=later(1), last=later(4), next=later(5))
    cron = ScheduleChanged(
        schedule_id="e", cron="0 3 * * *", time_zone="Europe/Vienna", next=later(13)
    )
    await folded(
        views,
        log_of(
            *(("acme", made(name)) for name in "abcdef"),
            ("acme", fired("a", at=1)),
            ("acme", fired("a", at=2)),
            ("acme", fired("a", at=2, manual=True)),
            ("acme", SchedulePaused(schedule_id="b")),
            ("acme", missed),
            ("acme", ScheduleDeleted(schedule_id="d")),
            ("acme", cron),
            ("acme", fired("f", at=1, more=False)),
        ),
    )

    found = {one.schedule_id: one for one in (await shown(views)).items}

    stand = {name: (one.status, one.next, one.last, one.fired) for name, one in found.items()}
    assert stand == {
        "a": ("active", later(3), later(2), 3),
        "b": ("paused", None, None, 0),
        "c": ("active", later(5), None, 0),
        "e": ("active", later(13), None, 0),
        "f": ("done", None, later(1), 1),
    }
    assert {"c": 4} == {name: one.missed for name, one in found.items() if one.missed}
    assert ("every 3600 s", "0 3 * * * Europe/Vienna") == (found["a"].timing, found["e"].timing)
    assert 4 == found["a"].version


async def test_what_is_resumed_or_made_again_begins_anew(views: ViewStore) -> None:
    await folded(
        views,
        log_of(
            ("acme", made("a")),
            ("acme", SchedulePaused(schedule_id="a")),
            ("acme", ScheduleResumed(schedule_id="a", next=later(7))),
            ("acme", made("b")),
            ("acme", fired("b", at=1)),
            ("acme", ScheduleDeleted(schedule_id="b")),
            ("acme", made("b")),
        ),
    )

    a, b = (await shown(views)).items
    assert ("active", later(7)) == (a.status, a.next)
    assert ("active", later(1), 0, 4) == (b.status, b.next, b.fired, b.version)


async def test_pages_are_one_tenants(views: ViewStore) -> None:
    await folded(views, log_of(*((t, made(n)) for t in ("acme", "rival") for n in "abc")))

    first = await shown(views, limit=2)
    rest = await shown(views, limit=2, after=first.next_cursor)

    assert (["a", "b"], "b") == ([one.schedule_id for one in first.items], first.next_cursor)
    assert (["c"], None) == ([one.schedule_id for one in rest.items], rest.next_cursor)
    assert () == (await shown(views, "nobody")).items
