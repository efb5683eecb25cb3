"""The tenant totals: what `GET /v1/totals` shows. Tables, apply, query: one module a read model."""

from collections import defaultdict
from collections.abc import Sequence

from pydantic import TypeAdapter

from flotilla import LogEvent, ViewSession, ViewStore
from flotilla_contracts.counter import (
    SERVICE,
    CounterDecremented,
    CounterIncremented,
    CounterOpened,
    CounterReset,
    TenantTotals,
)

NAME = "tenant-totals"

_ADAPTERS: dict[
    str,
    TypeAdapter[CounterOpened]
    | TypeAdapter[CounterIncremented]
    | TypeAdapter[CounterDecremented]
    | TypeAdapter[CounterReset],
] = {
    CounterOpened.type: TypeAdapter(CounterOpened),
    CounterIncremented.type: TypeAdapter(CounterIncremented),
    CounterDecremented.type: TypeAdapter(CounterDecremented),
    CounterReset.type: TypeAdapter(CounterReset),
}

_ADD = """
insert into tenant_totals (tenant, counters, value_sum, events) values ($1, $2, $3, $4)
on conflict (tenant) do update set
    counters = tenant_totals.counters + excluded.counters,
    value_sum = tenant_totals.value_sum + excluded.value_sum,
    events = tenant_totals.events + excluded.events
"""
_GET = "select counters, value_sum, events from tenant_totals where tenant = $1"


class TotalsView:
    """A row a tenant, across its counters.

    What an event adds is in the event, so sums need no order between counters: a counter whose events
    are parked is missing from its tenant's sums until they are retried, and nothing else is wrong.
    """

    name = NAME
    log = SERVICE
    staleness_budget_s = 5.0
    tables = (
        """
create table tenant_totals (
    tenant text primary key,
    counters bigint not null,
    value_sum bigint not null,
    events bigint not null
)
""",
    )

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Add up what the batch changes, and write each tenant once."""
        changes: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for event in batch:
            if event.type in _ADAPTERS:
                counters, value = _change(event)
                change = changes[event.tenant]
                change[:] = change[0] + counters, change[1] + value, change[2] + 1
        rows = [(tenant, *changes[tenant]) for tenant in sorted(changes)]
        await view.execute_many(_ADD, rows)


def _change(event: LogEvent) -> tuple[int, int]:
    """Return how many counters more there are, and how much more they have counted."""
    match _ADAPTERS[event.type].validate_json(event.payload):
        case CounterOpened():
            return 1, 0
        case CounterIncremented(by=by):
            return 0, by
        case CounterDecremented(by=by):
            return 0, -by
        case CounterReset(previous_value=previous):
            return 0, -previous


async def get_totals(views: ViewStore, tenant: str) -> TenantTotals:
    """Return a tenant's totals: zeros when nothing has happened."""
    for counters, value_sum, events in await views.fetch_of(tenant, _GET):
        return TenantTotals(counters=counters, value_sum=value_sum, events=events)
    return TenantTotals(counters=0, value_sum=0, events=0)
