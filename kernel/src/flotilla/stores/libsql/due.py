"""What is due, in a libSQL file: written in the transaction that commits, claimed by its one writer."""

import json
from collections.abc import Mapping

from flotilla.clock import Clock, from_us, to_us
from flotilla.due import Claimed, Due
from flotilla.store import StreamId, Wake, aggregate_of
from flotilla.stores.libsql.connection import Connection, Database
from flotilla.stores.migrations import Migration

DUE_TABLE = Migration(
    1,
    "due",
    """
create table due (
    stream text primary key,
    aggregate text not null,
    at integer not null, -- microseconds since 1970, UTC
    visible_at integer not null -- `at`, or when the lease of whoever claimed it ends
) strict;
create index due_next on due (aggregate, visible_at);
""",
)
_WAKE = """
insert into due (stream, aggregate, at, visible_at)
select value ->> 0, value ->> 1, value ->> 2, value ->> 2 from json_each(?1) where true
on conflict (stream) do update set at = excluded.at, visible_at = excluded.visible_at
"""
_SLEEP = "delete from due where stream in (select value from json_each(?1))"
_READY = """
select stream, at from due where aggregate = ?1 and visible_at <= ?2 order by visible_at limit ?3
"""
_HIDE = "update due set visible_at = ?2 where stream in (select value from json_each(?1))"
_NEXT = "select min(visible_at) from due where aggregate = ?1"
_SECOND_US = 1_000_000


def write_wakes(connection: Connection, wakes: Mapping[StreamId, Wake]) -> None:
    """Note when these streams are to be looked at again, within a transaction."""
    rows = [(s, aggregate_of(s), to_us(wake.at)) for s, wake in wakes.items() if wake.at]
    if rows:
        connection.run(_WAKE, json.dumps(rows))
    if asleep := [stream for stream, wake in wakes.items() if wake.at is None]:
        connection.run(_SLEEP, json.dumps(asleep))


class LibsqlDue:
    """One service's streams that wait for their moment. The machine's clock says when that is."""

    _database: Database
    _clock: Clock

    async def claim(self, aggregate: str, *, limit: int, lease_s: float) -> Claimed:
        """Hide up to `limit` streams that are due, and return them; looks before it takes the lock."""

        def job(connection: Connection) -> Claimed:
            with connection.transaction():
                now_us = to_us(self._clock.now())
                ready = connection.rows(_READY, aggregate, now_us, limit)
                hidden = json.dumps([stream for stream, _ in ready])
                connection.run(_HIDE, hidden, now_us + round(lease_s * _SECOND_US))
                [(next_us,)] = connection.rows(_NEXT, aggregate)
            due = [Due(StreamId(stream), from_us(at_us)) for stream, at_us in ready]
            return Claimed(from_us(now_us), due, _in_s(next_us, now_us))

        [(next_us,)] = await self._database.rows(_NEXT, aggregate)
        now_us = to_us(self._clock.now())
        if limit == 0 or next_us is None or next_us > now_us:
            return Claimed(from_us(now_us), [], _in_s(next_us, now_us))
        return await self._database.write(job)


def _in_s(next_us: int | None, now_us: int) -> float | None:
    """Return how long it is until then."""
    return None if next_us is None else (next_us - now_us) / _SECOND_US
