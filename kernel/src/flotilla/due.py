"""What is to be looked at when: one row a stream, written in the transaction of the stream's events.

A state machine that waits for a moment says so with its events (`Append.wake`). Whoever is alive claims
what is due; there is no coordinator, and nobody owns an instance:

    waiting ──its moment came──▶ due ──claimed──▶ hidden for `lease_s` ──▶ due again
       ▲                                            │
       └──── the next events of its stream say when, or that nothing is to come (the row goes)

- a worker that dies after its claim changes nothing: the row is due again when its lease has ended;
- one that was thought dead, and wakes up, is fenced by the version of the stream, not by the claim;
- two that claim at the same moment get different rows (`skip locked`, or one writer);
- only the store's clock decides what is due, and `Claimed.now` is what it says: workers do not compare
  their own clocks with it.

Workflows live on this, and so can anything that has to happen later: a schedule is an aggregate whose
`wake` is its next occurrence. Its promises are in `flotilla.testing.DueStoreContract`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from flotilla.store import StreamId


@dataclass(frozen=True, slots=True)
class Due:
    """A stream whose moment has come: `at` is what its last events asked for."""

    stream: StreamId
    at: datetime


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim brought, by the store's clock."""

    now: datetime
    due: Sequence[Due]
    next_in_s: float | None
    """When the next one not claimed here will be due; 0 or less: now. None: nothing waits."""


class DueStore(Protocol):
    """Work that waits for its moment. Raises `Unavailable` when the store does not answer."""

    async def claim(self, aggregate: str, *, limit: int, lease_s: float) -> Claimed:
        """Take up to `limit` streams of one kind of aggregate that are due, the longest due first.

        They are hidden from everybody for `lease_s`, or until their next events. With a limit of 0 it
        only says what time it is and how long there is to wait.
        """
        ...
