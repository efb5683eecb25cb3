"""States that were true a moment ago, so that a busy aggregate is not loaded for every command.

A remembered state may be stale: somebody else may have committed. That is no danger to what is
written, because the expected version fences it; but nothing that is *not* written may be based on it.
"""

from collections import OrderedDict

from flotilla.store import StreamId, Version

STREAMS_MAX = 10_000


class Memory[S]:
    """The last known state of the streams that were used last, at most `streams_max` of them."""

    def __init__(self, *, streams_max: int = STREAMS_MAX) -> None:
        self._states: OrderedDict[StreamId, tuple[S, Version]] = OrderedDict()
        self._without_snapshot: set[StreamId] = set()
        self._streams_max = streams_max

    def recall(self, stream: StreamId) -> tuple[S, Version] | None:
        """Return the state and version that were last known."""
        known = self._states.get(stream)
        if known:
            self._states.move_to_end(stream)
        return known

    def remember(self, stream: StreamId, state: S, version: Version) -> None:
        """Keep a state that was just committed."""
        self._states[stream] = (state, version)
        self._states.move_to_end(stream)
        if len(self._states) > self._streams_max:
            self._states.popitem(last=False)

    def forget(self, stream: StreamId) -> None:
        """Do not trust what was known of `stream`."""
        self._states.pop(stream, None)
        self._without_snapshot.discard(stream)

    def miss_snapshot(self, stream: StreamId) -> None:
        """Note that `stream` was loaded without one that it should have: deleted, or of another schema.

        The next commit writes it. `forget` ends this, and comes after every decision.
        """
        if len(self._without_snapshot) < self._streams_max:
            self._without_snapshot.add(stream)

    def misses_snapshot(self, stream: StreamId) -> bool:
        """Return whether a snapshot of `stream` is wanted before its time."""
        return stream in self._without_snapshot
