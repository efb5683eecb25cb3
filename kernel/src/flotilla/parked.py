"""What a projection could not fold: the table of parked events, common to every `ViewStore`.

`flotilla.parking` says when an event comes here and how it leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flotilla.clock import from_us, to_us
from flotilla.errors import Rejected
from flotilla.outbox import LogEvent, Offset
from flotilla.projection import Fetch, Row, ViewSession, ViewStore

TABLES = (
    """
create table projection_parked_event (
    projection text not null,
    log text not null,
    "offset" bigint not null,
    key text not null,
    tenant text not null,
    stream text not null,
    version bigint not null,
    type text not null,
    payload bytea not null,
    recorded_at_us bigint not null,
    error text not null,
    parked_at_us bigint not null,
    tries integer not null,
    primary key (projection, log, "offset")
);
create index projection_parked_event_by_key on projection_parked_event (projection, log, key, "offset");
""",
)
"""Migrations, for every `ViewStore`. Times are microseconds since 1970, UTC: SQL common to all."""

_COLUMNS = (
    'projection, log, "offset", key, tenant, stream, version, type, payload, recorded_at_us,'
    " error, parked_at_us, tries"
)
_PARK = f"""
insert into projection_parked_event ({_COLUMNS})
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
on conflict (projection, log, "offset") do update set
    error = excluded.error, tries = projection_parked_event.tries + excluded.tries
"""  # noqa: S608 - our own text
_OF_KEY = f"""
select {_COLUMNS} from projection_parked_event
where projection = $1 and log = $2 and key = $3 order by "offset"
"""  # noqa: S608 - our own text
_LIST = f"""
select {_COLUMNS} from projection_parked_event
where ($1 = '' or projection = $1 or substr(projection, 1, length($1) + 1) = $1 || '/')
    and ($2 = '' or key = $2) and ($3 = 0 or "offset" = $3)
order by projection, log, "offset" limit $4
"""  # noqa: S608 - our own text
_KEYS = """
select key, count(*) from projection_parked_event where projection = $1 and log = $2 group by key
"""
_COUNTS = """
select projection, log, count(*), count(distinct key), min(parked_at_us), min(recorded_at_us)
from projection_parked_event group by projection, log order by projection, log
"""
_FREE = "delete from projection_parked_event where projection = $1 and log = $2 and key = $3"
_REMOVE = 'delete from projection_parked_event where projection = $1 and log = $2 and "offset" = $3'
_FAILED = """
update projection_parked_event set error = $1, tries = tries + 1
where projection = $2 and log = $3 and "offset" = $4
"""
_HOLD = """
update projection_checkpoint set "offset" = "offset" where projection = $1 and log = $2
"""


class NotParked(Rejected):
    """Nothing is parked under this name."""

    default_code = "not-parked"


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event that its projection lacks. `error` is empty when it only waits behind one that has."""

    projection: str
    log: str
    key: str
    event: LogEvent
    error: str
    parked_at: datetime
    tries: int = 0


@dataclass(frozen=True, slots=True)
class ParkedCount:
    """How much of a log a projection has parked, and since when the longest."""

    projection: str
    log: str
    events: int
    keys: int
    oldest_parked_at: datetime
    oldest_recorded_at: datetime


async def hold(view: ViewSession, projection: str, log: str) -> None:
    """Keep the checkpoint where it is until this transaction ends: others that move it wait."""
    await view.execute_many(_HOLD, [(projection, log)])


async def parked_keys(fetch: Fetch, projection: str, log: str) -> dict[str, int]:
    """Return how many events are parked, by key; `fetch` is one that sees every tenant's."""
    return {key: int(n) for key, n in await fetch(_KEYS, projection, log)}


async def parked_of(view: ViewSession, projection: str, log: str, key: str) -> list[ParkedEvent]:
    """Return all that is parked of a key, in order."""
    return [_event(row) for row in await view.fetch(_OF_KEY, projection, log, key)]


async def park(view: ViewSession, events: Sequence[ParkedEvent]) -> None:
    """Park events; one that is parked already has been tried again."""
    rows = [
        (
            *(p.projection, p.log, e.offset, p.key, e.tenant, e.stream, e.version, e.type),
            *(e.payload, to_us(e.recorded_at), p.error, to_us(p.parked_at), p.tries),
        )
        for p, e in ((parked, parked.event) for parked in events)
    ]
    await view.execute_many(_PARK, rows)


async def unpark(view: ViewSession, projection: str, log: str, key: str) -> None:
    """Forget all that is parked of a key: it is folded now."""
    await view.execute_many(_FREE, [(projection, log, key)])


async def failed_again(
    view: ViewSession, projection: str, log: str, offset: Offset, error: str
) -> None:
    """Write down that a retry ended at this event, and why."""
    await view.execute_many(_FAILED, [(error, projection, log, offset)])


async def parked_events(
    views: ViewStore, *, projection: str = "", key: str = "", offset: int = 0, limit: int
) -> list[ParkedEvent]:
    """Return up to `limit` parked events, by projection and offset; empty filters take all.

    A projection's are those of its partitions, too.
    """
    return [_event(row) for row in await views.fetch_across(_LIST, projection, key, offset, limit)]


async def parked_counts(views: ViewStore) -> list[ParkedCount]:
    """Return what is parked, by projection and log; nothing for those that have nothing."""
    return [
        ParkedCount(projection, log, int(events), int(keys), from_us(parked), from_us(recorded))
        for projection, log, events, keys, parked, recorded in await views.fetch_across(_COUNTS)
    ]


async def discard(views: ViewStore, events: Sequence[ParkedEvent]) -> None:
    """Forget these parked events for ever: their projection lacks them until it is rebuilt.

    All or none. Raises `NotParked` when one of them is not parked any more.
    """

    async def remove(view: ViewSession) -> None:
        for projection, log in sorted({(e.projection, e.log) for e in events}):
            await hold(view, projection, log)
        for e in events:
            if not await _is_parked(view, e):
                raise NotParked(f"{e.projection}: offset {e.event.offset} is not parked any more")
        await view.execute_many(_REMOVE, [(e.projection, e.log, e.event.offset) for e in events])

    await views.transact(remove)


async def _is_parked(view: ViewSession, parked: ParkedEvent) -> bool:
    """Return whether an event still is parked."""
    rows = await view.fetch(
        'select 1 from projection_parked_event where projection = $1 and log = $2 and "offset" = $3',
        parked.projection,
        parked.log,
        parked.event.offset,
    )
    return bool(rows)


def _event(row: Row) -> ParkedEvent:
    projection, log, offset, key, tenant, stream, version, kind, payload, *rest = row
    recorded_at_us, error, parked_at_us, tries = rest
    event = LogEvent(offset, tenant, stream, version, kind, bytes(payload), from_us(recorded_at_us))
    return ParkedEvent(projection, log, key, event, error, from_us(parked_at_us), tries)
