"""Whether a checkpoint belongs to the log that its store has now, or to one that was lost.

A store that was restored from a backup may lack its newest events, and the views may have folded them.
Their offsets are given again, to others: a projection that just went on would pass over those in
silence. A checkpoint tells: it is beyond the log, or the event at its offset is another one now. The
cure is to make the view again; nothing is guessed, and nothing skipped.
"""

from contextlib import suppress

from flotilla.errors import Corrupt
from flotilla.outbox import START, Offset, Outbox, Pruned
from flotilla.partition import check_parts, whole_name
from flotilla.projection import Checkpoint, Projection, ViewStore


class Diverged(Corrupt):
    """A view has folded events that its log does not have. Rebuild it."""

    default_code = "checkpoint-diverged"


async def divergence(ledger: Outbox, checkpoint: Checkpoint) -> str | None:
    """Return in words why `checkpoint` is not one of this log; None when it is.

    An event is known by when it was recorded. Where the ledger does not reach back to it any more
    there is nothing to compare with, and the end of the log alone decides.
    """
    offset, recorded_at = checkpoint.offset, checkpoint.recorded_at
    if offset == START:
        return None
    last = await ledger.last_offset()
    if offset > last:  # never in passing: a projection does not pass the ledger
        return f"it has folded up to offset {offset}, and the log ends at {last}"
    with suppress(Pruned):
        for entry in await ledger.published(after=Offset(offset - 1), limit=1):
            now = entry.event.recorded_at
            if entry.offset == offset and recorded_at not in (None, now):
                folded = f"what it has folded as offset {offset}, of {recorded_at}"
                return f"{folded}, is not in the log, which has another event there, of {now}"
    return None


async def begin_at(projection: Projection, views: ViewStore, ledger: Outbox) -> Checkpoint:
    """Return where to go on: the checkpoint in the database. Raises `Diverged` and `Repartitioned`."""
    name, log = projection.name, projection.log
    await check_parts(views, projection)
    checkpoint = await views.checkpoint(name, log)
    if why := await divergence(ledger, checkpoint):
        raise Diverged(
            f"{name}: {why}: the store of {log} was restored from before that. `flotilla rebuild"
            f" {whole_name(name)}`, then start again; see docs/runbooks/restore.md"
        )
    return checkpoint
