"""What becomes of occurrences whose moment has come: they fire, or count as missed. Bounded.

Those within the grace time fire, each. Of those that are later than that, by the schedule's policy:

    skip    none fires
    once    the last one fires, unless one that is on time follows it
    all     the last `missed_max` fire, each

Whatever does not fire is said in `schedule.missed.v1` and counted by the next one that does. One
decision looks at `LOOK_MAX` occurrences and fires `FIRES_MAX`: the schedule is then due again at once.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain, islice

from flotilla_contracts.scheduler import MISSED_MAX, ScheduleFired, ScheduleMissed, Terms
from svc_scheduler.domain.occurrences import occurrences

LOOK_MAX = 1000
FIRES_MAX = MISSED_MAX
"""As many as one decision may make durable together."""


def settled(
    schedule_id: str, terms: Terms, first: datetime, until: datetime, missed: int
) -> Sequence[ScheduleFired | ScheduleMissed]:
    """Return what becomes of the occurrences from `first` to `until`, both included.

    `until` is now, less the jitter. `missed` is how many did not fire since the last one that did.
    """
    coming = chain([first], occurrences(terms, after=first, grid=first))
    looked: list[datetime | None] = [*islice(coming, LOOK_MAX + 1)]
    if len(looked) <= LOOK_MAX:
        looked.append(None)  # there is none after these
    due = [at for at in looked[:-1] if at and at <= until]
    after = dict(zip(due, looked[1:], strict=False))
    too_late = until - timedelta(seconds=terms.grace_s)
    late = [at for at in due if at < too_late]
    is_followed = len(late) < len(due)
    drop = late[: max(0, len(late) - _kept(terms, is_followed=is_followed))]
    events: list[ScheduleFired | ScheduleMissed] = []
    if drop:
        count, next_at = len(drop), after[drop[-1]]
        events.append(
            ScheduleMissed(
                schedule_id=schedule_id, count=count, first=drop[0], last=drop[-1], next=next_at
            )
        )
        missed += count
    is_all = looked[len(due)] is None or len(due) < LOOK_MAX
    if not is_followed and not is_all:
        return events  # later ones may be better to fire: they are looked at next
    for at in due[len(drop) : len(drop) + FIRES_MAX]:
        events.append(
            ScheduleFired(
                schedule_id=schedule_id,
                occurrence=at,
                late_by_s=round((until - at).total_seconds(), 3),
                missed=missed,
                payload=terms.payload,
                next=after[at],
            )
        )
        missed = 0
    return events


def _kept(terms: Terms, *, is_followed: bool) -> int:
    """Return how many of the late ones fire."""
    match terms.missed:
        case "skip":
            return 0
        case "once":
            return 0 if is_followed else 1
        case "all":
            return terms.missed_max
