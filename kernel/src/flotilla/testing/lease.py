"""What every store of leases promises, as tests. Subclass with a `store` fixture: an empty one."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from flotilla.lease import Lease, LeaseStatus, LeaseStore
from flotilla.testing.worlds import eventually

SHORT_S = 0.2
LONG_S = 60.0


async def only(store: LeaseStore) -> LeaseStatus:
    """Return the one lease there is."""
    [status] = await store.leases()
    return status


class LeaseStoreContract:
    """One subclass an adapter; one method a promise."""

    @pytest.fixture
    def store(self) -> LeaseStore:
        """Build an empty store."""
        raise NotImplementedError

    @pytest.fixture
    def until_expired(self) -> Callable[[LeaseStore], Awaitable[None]]:
        """Return what waits, by the store's clock, until its only lease has expired."""

        async def wait(store: LeaseStore) -> None:
            async def expired() -> bool:
                return (await only(store)).expires_in_s <= 0

            await eventually(expired, what="the lease expires")

        return wait

    async def test_nobody_has_a_lease_at_first(self, store: LeaseStore) -> None:
        """And there is none to be seen."""
        assert [] == list(await store.leases())

    async def test_who_comes_first_has_it_and_others_do_not(self, store: LeaseStore) -> None:
        """Until it ends; other names are others' business."""
        mine = await store.acquire("relay:a", "me", ttl_s=LONG_S)

        assert Lease("relay:a", "me", 1, LONG_S) == mine
        assert await store.acquire("relay:a", "you", ttl_s=LONG_S) is None
        assert await store.acquire("relay:b", "you", ttl_s=LONG_S)

    async def test_renewing_keeps_the_token_and_sets_the_end(self, store: LeaseStore) -> None:
        """The same holder asks again, and has it for longer."""
        first = await store.acquire("relay:a", "me", ttl_s=LONG_S)
        before = (await only(store)).expires_in_s

        again = await store.acquire("relay:a", "me", ttl_s=2 * LONG_S)

        assert first is not None
        assert again is not None
        assert first.token == again.token
        assert before <= LONG_S < (await only(store)).expires_in_s <= 2 * LONG_S

    async def test_what_expired_can_be_taken_with_a_greater_token(
        self, store: LeaseStore, until_expired: Callable[[LeaseStore], Awaitable[None]]
    ) -> None:
        """The store's clock says when; nobody asks the one who had it."""
        mine = await store.acquire("relay:a", "me", ttl_s=SHORT_S)
        await until_expired(store)
        assert (await only(store)).holder is None

        theirs = await store.acquire("relay:a", "you", ttl_s=LONG_S)

        assert mine is not None
        assert theirs is not None
        assert theirs.token > mine.token
        assert await store.acquire("relay:a", "me", ttl_s=LONG_S) is None

    async def test_one_who_let_it_expire_gets_a_new_token(
        self, store: LeaseStore, until_expired: Callable[[LeaseStore], Awaitable[None]]
    ) -> None:
        """What it did with the old one may have been overtaken: it is a change of holder."""
        first = await store.acquire("relay:a", "me", ttl_s=SHORT_S)
        await until_expired(store)

        again = await store.acquire("relay:a", "me", ttl_s=LONG_S)

        assert first is not None
        assert again is not None
        assert again.token > first.token

    async def test_what_is_released_can_be_taken_at_once(self, store: LeaseStore) -> None:
        """And has no holder until then."""
        mine = await store.acquire("relay:a", "me", ttl_s=LONG_S)
        assert mine is not None
        await store.release(mine)
        released = await only(store)

        theirs = await store.acquire("relay:a", "you", ttl_s=LONG_S)

        assert (None, mine.token) == (released.holder, released.token)
        assert released.expires_in_s <= 0
        assert theirs is not None
        assert theirs.token > mine.token

    async def test_releasing_an_old_lease_changes_nothing(
        self, store: LeaseStore, until_expired: Callable[[LeaseStore], Awaitable[None]]
    ) -> None:
        """A holder that was overtaken cannot take it from the next one."""
        mine = await store.acquire("relay:a", "me", ttl_s=SHORT_S)
        assert mine is not None
        await until_expired(store)
        theirs = await store.acquire("relay:a", "you", ttl_s=LONG_S)

        await store.release(mine)

        assert theirs is not None
        assert ("you", theirs.token) == ((await only(store)).holder, (await only(store)).token)

    async def test_of_many_at_once_one_gets_it(self, store: LeaseStore) -> None:
        """However they interleave."""
        answers = await asyncio.gather(
            *(store.acquire("relay:a", f"holder-{n}", ttl_s=LONG_S) for n in range(10))
        )

        [winner] = [lease for lease in answers if lease]
        assert (winner.holder, winner.token) == ((await only(store)).holder, 1)
