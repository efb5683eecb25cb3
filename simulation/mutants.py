"""Worlds in which one safeguard is left out: the checks are worth what they catch of these."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from flotilla import (
    Checkpoint,
    Fenced,
    Leadership,
    Lease,
    LogEvent,
    Offset,
    Outbox,
    OutboxEntry,
    Unavailable,
    ViewSession,
)
from simulation.views import MemoryViews
from svc_outbox_relay.relay import Batch, Published, Relay
from svc_projector.projector import Projector


class RecordsBeforeItPublishes(Relay):
    """The ledger says what is not on the stream yet."""

    async def _publish(self, batch: Batch, published: Published) -> None:
        pairs = enumerate(batch.positions, published.last + 1)
        await self.outbox.record([(p, Offset(o)) for o, p in pairs])
        await super()._publish(batch, published)


class NeverReadsBack(Relay):
    """After a doubt, goes on at the end of the stream: what was not recorded stays so."""

    async def handshake(self) -> Offset:
        """Believe the stream."""
        return await self.stream.last_sequence()


class TrustsNobodyElse(Relay):
    """Publishes without asking whether it still leads, or whether the ledger moved on."""

    async def _publish(self, batch: Batch, published: Published) -> None:
        await self.stream.publish(batch.messages, after=published.last)
        published.add(batch)

    async def _record(self, published: Published) -> None:
        positions = published.positions[:]
        published.recording = len(positions)
        first = published.last + 1 - len(positions)
        await self.outbox.record([(p, Offset(o)) for o, p in enumerate(positions, first)])
        published.drop()


@dataclass(slots=True)
class CursorByPosition:
    """An outbox that reads on after the greatest position it has seen."""

    outbox: Outbox
    seen: int = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.outbox, name)

    async def pending(self, *, limit: int, but: Sequence[int] = ()) -> Sequence[OutboxEntry]:
        """Return what comes after what was returned before."""
        found = await self.outbox.pending(limit=1000, but=but)
        new = [entry for entry in found if entry.position > self.seen][:limit]
        self.seen = max([self.seen, *(entry.position for entry in new)])
        return new


class ChecksTheCheckpointOutside(MemoryViews):
    """Writes the rows in one transaction and moves the checkpoint in the next."""

    async def advance(
        self,
        projection: str,
        log: str,
        step: tuple[Offset, Checkpoint],
        apply: Callable[[ViewSession], Awaitable[None]],
    ) -> None:
        """Commit twice."""
        found = (await self.checkpoint(projection, log)).offset
        if found != step[0]:
            raise Fenced(f"at {found}")
        await self.transact(apply)
        await super().advance(projection, log, step, _nothing)


class SkipsOnError(Projector):
    """A batch that failed is left behind."""

    async def _apply(self, batch: Sequence[LogEvent]) -> None:
        try:
            await super()._apply(batch)
        except Unavailable:
            name, log, end = self.projection.name, self.projection.log, batch[-1].offset
            await self.views.advance(name, log, (self.checkpoint.offset, Checkpoint(end)), _nothing)
            self.checkpoint = Checkpoint(end)


@dataclass(slots=True)
class RecordsForAnybody:
    """An outbox that does not ask whether the lease is the newest."""

    outbox: Outbox

    def __getattr__(self, name: str) -> object:
        return getattr(self.outbox, name)

    async def record(
        self,
        offsets: Sequence[tuple[int, Offset]],
        *,
        lease: Lease | None = None,  # noqa: ARG002 - as the real one
    ) -> None:
        """Record for whoever led once."""
        await self.outbox.record(offsets)


class TrustsTooLong(Leadership):
    """Believes to lead for twice as long as its lease lives."""

    async def _acquire(self) -> Lease | None:
        lease = await super()._acquire()
        if lease is not None:
            self._trusted_until_s += self.ttl_s
        return lease


class BelievesTheStream(Projector):
    """Folds what was delivered as soon as the ledger has its offset, whatever it has there."""

    async def _check_recorded(self, run: Sequence[LogEvent]) -> None:
        pass


class ReleasesLate(Leadership):
    """Asks for its next lease under the name that a late release still knows."""

    async def _release(self, lease: Lease) -> None:
        await super()._release(lease)
        self._releases_unknown = 0


async def _nothing(_view: ViewSession) -> None:
    """Write nothing."""


def _for_anybody(outbox: Outbox) -> Outbox:
    return cast("Outbox", RecordsForAnybody(outbox))


def _by_position(outbox: Outbox) -> Outbox:
    return cast("Outbox", CursorByPosition(outbox))


MUTANTS: Mapping[str, Mapping[str, Any]] = {
    "record-before-publish": {"relay": RecordsBeforeItPublishes},
    "no-fence": {"fenced": False},
    "no-trust-and-no-fence": {"relay": TrustsNobodyElse, "fenced": False},
    "no-read-back": {"relay": NeverReadsBack},
    "cursor-by-position": {"outbox": _by_position},
    "checkpoint-outside": {"views": ChecksTheCheckpointOutside},
    "skip-on-error": {"projector": SkipsOnError},
    "trust-too-long": {"leadership": TrustsTooLong},
}
"""What `run` is given to leave a safeguard out."""
RARE: Mapping[str, Mapping[str, Any]] = {
    "late-release": {"leadership": ReleasesLate},
    "record-for-anybody": {"outbox": _for_anybody},
    "believe-the-stream": {"projector": BelievesTheStream},
}
"""What takes hundreds of seeds to find, or more: for the command line. Each has its own test."""
