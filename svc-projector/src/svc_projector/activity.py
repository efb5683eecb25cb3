"""The activity feed: what `GET /v1/activity` shows. Tables, apply, query: one module a read model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from flotilla import LogEvent, ViewSession, ViewStore
from flotilla.clock import from_us, to_us
from flotilla_contracts.counter import EVENTS, SERVICE, ActivityEntry, ActivityPage

NAME = "activity"
ENTRIES_PER_TENANT_MAX = 1_000
AGE_MAX_S = 30 * 86_400.0
PRUNED_MORE_MAX = 100
"""How many entries of a tenant a batch takes away at most beyond twice what it brings."""

_TYPES = frozenset(kind.type for kind in EVENTS)
_INSERT = """
insert into activity (tenant, log_offset, counter_id, type, at_us) values ($1, $2, $3, $4, $5)
"""
_PRUNE = """
delete from activity where tenant = $1 and log_offset in (
    select log_offset
    from (
        select log_offset, at_us from activity where tenant = $1 order by log_offset limit $2
    ) oldest
    where at_us < $3 or log_offset <= (
        select log_offset from activity where tenant = $1
        order by log_offset desc limit 1 offset $4
    )
)
"""
_LIST = """
select log_offset, counter_id, type, at_us from activity
where tenant = $1 and log_offset < $2 order by log_offset desc limit $3
"""
_BEHIND_ALL = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ActivityFeed:
    """What happened last, a tenant: `entries_max` entries, none older than `age_max_s`.

    Old is measured by the log and not by a clock, against the newest event of the same batch and
    tenant, so that a replay leaves what there was.
    """

    entries_max: int = ENTRIES_PER_TENANT_MAX
    age_max_s: float = AGE_MAX_S

    name = NAME
    log = SERVICE
    staleness_budget_s = 5.0
    tables = (
        """
create table activity (
    tenant text not null,
    log_offset bigint not null,
    counter_id text not null,
    type text not null,
    at_us bigint not null,
    primary key (tenant, log_offset)
)
""",
    )

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Append what happened, and prune the feeds of those tenants."""
        rows = [
            (e.tenant, e.offset, e.stream.rsplit("/", 1)[1], e.type, to_us(e.recorded_at))
            for e in batch
            if e.type in _TYPES
        ]
        await view.execute_many(_INSERT, rows)
        age_max_us = timedelta(seconds=self.age_max_s) // timedelta(microseconds=1)
        newest = {tenant: at_us for tenant, *_, at_us in sorted(rows, key=lambda row: row[-1])}
        brought = Counter(row[0] for row in rows)
        limits = [
            (tenant, 2 * n + PRUNED_MORE_MAX, newest[tenant] - age_max_us, self.entries_max)
            for tenant, n in sorted(brought.items())
        ]
        await view.execute_many(_PRUNE, limits)


async def list_activity(
    views: ViewStore, tenant: str, *, before: int | None, limit: int
) -> ActivityPage:
    """Return up to `limit` of what happened to a tenant's counters before an offset, newest first."""
    rows = await views.fetch_of(tenant, _LIST, before or _BEHIND_ALL, limit + 1)
    items = tuple(
        ActivityEntry(offset=offset, counter_id=counter_id, type=kind, recorded_at=from_us(at_us))
        for offset, counter_id, kind, at_us in rows[:limit]
    )
    return ActivityPage(items=items, next_before=items[-1].offset if len(rows) > limit else None)
