"""What must hold at every step of every world. Each check raises `Broken` with what it saw."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from flotilla import Offset, StreamId
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
    """The view is the fold of the ledger up to its checkpoint: each event once, or parked."""

    def __init__(self, disk: Disk, database: Database) -> None:
        self._disk, self._database = disk, database
        self.checkpoint = Offset(0)

    def __call__(self) -> None:
        """Check it, right after a commit."""
        run = self._database.run
        at = run('select "offset" from projection_checkpoint', ())
        last = Offset(at[0][0]) if at else Offset(0)
        holds(last >= self.checkpoint, "the checkpoint went back", self.checkpoint, last)
        self.checkpoint = last
        written = run("select at, stream, version from journal order by line", ())
        parked = run('select "offset", stream, version from projection_parked_event order by 1', ())
        ledger = [(e.offset, e.event.stream, e.event.version) for e in self._disk.ledger()[:last]]
        holds(
            sorted(written + parked) == ledger,
            f"the view is not the fold of the ledger up to {last}",
            f"written {written}",
            f"parked {parked}",
            f"ledger {ledger}",
        )
        in_order([(stream, version) for _, stream, version in written], "in the view")

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
