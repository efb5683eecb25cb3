"""What must hold at every step of every world. Each check raises `Broken` with what it saw."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from flotilla import Projection, StreamId
from flotilla.partition import partition_of
from simulation.broker import Broker, said_by
from simulation.disk import Disk
from simulation.views import Database


class Broken(AssertionError):
    """A promise was broken."""


def holds(fact: bool, what: str, *seen: object) -> None:
    """Raise `Broken` unless `fact`."""
    if not fact:
        raise Broken(f"{what}: {' | '.join(map(str, seen))}")


class CopyCheck:
    """The stream is a dense copy of the ledger, in the order of versions, and neither forgets."""

    def __init__(self, disk: Disk, broker: Broker) -> None:
        self._disk, self._broker = disk, broker
        self._recorded: list[str] = []

    def __call__(self) -> None:
        """Check it."""
        stream = [said_by(message) for message in self._broker.stream.messages]
        published = [m.event_id for m in stream]
        holds(len(set(published)) == len(published), "an event is on the stream twice", published)
        holds(self._broker.stream.first == 1, "the stream does not begin at 1")
        in_order([m.event for m in stream if m.event], "on the stream")
        ledger = self._disk.ledger()
        recorded = [e.event.event_id for e in ledger]
        holds(
            [e.offset for e in ledger] == list(range(1, len(ledger) + 1)),
            "the ledger has a gap",
            [e.offset for e in ledger],
        )
        common = min(len(published), len(recorded))
        holds(
            published[:common] == recorded[:common], "ledger and stream differ", recorded, published
        )
        holds(
            recorded[: len(self._recorded)] == self._recorded,
            "the ledger changed",
            self._recorded,
            recorded,
        )
        early = {*enumerate(recorded, start=1)} - self._broker.ever
        holds(not early, "recorded and never published", early)
        self._recorded = recorded


def in_order(events: Iterable[tuple[StreamId, int]], where: str) -> None:
    """Check that versions of a stream follow each other, from 1."""
    versions: defaultdict[StreamId, int] = defaultdict(int)
    for stream, version in events:
        versions[stream] += 1
        holds(version == versions[stream], f"versions out of order {where}", stream, version)


class ViewCheck:
    """The view is the fold of the ledger up to its checkpoints: each event once, or parked.

    What a partition has folded is what the whole would have of its keys.
    """

    def __init__(self, disk: Disk, database: Database, parts: Sequence[Projection]) -> None:
        self._disk, self._database, self._parts = disk, database, parts
        self._checkpoints = dict.fromkeys((part.name for part in parts), 0)

    @property
    def checkpoint(self) -> int:
        """Return up to where all of the view is folded."""
        return min(self._checkpoints.values())

    def __call__(self) -> None:
        """Check it, right after a commit."""
        run = self._database.run
        before = dict(self._checkpoints)
        self._checkpoints |= run('select projection, "offset" from projection_checkpoint', ())
        at = self._checkpoints
        holds(before.keys() == at.keys(), "a checkpoint of nobody", before, at)
        holds(all(at[p] >= before[p] for p in at), "a checkpoint went back", before, at)
        written = run("select at, stream, version from journal order by line", ())
        parked = run('select "offset", stream, version from projection_parked_event order by 1', ())
        ledger = [
            (e.offset, e.event.stream, e.event.version)
            for e in self._disk.ledger()
            if (e.offset or 0) <= at[self._owner(e.event.stream)]
        ]
        holds(
            sorted(written + parked) == ledger,
            f"the view is not the fold of the ledger up to {at}",
            f"written {written}",
            f"parked {parked}",
            f"ledger {ledger}",
        )
        in_order([(stream, version) for _, stream, version in written], "in the view")

    def _owner(self, stream: StreamId) -> str:
        return self._parts[partition_of(stream, len(self._parts))].name

    def parked(self) -> list[str]:
        """Return the keys that are parked."""
        return [
            k for (k,) in self._database.run("select distinct key from projection_parked_event", ())
        ]


def commands_happened_once(disk: Disk, acknowledged: Iterable[str]) -> None:
    """Check that what was acknowledged happened, and nothing happened twice."""
    ids = [e.event.event_id for e in disk.ledger()]
    twice = [event_id for event_id, count in Counter(ids).items() if count > 1]
    holds(not twice, "happened twice", twice)
    lost = set(acknowledged) - {event_id.rpartition(".")[0] for event_id in ids}
    holds(not lost, "acknowledged and lost", sorted(lost))
