"""What is due, on Postgres: written by the statement that commits, claimed with `skip locked`."""

from collections.abc import Sequence

from pydantic_core import to_json

from flotilla.due import Claimed, Due
from flotilla.store import StreamId, Unit, Wake, aggregate_of
from flotilla.stores.migrations import Migration
from flotilla.stores.postgres.connection import read_sql
from flotilla.stores.postgres.outbox import PostgresOutbox
from flotilla.stores.rounds import Chain

_CLAIM = read_sql("claim")
DUE_TABLE = Migration(
    1,
    "due",
    """
create table due (
    stream text collate "C" primary key,
    aggregate text collate "C" not null,
    at timestamptz not null,
    visible_at timestamptz not null -- `at`, or when the lease of whoever claimed it ends
);
create index due_next on due (aggregate, visible_at);
""",
)


class PostgresDue(PostgresOutbox):
    """One service's streams that wait for their moment."""

    async def claim(self, aggregate: str, *, limit: int, lease_s: float) -> Claimed:
        """Hide up to `limit` streams that are due, and return them."""
        [status, *taken] = await self._fetch(_CLAIM, aggregate, limit, lease_s)
        due = sorted((Due(StreamId(row["stream"]), row["at"]) for row in taken), key=_longest_due)
        return Claimed(status["at"], due, status["next_in_s"])


def wakes(units: Sequence[Unit], chains: Sequence[Chain]) -> str | None:
    """Return $5 of the statement: when each stream wakes, by the last unit that says; None: nobody."""
    last: dict[StreamId, tuple[int, Wake]] = {}
    for n, chain in enumerate(chains):
        for i in chain:
            last |= {a.stream: (n, a.wake) for a in units[i].appends if a.wake}
    if not last:
        return None
    return to_json(
        [
            {"chain": n, "stream": stream, "aggregate": aggregate_of(stream), "at": wake.at}
            for stream, (n, wake) in last.items()
        ]
    ).decode()


def _longest_due(due: Due) -> tuple[object, str]:
    return due.at, due.stream
