"""The counter view: what `GET /v1/counters` shows. Tables, apply, queries: one module a read model."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from flotilla import LogEvent, StreamId, ViewSession, ViewStore
from flotilla_contracts.counter import (
    SERVICE,
    CounterDecremented,
    CounterIncremented,
    CounterOpened,
    CounterPage,
    CounterReply,
    CounterReset,
)

NAME = "counters"

_VALUES: dict[str, TypeAdapter[CounterIncremented | CounterDecremented]] = {
    CounterIncremented.type: TypeAdapter(CounterIncremented),
    CounterDecremented.type: TypeAdapter(CounterDecremented),
}
_ZERO = {CounterOpened.type, CounterReset.type}

_UPSERT = """
insert into counter_view (tenant, counter_id, value, version) values ($1, $2, $3, $4)
on conflict (tenant, counter_id) do update set value = excluded.value, version = excluded.version
where excluded.version >= counter_view.version
"""
_SEEN = """
update counter_view set version = $1 where tenant = $2 and counter_id = $3 and version < $4
"""
_FORGET_TENANT = "delete from counter_view where tenant = $1"
_FORGET_COUNTER = "delete from counter_view where tenant = $1 and counter_id = $2"
_GET = "select value, version from counter_view where tenant = $1 and counter_id = $2"
_LIST = """
select counter_id, value, version from counter_view
where tenant = $1 and counter_id > $2 order by counter_id limit $3
"""


@dataclass(frozen=True, slots=True)
class CounterView:
    """Every counter of every tenant: its value and version.

    A row is of one stream, so it may be folded in partitions.
    """

    partitions: int = 1
    log: str = SERVICE

    name = NAME
    staleness_budget_s = 5.0
    replayable = True
    """An event says where its counter stands, and never puts it back: folding it again is harmless."""
    tables = (
        """
create table counter_view (
    tenant text not null,
    counter_id text not null,
    value bigint not null,
    version bigint not null,
    primary key (tenant, counter_id)
)
""",
    )

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Every event says where its counter stands, so only the last of each matters.

        One of a type that is not known changes no value, but it was seen: whoever waits for its version
        waits no longer.
        """
        seen: dict[tuple[str, str], tuple[int, str, str, int]] = {}
        rows: dict[tuple[str, str], tuple[str, str, int, int]] = {}
        for event in batch:
            counter_id = event.stream.rsplit("/", 1)[1]
            if event.type in _ZERO:
                value = 0
            elif event.type in _VALUES:
                value = _VALUES[event.type].validate_json(event.payload).value
            else:
                version = event.version
                seen[event.tenant, counter_id] = (version, event.tenant, counter_id, version)
                continue
            rows[event.tenant, counter_id] = (event.tenant, counter_id, value, event.version)
        await view.execute_many(_UPSERT, list(rows.values()))
        if seen:
            await view.execute_many(_SEEN, list(seen.values()))

    async def forget(self, view: ViewSession, tenant: str, stream: StreamId | None) -> None:
        """Delete a tenant's counters, or one of them."""
        if stream is None:
            await view.execute_many(_FORGET_TENANT, [(tenant,)])
        else:
            await view.execute_many(_FORGET_COUNTER, [(tenant, stream.rsplit("/", 1)[1])])


async def get_counter(views: ViewStore, tenant: str, counter_id: str) -> CounterReply | None:
    """Return one counter, or None."""
    for value, version in await views.fetch_of(tenant, _GET, counter_id):
        return CounterReply.model_construct(counter_id=counter_id, value=value, version=version)
    return None


async def list_counters(views: ViewStore, tenant: str, *, after: str, limit: int) -> CounterPage:
    """Return up to `limit` of a tenant's counters with ids after `after`."""
    rows = await views.fetch_of(tenant, _LIST, after, limit + 1)
    items = tuple(
        CounterReply.model_construct(counter_id=counter_id, value=value, version=version)
        for counter_id, value, version in rows[:limit]
    )
    return CounterPage(items=items, next_cursor=items[-1].counter_id if len(rows) > limit else None)
