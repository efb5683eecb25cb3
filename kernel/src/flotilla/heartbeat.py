"""A projection's sign of life, where its view is: who asks why it is late needs no bus to know.

Written every few seconds by whoever runs it, late by a batch at most: a view store has one writer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flotilla.clock import from_us, to_us
from flotilla.projection import ViewSession, ViewStore

TABLES = (
    """
create table projection_heartbeat (
    projection text not null,
    log text not null,
    staleness_budget_s double precision not null,
    at_us bigint not null,
    trouble text not null,
    primary key (projection, log)
)
""",
)
_BEAT = """
insert into projection_heartbeat (projection, log, staleness_budget_s, at_us, trouble)
values ($1, $2, $3, $4, $5)
on conflict (projection, log) do update set
    staleness_budget_s = excluded.staleness_budget_s, at_us = excluded.at_us,
    trouble = excluded.trouble
"""
_READ = """
select projection, log, staleness_budget_s, at_us, trouble from projection_heartbeat
order by projection, log
"""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """That a projection was run at a moment, what it promises, and what troubled it; "" is nothing."""

    projection: str
    log: str
    staleness_budget_s: float
    at: datetime
    trouble: str = ""


async def beat(views: ViewStore, beats: Sequence[Heartbeat]) -> None:
    """Leave signs of life, all in one transaction."""
    rows = [
        (b.projection, b.log, float(b.staleness_budget_s), to_us(b.at), b.trouble.replace("\0", ""))
        for b in beats
    ]

    async def write(view: ViewSession) -> None:
        await view.execute_many(_BEAT, rows)

    await views.transact(write)


async def heartbeats(views: ViewStore) -> list[Heartbeat]:
    """Return the last sign of life of every projection, by name."""
    return [
        Heartbeat(projection, log, float(budget_s), from_us(at_us), trouble)
        for projection, log, budget_s, at_us, trouble in await views.fetch(_READ)
    ]
