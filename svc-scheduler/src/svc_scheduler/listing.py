"""The list of schedules: a read model of this service's own log, in its own store.

    events of the log, after the checkpoint ──▶ the schedules they are of, as they stand ──▶ rows

A row is where a schedule stands, not what an event changes: folding is looking, so it may happen twice,
and on all replicas at once (the checkpoint lets one of them move it). Nobody leads.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from flotilla import Answer, Done, Request, StreamId, ViewSession, ViewStore
from flotilla.background import Background
from flotilla.clock import Clock
from flotilla.commands import parse
from flotilla.outbox import Outbox
from flotilla.projection import Checkpoint, Fenced
from flotilla.store import aggregate_of, tenant_of
from flotilla_contracts.scheduler import (
    SERVICE,
    ListSchedules,
    ScheduleEntry,
    SchedulePage,
    ScheduleReply,
    Terms,
)
from svc_scheduler.application import AGGREGATE

NAME = "schedule-list"
BATCH_EVENTS = 256
POLL_S = 0.25

_TABLES = (
    """
create table schedule_view (
    tenant text not null,
    schedule_id text not null,
    version bigint not null,
    entry text not null,
    primary key (tenant, schedule_id)
)
""",
)
_UPSERT = """
insert into schedule_view (tenant, schedule_id, version, entry) values ($1, $2, $3, $4)
on conflict (tenant, schedule_id) do update set version = excluded.version, entry = excluded.entry
where excluded.version >= schedule_view.version
"""
_FORGET = "delete from schedule_view where tenant = $1 and schedule_id = $2 and version <= $3"
_LIST = """
select entry from schedule_view
where tenant = $1 and schedule_id > $2 order by schedule_id limit $3
"""


@dataclass(frozen=True, slots=True)
class Listing:
    """`look` says where a schedule stands."""

    views: ViewStore
    ledger: Outbox
    look: Callable[[StreamId], Awaitable[Done]]
    clock: Clock

    async def begin(self) -> None:
        """Make the table, if it is not there; the ledger is not pruned past what was read."""
        await self.views.migrate(NAME, _TABLES)
        checkpoint = await self.views.checkpoint(NAME, SERVICE)
        await self.ledger.read_by(NAME, checkpoint.offset)

    async def run(self, shown: Background) -> None:
        """Read on, until cancelled."""
        while True:
            events = await self.read_on()
            shown.recovered()
            if not events:
                await self.clock.sleep(POLL_S)

    async def read_on(self) -> int:
        """Show what the next events are of; return how many events there were."""
        before = await self.views.checkpoint(NAME, SERVICE)
        batch = await self.ledger.events(after=before.offset, limit=BATCH_EVENTS)
        if not batch:
            return 0
        streams = sorted({e.stream for e in batch if aggregate_of(e.stream) == AGGREGATE})
        stand = [(stream, await self.look(stream)) for stream in streams]

        async def apply(view: ViewSession) -> None:
            await _show(view, stand)

        after = Checkpoint(batch[-1].offset, batch[-1].recorded_at)
        try:
            await self.views.advance(NAME, SERVICE, (before.offset, after), apply)
        except Fenced:
            return len(batch)  # another replica was faster
        await self.ledger.read_by(NAME, after.offset)
        return len(batch)

    async def answer(self, request: Request) -> Answer:
        """Answer with a page of the tenant's schedules."""
        query = parse(ListSchedules, request)
        rows = await self.views.fetch_of(
            request.context.tenant, _LIST, query.after or "", query.limit + 1
        )
        items = tuple(ScheduleEntry.model_validate_json(entry) for (entry,) in rows[: query.limit])
        more = len(rows) > query.limit
        page = SchedulePage(items=items, next_cursor=items[-1].schedule_id if more else None)
        return Answer(page.model_dump_json().encode())


async def _show(view: ViewSession, stand: Sequence[tuple[StreamId, Done]]) -> None:
    shown, gone = list[tuple[str, str, int, str]](), list[tuple[str, str, int]]()
    for stream, done in stand:
        found = ScheduleReply.model_validate_json(done.reply)
        key = (tenant_of(stream), found.schedule_id, found.version)
        if found.status == "deleted":
            gone.append(key)
        else:
            shown.append((*key, _entry(found).model_dump_json()))
    if shown:
        await view.execute_many(_UPSERT, shown)
    if gone:
        await view.execute_many(_FORGET, gone)


def _entry(found: ScheduleReply) -> ScheduleEntry:
    told = found.model_dump(exclude={"terms"})
    return ScheduleEntry(timing=timing_of(found.terms), **told)


def timing_of(terms: Terms) -> str:
    """Return when it fires, in a few words."""
    if terms.cron is not None:
        return f"{terms.cron} {terms.time_zone}"
    if terms.every_s is not None:
        return f"every {terms.every_s} s"
    return f"at {terms.at.isoformat() if terms.at else 'no time'}"
