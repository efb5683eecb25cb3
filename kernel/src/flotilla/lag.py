"""How far a projection is behind: against what was committed, published or not.

Measured from the tables, so that it tells the truth when the relay is dead; in seconds as the age of
the oldest event that was not folded, so that a pause without events is no lag.
"""

from flotilla.clock import Clock
from flotilla.outbox import Offset, Outbox
from flotilla.service import Lag


async def projection_lag(source: Outbox, checkpoint: Offset, clock: Clock) -> Lag:
    """Return how far `checkpoint` is behind the head of `source`'s log."""
    head = await source.status()
    behind = max(0, head.committed - checkpoint)
    if not behind:
        return Lag(0, 0.0)
    oldest = await source.published(after=checkpoint, limit=1)
    age_s = (clock.now() - oldest[0].event.recorded_at).total_seconds() if oldest else 0.0
    return Lag(behind, max(age_s, head.oldest_waiting_s, 0.0))
