"""What every store promises about what is due, as tests. Subclass with a `store` fixture."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from flotilla.store import (
    EMPTY,
    Append,
    Committed,
    Conflicted,
    StreamId,
    Unit,
    Version,
    Wake,
    stream_id,
)
from flotilla.stores import ServiceStore
from flotilla.testing.worlds import eventually, new_event

LONG_S = 60.0
SHORT_S = 0.2
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
A, B, C = (stream_id("acme", "process", key) for key in "abc")


async def wake(
    store: ServiceStore, stream: StreamId, at: datetime | None, *, expected: int = 0
) -> object:
    """Commit an event with which `stream` waits for `at`, or for nothing; return the outcome."""
    append = Append(stream, Version(expected), (new_event(),), wake=Wake(at))
    [outcome] = await store.commit([Unit((append,))])
    return outcome


async def claimed(store: ServiceStore, *, limit: int = 10, lease_s: float = LONG_S) -> list[str]:
    """Claim; return the keys of the streams that it brought."""
    claim = await store.claim("process", limit=limit, lease_s=lease_s)
    return [due.stream.split("/")[2] for due in claim.due]


class DueStoreContract:
    """One subclass an adapter; one method a promise."""

    @pytest.fixture
    def store(self) -> ServiceStore:
        """Build an empty store."""
        raise NotImplementedError

    async def test_nothing_is_due_at_first(self, store: ServiceStore) -> None:
        """And there is nothing to wait for."""
        claim = await store.claim("process", limit=10, lease_s=LONG_S)

        assert ([], None) == (list(claim.due), claim.next_in_s)

    async def test_who_was_due_for_longest_comes_first_and_says_since_when(
        self, store: ServiceStore
    ) -> None:
        """Whatever the order in which they were committed."""
        await wake(store, A, LONG_AGO + timedelta(seconds=2))
        await wake(store, B, LONG_AGO)
        await wake(store, C, LONG_AGO + timedelta(microseconds=1))

        claim = await store.claim("process", limit=2, lease_s=LONG_S)

        assert [B, C] == [due.stream for due in claim.due]
        assert [LONG_AGO, LONG_AGO + timedelta(microseconds=1)] == [due.at for due in claim.due]
        assert claim.next_in_s is not None
        assert claim.next_in_s <= 0

    async def test_what_is_to_come_is_not_due_and_it_is_known_how_long_that_takes(
        self, store: ServiceStore
    ) -> None:
        """By the store's clock."""
        now = (await store.claim("process", limit=0, lease_s=LONG_S)).now
        await wake(store, A, now + timedelta(seconds=1000))

        claim = await store.claim("process", limit=10, lease_s=LONG_S)

        assert [] == list(claim.due)
        assert claim.next_in_s is not None
        assert 900 < claim.next_in_s <= 1000

    async def test_it_becomes_due_when_its_moment_has_come(self, store: ServiceStore) -> None:
        """Nobody has to commit anything for that."""
        now = (await store.claim("process", limit=0, lease_s=LONG_S)).now
        await wake(store, A, now + timedelta(seconds=SHORT_S))

        async def due() -> bool:
            return await claimed(store) == ["a"]

        await eventually(due, what="the moment comes")

    async def test_what_was_claimed_is_hidden_and_comes_again_when_the_lease_has_ended(
        self, store: ServiceStore
    ) -> None:
        """So a worker may die at any time."""
        await wake(store, A, LONG_AGO)
        assert ["a"] == await claimed(store, lease_s=SHORT_S)
        assert [] == await claimed(store)

        async def due() -> bool:
            return await claimed(store) == ["a"]

        await eventually(due, what="the lease ends")
        assert [] == await claimed(store)

    async def test_the_next_events_say_anew_when(self, store: ServiceStore) -> None:
        """Whoever has claimed it: the claim ends with what was claimed."""
        await wake(store, A, LONG_AGO)
        assert ["a"] == await claimed(store)

        await wake(store, A, LONG_AGO + timedelta(seconds=1), expected=1)

        assert ["a"] == await claimed(store)

    async def test_events_may_say_that_nothing_is_to_come(self, store: ServiceStore) -> None:
        """Then it is never due again."""
        await wake(store, A, LONG_AGO)

        await wake(store, A, None, expected=1)

        claim = await store.claim("process", limit=10, lease_s=LONG_S)
        assert ([], None) == (list(claim.due), claim.next_in_s)

    async def test_events_that_say_nothing_change_nothing(self, store: ServiceStore) -> None:
        """What was waited for stays."""
        await wake(store, A, LONG_AGO)

        await store.commit([Unit((Append(A, Version(1), (new_event(),)),))])

        assert ["a"] == await claimed(store)

    async def test_what_is_not_committed_wakes_nobody(self, store: ServiceStore) -> None:
        """One transaction: there is no event without its moment, and no moment without its event."""
        await wake(store, A, None)
        lost = await wake(store, A, LONG_AGO)  # decided on version 0

        assert Conflicted() == lost
        assert [] == await claimed(store)

    async def test_in_one_batch_the_last_word_counts(self, store: ServiceStore) -> None:
        """Units of one stream that build on each other, as a hot aggregate commits them."""
        soon, never = Wake(LONG_AGO), Wake(None)
        chains = [(A, soon, never), (B, never, soon), (C, soon, None)]
        units = [
            Unit((Append(stream, Version(n), (new_event(),), wake=said),))
            for stream, *words in chains
            for n, said in enumerate(words)
        ]

        assert [Committed()] * len(units) == list(await store.commit(units))
        assert ["b", "c"] == sorted(await claimed(store))

    async def test_a_unit_of_several_streams_wakes_each(self, store: ServiceStore) -> None:
        """All or nothing."""
        both = (Append(s, EMPTY, (new_event(),), wake=Wake(LONG_AGO)) for s in (A, B))
        await store.commit([Unit(tuple(both))])

        assert ["a", "b"] == sorted(await claimed(store))

    async def test_other_kinds_of_aggregate_are_not_disturbed(self, store: ServiceStore) -> None:
        """Each has its own workers."""
        await wake(store, stream_id("acme", "schedule", "a"), LONG_AGO)

        assert [] == await claimed(store)
        assert 1 == len((await store.claim("schedule", limit=9, lease_s=LONG_S)).due)

    async def test_two_workers_never_get_the_same(self, store: ServiceStore) -> None:
        """However they interleave; and together they get everything."""
        streams = [stream_id("acme", "process", f"p{n:02}") for n in range(40)]
        await store.commit(
            [Unit((Append(s, EMPTY, (new_event(),), wake=Wake(LONG_AGO)),)) for s in streams]
        )

        shares = await asyncio.gather(*(claimed(store, limit=7) for _ in range(8)))
        rest = await claimed(store, limit=40)

        taken = [key for share in (*shares, rest) for key in share]
        assert sorted(taken) == sorted(s.split("/")[2] for s in streams)
