"""What every outbox promises, as tests. Subclass with a `store` fixture: an empty `ServiceStore`."""

import pytest

from flotilla.errors import Corrupt
from flotilla.lease import LeaseStore
from flotilla.outbox import START, LeaseLost, Offset, OutboxEntry, Pruned, as_log_event
from flotilla.store import Append, Committed, Unit, Version, stream_id
from flotilla.stores import ServiceStore
from flotilla.testing.store import A, B, append, record
from flotilla.testing.worlds import new_event


async def commit(store: ServiceStore, *appends: Append) -> None:
    """Commit each append as a unit of its own."""
    outcomes = await store.commit([Unit((a,)) for a in appends])
    assert all(outcome == Committed() for outcome in outcomes), outcomes


def named(entries: list[OutboxEntry]) -> list[tuple[str, int]]:
    """Return (stream, version) of each entry."""
    return [(entry.event.stream, entry.event.version) for entry in entries]


class OutboxContract:
    """One subclass an adapter; one method a promise. `leases` are those on the log of `store`."""

    @pytest.fixture
    def leases(self) -> LeaseStore:
        """Build the leases beside the store."""
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> ServiceStore:
        """Build an empty store."""
        raise NotImplementedError

    async def test_an_empty_outbox_has_nothing_waiting(self, store: ServiceStore) -> None:
        """And its log is at the start."""
        status = await store.status()

        assert [] == list(await store.pending(limit=10))
        assert (START, 0, 0, 0.0) == (
            await store.last_offset(),
            status.committed,
            status.waiting,
            status.oldest_waiting_s,
        )

    async def test_what_is_committed_waits_in_order_of_its_stream(
        self, store: ServiceStore
    ) -> None:
        """Positions grow with versions, whatever else is in the batch."""
        await commit(store, append(A, 0, '"1"', '"2"'), append(B, 0, '"1"'), append(A, 2, '"3"'))

        entries = list(await store.pending(limit=10))

        assert [1, 2, 3] == [e.event.version for e in entries if e.event.stream == A]
        assert [1] == [e.event.version for e in entries if e.event.stream == B]
        assert sorted(e.position for e in entries) == [e.position for e in entries]
        assert {None} == {e.offset for e in entries}

    async def test_an_entry_carries_the_whole_event(self, store: ServiceStore) -> None:
        """As it is stored, with its metadata."""
        await commit(store, append(A, 0, '{"n": 1}'))

        [entry] = await store.pending(limit=10)

        assert list(await store.read(A)) == [entry.event]

    async def test_what_was_refused_never_waits(self, store: ServiceStore) -> None:
        """No event, no entry: conflicts and conditions leave nothing to publish."""
        await commit(store, append(A, 0, '"1"'))
        await store.commit([Unit((append(A, 0, '"no"'),)), Unit((append(A, 1),), record("k"))])

        assert 1 == len(await store.pending(limit=10))

    async def test_pending_is_bounded_and_starts_with_the_oldest(self, store: ServiceStore) -> None:
        """The limit cuts the newest."""
        await commit(store, append(A, 0, *(str(n) for n in range(5))))

        assert [1, 2] == [e.event.version for e in await store.pending(limit=2)]

    async def test_an_offset_ends_the_waiting(self, store: ServiceStore) -> None:
        """Recorded entries are the ledger; the others still wait."""
        await commit(store, append(A, 0, '"1"', '"2"', '"3"'))
        first, second, _third = await store.pending(limit=10)

        await store.record([(first.position, Offset(1)), (second.position, Offset(2))])

        status = await store.status()
        assert [3] == [e.event.version for e in await store.pending(limit=10)]
        assert (2, 3, 2, 1) == (
            await store.last_offset(),
            status.committed,
            status.offset,
            status.waiting,
        )
        assert status.oldest_waiting_s >= 0

    async def test_the_ledger_is_read_by_offset(self, store: ServiceStore) -> None:
        """A relay refills a broker from it, a projector reads what a stream no longer has."""
        await commit(store, append(A, 0, *(str(n) for n in range(5))))
        waiting = await store.pending(limit=10)
        await store.record([(e.position, Offset(n)) for n, e in enumerate(waiting, start=1)])

        found = list(await store.published(after=Offset(2), limit=2))

        assert [3, 4] == [e.offset for e in found]
        assert [3, 4] == [e.event.version for e in found]
        assert [] == list(await store.published(after=Offset(5), limit=2))

    async def test_the_ledger_is_read_as_the_log_delivers_it(self, store: ServiceStore) -> None:
        """The same events, the same limits, and of the metadata the trace alone."""
        traced = new_event('{"ü": 1}', metadata={"traceparent": "00-1-2-03", "correlation": "c"})
        await commit(
            store, append(A, 0, *(str(n) for n in range(4))), Append(A, Version(4), (traced,))
        )
        waiting = await store.pending(limit=10)
        await store.record([(e.position, Offset(n)) for n, e in enumerate(waiting, start=1)])

        for after, limit in ((0, 9), (2, 2), (4, 1), (5, 9)):
            entries = await store.published(after=Offset(after), limit=limit)
            events = await store.events(after=Offset(after), limit=limit)
            assert list(map(as_log_event, entries)) == list(events)
        [last] = await store.events(after=Offset(4), limit=1)
        assert ("00-1-2-03", traced.payload.encode()) == (last.traceparent, last.payload)

    async def test_recording_again_is_a_no_op(self, store: ServiceStore) -> None:
        """A relay that died before it heard back records the same again."""
        await commit(store, append(A, 0, '"1"', '"2"'))
        first, second = await store.pending(limit=10)
        await store.record([(first.position, Offset(1))])

        await store.record([(first.position, Offset(1)), (second.position, Offset(2))])

        assert 2 == await store.last_offset()

    async def test_only_the_newest_lease_records(
        self, store: ServiceStore, leases: LeaseStore
    ) -> None:
        """Whoever led before is refused whole, though what it says would fit; a renewal is no change."""
        await commit(store, append(A, 0, '"1"', '"2"', '"3"'))
        first, second, third = await store.pending(limit=10)
        lease = await leases.acquire("relay:thing", "a", ttl_s=60)
        assert lease == await leases.acquire("relay:thing", "a", ttl_s=60)
        assert lease
        await store.record([(first.position, Offset(1))], lease=lease)
        await leases.release(lease)
        await store.record([(second.position, Offset(2))], lease=lease)
        newer = await leases.acquire("relay:thing", "b", ttl_s=60)
        assert newer

        with pytest.raises(LeaseLost, match="fencing number 1"):
            await store.record([(third.position, Offset(3))], lease=lease)
        with pytest.raises(LeaseLost):
            await store.record([(first.position, Offset(1))], lease=lease)

        assert 2 == await store.last_offset()
        await store.record([(third.position, Offset(3))], lease=newer)
        assert 3 == await store.last_offset()

    @pytest.mark.parametrize("wrong", ["other offset", "taken offset", "unknown position"])
    async def test_a_contradiction_is_corrupt_and_changes_nothing(
        self, store: ServiceStore, wrong: str
    ) -> None:
        """An offset never changes its event, an event never its offset."""
        await commit(store, append(A, 0, '"1"', '"2"'))
        first, second = await store.pending(limit=10)
        await store.record([(first.position, Offset(1))])
        contradiction = {
            "other offset": [(second.position, Offset(3)), (first.position, Offset(2))],
            "taken offset": [(second.position, Offset(1))],
            "unknown position": [(second.position, Offset(2)), (second.position + 999, Offset(3))],
        }[wrong]

        with pytest.raises(Corrupt):
            await store.record(contradiction)

        assert 1 == await store.last_offset()
        assert [2] == [e.event.version for e in await store.pending(limit=10)]

    async def test_waiting_entries_are_found_by_stream_and_version(
        self, store: ServiceStore
    ) -> None:
        """So that what the broker has, and the ledger has not, can be recognised."""
        await commit(store, append(A, 0, '"1"', '"2"'), append(B, 0, '"1"'))
        [first] = await store.pending(limit=1)
        await store.record([(first.position, Offset(1))])

        found = list(
            await store.find([(A, Version(1)), (A, Version(2)), (A, Version(9)), (B, Version(1))])
        )

        committed = {(A, 1), (A, 2), (B, 1)}
        assert committed - {(first.event.stream, first.event.version)} == set(named(found))
        assert 2 == len(found)

    async def test_offsets_survive_later_commits(self, store: ServiceStore) -> None:
        """An event committed later gets a later offset, wherever its position lies."""
        await commit(store, append(A, 0, '"1"'))
        [first] = await store.pending(limit=10)
        await store.record([(first.position, Offset(1))])
        await commit(store, append(stream_id("rival", "thing", "z"), 0, '"1"'), append(A, 1, '"2"'))

        waiting = list(await store.pending(limit=10))

        assert 2 == len(waiting)
        assert all(entry.position > first.position for entry in waiting)
        assert Version(2) in {entry.event.version for entry in waiting}

    async def test_what_is_on_its_way_can_be_left_out(self, store: ServiceStore) -> None:
        """Those positions, and no others: a smaller one may become visible later."""
        await commit(store, append(A, 0, *(str(n) for n in range(5))))
        waiting = list(await store.pending(limit=10))

        found = list(await store.pending(limit=2, but=[waiting[n].position for n in (0, 2)]))

        assert [2, 4] == [e.event.version for e in found]

    async def test_readers_say_how_far_they_are(self, store: ServiceStore) -> None:
        """Each has one place, that moves both ways: a view may be built again."""
        assert [] == list(await store.readers())
        await store.read_by("projection:a", Offset(5))
        await store.read_by("projection:b", Offset(1))

        await store.read_by("projection:a", Offset(3))

        readers = list(await store.readers())
        assert [("projection:a", 3), ("projection:b", 1)] == [(r.reader, r.offset) for r in readers]
        assert all(0 <= r.seen_s < 60 for r in readers)

    async def test_what_everybody_has_read_is_pruned_and_said_to_be(
        self, store: ServiceStore
    ) -> None:
        """Events stay; asking for what is gone is an answer, never a gap that goes unseen."""
        await ledger_of(store, 6)
        await store.read_by("projection:a", Offset(4))
        await store.read_by("projection:b", Offset(3))

        assert 3 == await store.prune(older_than_s=-60, limit=100)

        status = await store.status()
        assert (4, 6, 6) == (await store.first_offset(), status.offset, status.committed)
        assert [4, 5, 6] == [e.offset for e in await store.published(after=Offset(3), limit=10)]
        for after in (0, 2):
            with pytest.raises(Pruned, match="begins at 4"):
                await store.published(after=Offset(after), limit=10)
        assert 6 == len(await store.read(A))
        assert 0 == await store.prune(older_than_s=-60, limit=100)

    async def test_pruning_is_bounded_and_takes_the_oldest(self, store: ServiceStore) -> None:
        """So that a pass is short, and what is kept has no gaps."""
        await ledger_of(store, 6)
        await store.read_by("projection:a", Offset(6))

        counts = [await store.prune(older_than_s=-60, limit=2) for _ in range(4)]

        assert [2, 2, 1, 0] == counts, "the last entry stays: it is the last offset"
        assert (6, 6) == (await store.first_offset(), await store.last_offset())

    @pytest.mark.parametrize("why", ["young", "unread", "nobody reads"])
    async def test_what_may_be_needed_is_not_pruned(self, store: ServiceStore, why: str) -> None:
        """Too young, not read by all, or read by nobody that is known."""
        await ledger_of(store, 3)
        if why != "nobody reads":
            await store.read_by("projection:a", Offset(3))
            await store.read_by("projection:new", Offset(0 if why == "unread" else 3))

        assert 0 == await store.prune(older_than_s=3600 if why == "young" else -60, limit=100)

        assert 1 == await store.first_offset()

    async def test_a_reader_that_is_gone_holds_until_it_is_forgotten(
        self, store: ServiceStore
    ) -> None:
        """And when the last one is, nobody reads: nothing is pruned."""
        await ledger_of(store, 4)
        await store.read_by("projection:a", Offset(4))
        await store.read_by("projection:gone", Offset(1))
        assert 1 == await store.prune(older_than_s=-60, limit=100)

        assert await store.forget_reader("projection:gone")

        assert not await store.forget_reader("projection:gone")
        assert 1 == await store.prune(older_than_s=-60, limit=1)
        assert await store.forget_reader("projection:a")
        assert 0 == await store.prune(older_than_s=-60, limit=100)

    async def test_a_pruned_log_goes_on(self, store: ServiceStore) -> None:
        """Later events wait, get their offsets, and are recorded as ever."""
        await ledger_of(store, 3)
        await store.read_by("projection:a", Offset(3))
        await store.prune(older_than_s=-60, limit=100)
        await commit(store, append(A, 3, '"4"'))

        [waiting] = await store.pending(limit=10)
        await store.record([(waiting.position, Offset(4))])

        assert [3, 4] == [e.offset for e in await store.published(after=Offset(2), limit=10)]


async def ledger_of(store: ServiceStore, count: int) -> None:
    """Commit and record so many events of one stream."""
    await commit(store, append(A, 0, *(str(n) for n in range(count))))
    waiting = await store.pending(limit=count)
    await store.record([(e.position, Offset(n)) for n, e in enumerate(waiting, start=1)])
