"""Erasures as facts: read back from the stream that records them, whenever a vault is opened.

Whoever erases appends the fact to a stream of erasures in the same unit as what else it changes, and
only then destroys. A stream is never pruned, so that keys restored from however old a backup are
destroyed again: `open_vault(…, erasures=erasures_in(store, stream, read))`.
"""

from collections.abc import AsyncIterator, Callable

from flotilla.keys import Erasure
from flotilla.store import EMPTY, EventStore, RecordedEvent, StreamId

PAGE_EVENTS_MAX = 500


async def erasures_in(
    store: EventStore, stream: StreamId, read: Callable[[RecordedEvent], Erasure | None]
) -> AsyncIterator[Erasure]:
    """Yield every erasure of `stream`, in order; `read` returns None for what is another fact.

    Raises what the store and `read` raise: erasures that cannot be read must not be passed over.
    """
    after = EMPTY
    while page := await store.read(stream, after=after, limit=PAGE_EVENTS_MAX):
        for event in page:
            if (erasure := read(event)) is not None:
                yield erasure
        after = page[-1].version
