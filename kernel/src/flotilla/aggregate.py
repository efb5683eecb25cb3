"""One kind of aggregate, bound to where it lives: what the execute loop works with."""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flotilla.clock import Clock, IdSource
from flotilla.codec import Codec
from flotilla.decider import Decider
from flotilla.errors import Corrupt, EventTooLarge, KernelError
from flotilla.remember import Memory
from flotilla.store import (
    Append,
    ClaimKey,
    EventStore,
    IdempotencyRecord,
    Loaded,
    NewEvent,
    Outcome,
    Snapshot,
    StreamId,
    Unit,
    Version,
    Wake,
)

EVENT_BYTES_MAX = 512 * 1024
"""Larger events are refused before they are stored: JetStream's default max_payload is 1 MiB."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key and a fingerprint of what it is used for."""

    key: ClaimKey
    fingerprint: bytes
    ttl_s: int


@dataclass(frozen=True, slots=True)
class Decision[S, E]:
    """One thing to decide on one stream. `decide` and `reply` may run several times: keep them pure.

    `expected` makes it depend on the version that the caller saw. `metadata` goes with each event.
    """

    decide: Callable[[S], Sequence[E]]
    reply: Callable[[S, Version], bytes]
    metadata: Mapping[str, str]
    claim: Claim | None = None
    expected: Version | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The decision is durable. `replayed`: it already was, under the same idempotency key."""

    reply: bytes
    version: Version | None = None
    replayed: bool = False


Settled = Done | KernelError | Exception


class SnapshotCodec[S](Protocol):
    """How a state is remembered. A snapshot of another `schema` is ignored and replaced."""

    @property
    def schema(self) -> int:
        """Return the version of the remembered shape."""
        ...

    @property
    def every_events(self) -> int:
        """Return how many events may pass between two snapshots."""
        ...

    def dump(self, state: S) -> str:
        """Return the state as JSON text."""
        ...

    def load(self, text: str) -> S:
        """Return the state that `dump` wrote."""
        ...


@dataclass(frozen=True, slots=True)
class Aggregate[C, S, E]:
    """A decider, how its events are written, and the store that keeps them."""

    decider: Decider[C, S, E]
    codec: Codec[E]
    store: EventStore
    commit: Callable[[Sequence[Unit]], Awaitable[Sequence[Outcome]]]
    clock: Clock
    ids: IdSource
    chance: random.Random
    snapshots: SnapshotCodec[S] | None = None
    memory: Memory[S] = field(default_factory=Memory)
    wake: Callable[[S], Wake] | None = None
    """For aggregates that wait for moments: when a state wants to be looked at (`flotilla.due`)."""

    async def load(self, stream: StreamId, claims: Sequence[ClaimKey]) -> Loaded:
        """Return what is needed to decide, in one round trip."""
        if self.snapshots is None:
            return await self.store.load(stream, claims=claims)
        schema = self.snapshots.schema
        loaded = await self.store.load(stream, snapshot_schema=schema, claims=claims)
        if loaded.snapshot is None and loaded.version >= self.snapshots.every_events:
            self.memory.miss_snapshot(stream)
        return loaded

    def rehydrate(self, loaded: Loaded) -> S:
        """Return the state that the snapshot and the events after it add up to.

        Raises:
            Corrupt: an event is missing or cannot be read.
            UnknownEventType: a newer version wrote one of them.

        """
        state, version = self.decider.initial, 0
        if loaded.snapshot and self.snapshots:
            state = self.snapshots.load(loaded.snapshot.state)
            version = loaded.snapshot.version
        if [event.version for event in loaded.events] != list(
            range(version + 1, loaded.version + 1)
        ):
            raise Corrupt(f"events are missing between versions {version} and {loaded.version}")
        codec = self.codec
        known = (codec.decode(event) for event in loaded.events if not codec.ignores(event.type))
        return self.decider.fold(known, state)

    def unit(
        self,
        stream: StreamId,
        decision: Decision[S, E],
        at: tuple[S, Version],
    ) -> tuple[Unit | None, S, Done]:
        """Return what `decision` would commit at this state, the state after it, and its result.

        The unit is None when there is nothing to make durable. Raises what the decision raises.
        """
        state, version = at
        events = decision.decide(state)
        state = self.decider.fold(events, state)
        after = Version(version + len(events))
        done = Done(decision.reply(state, after), after)
        if not events and decision.claim is None:
            return None, state, done
        snapshot = self._snapshot(stream, version, after, state)
        wake = self.wake(state) if self.wake and events else None
        append = Append(stream, version, self._encode(events, decision), snapshot, wake)
        return Unit((append,), _record(decision.claim, done.reply)), state, done

    def _encode(self, events: Sequence[E], decision: Decision[S, E]) -> tuple[NewEvent, ...]:
        new = []
        for event in events:
            kind, payload = self.codec.encode(event)
            if (size := len(payload.encode())) > EVENT_BYTES_MAX:
                raise EventTooLarge(f"{kind} has {size} bytes; {EVENT_BYTES_MAX} are allowed")
            new.append(NewEvent(str(self.ids()), kind, payload, decision.metadata))
        return tuple(new)

    def _snapshot(
        self, stream: StreamId, before: Version, after: Version, state: S
    ) -> Snapshot | None:
        codec = self.snapshots
        if codec is None:
            return None
        is_due = before // codec.every_events != after // codec.every_events
        if not is_due and not self.memory.misses_snapshot(stream):
            return None
        return Snapshot(after, codec.schema, codec.dump(state))


def _record(claim: Claim | None, reply: bytes) -> IdempotencyRecord | None:
    if claim is None:
        return None
    return IdempotencyRecord(claim.key, claim.fingerprint, reply, claim.ttl_s)
