"""What every key store promises, as tests. Subclass with a `store` fixture: an empty one."""

import asyncio

import pytest

from flotilla.keys import DataKey, Erasure, KeyStore

KEY = bytes(range(60))


def a_key(
    subject: str = "ada", *, tenant: str = "acme", id_: int = 1, master: str = "m1"
) -> DataKey:
    """Return a key that could have been made; `id_` tells it and its bytes from others."""
    return DataKey(f"{id_:032x}", tenant, subject, master, KEY + bytes([id_ % 256]))


class KeyStoreContract:
    """One subclass an adapter; one method a promise."""

    @pytest.fixture
    def store(self) -> KeyStore:
        """Build an empty store."""
        raise NotImplementedError

    async def test_what_is_created_is_found_by_subject_and_by_id(self, store: KeyStore) -> None:
        """And by nothing else."""
        assert a_key() == await store.create(a_key())

        assert a_key() == await store.of_subject("acme", "ada")
        assert a_key() == await store.by_id("acme", a_key().key_id)
        assert await store.of_subject("acme", "bob") is None
        assert await store.of_subject("other", "ada") is None
        assert await store.by_id("acme", "f" * 32) is None

    async def test_an_id_is_found_whosever_it_is(self, store: KeyStore) -> None:
        """Whoever asks for another tenant's is to be refused, not told that it is damaged."""
        await store.create(a_key())

        assert a_key() == await store.by_id("other", a_key().key_id)

    async def test_of_many_at_once_one_key_wins_and_all_are_told(self, store: KeyStore) -> None:
        """However they interleave."""
        found = await asyncio.gather(*(store.create(a_key(id_=n)) for n in range(1, 11)))

        assert 1 == len(set(found))
        assert found[0] == await store.of_subject("acme", "ada")

    async def test_a_destroyed_key_leaves_a_tombstone_without_material(
        self, store: KeyStore
    ) -> None:
        """By subject and by id; others keep theirs."""
        await store.create(a_key())
        await store.create(a_key("bob", id_=2))

        destroyed = await store.destroy(Erasure("acme", "ada"))

        assert ("acme", "ada", 1) == (destroyed.tenant, destroyed.subject, destroyed.keys)
        assert a_key().tombstone() == await store.of_subject("acme", "ada")
        assert a_key().tombstone() == await store.by_id("acme", a_key().key_id)
        assert a_key("bob", id_=2) == await store.of_subject("acme", "bob")

    async def test_destroying_again_does_nothing(self, store: KeyStore) -> None:
        """Whoever reads the erasure in the log may repeat it."""
        await store.create(a_key())
        await store.destroy(Erasure("acme", "ada"))

        assert 0 == (await store.destroy(Erasure("acme", "ada"))).keys
        assert a_key().tombstone() == await store.of_subject("acme", "ada")

    async def test_what_was_destroyed_is_never_created_again(self, store: KeyStore) -> None:
        """Nor is what was destroyed before there was a key."""
        await store.create(a_key())
        await store.destroy(Erasure("acme", "ada"))
        await store.destroy(Erasure("acme", "bob"))

        assert a_key().tombstone() == await store.create(a_key(id_=2))
        assert (await store.create(a_key("bob", id_=3))).destroyed
        assert await store.by_id("acme", a_key(id_=3).key_id) is None

    async def test_an_erasure_that_names_a_key_entombs_that_id(self, store: KeyStore) -> None:
        """So that a store from before that key knows what was sealed with it."""
        key = a_key()
        await store.destroy(Erasure("acme", "ada", key.key_id))

        assert key.tombstone() == await store.by_id("acme", key.key_id)

    async def test_an_erasure_learns_the_id_of_its_key_later(self, store: KeyStore) -> None:
        """And never exchanges one that it knows."""
        key = a_key()
        await store.destroy(Erasure("acme", "ada"))
        await store.destroy(Erasure("acme", "ada", key.key_id))
        await store.destroy(Erasure("acme", "ada", "f" * 32))

        assert key.tombstone() == await store.by_id("acme", key.key_id)
        assert await store.by_id("acme", "f" * 32) is None

    async def test_a_whole_tenant_is_destroyed_with_all_subjects_and_no_other_tenant(
        self, store: KeyStore
    ) -> None:
        """Those that it might have had too, and keys that this store never saw."""
        for n, subject in enumerate(("ada", "bob", "eve"), start=1):
            await store.create(a_key(subject, id_=n))
        await store.create(a_key(tenant="other", id_=9))

        assert 3 == (await store.destroy(Erasure("acme"))).keys

        for n, subject in enumerate(("ada", "bob", "eve"), start=1):
            assert a_key(subject, id_=n).tombstone() == await store.of_subject("acme", subject)
        assert (await store.create(a_key("new", id_=8))).destroyed
        unknown = await store.by_id("acme", "f" * 32)
        assert unknown is not None
        assert unknown.destroyed
        assert a_key(tenant="other", id_=9) == await store.of_subject("other", "ada")
        assert await store.by_id("other", "f" * 32) is None
        assert 0 == (await store.destroy(Erasure("acme"))).keys

    async def test_a_key_made_while_its_tenant_is_destroyed_does_not_survive(
        self, store: KeyStore
    ) -> None:
        """Whichever came first."""
        await asyncio.gather(
            *(store.create(a_key(f"s{n}", id_=n)) for n in range(1, 8)),
            store.destroy(Erasure("acme")),
            *(store.create(a_key(f"s{n}", id_=n)) for n in range(8, 16)),
        )

        for n in range(1, 16):
            found = await store.of_subject("acme", f"s{n}")
            assert found is not None
            assert found.destroyed, f"s{n} has a key"
        assert {} == dict((await store.status()).wrapped_by)

    async def test_keys_of_another_master_key_are_found_in_pages(self, store: KeyStore) -> None:
        """By id; those that were destroyed are no keys any more."""
        for n in range(1, 6):
            await store.create(a_key(f"s{n}", id_=n, master="m2" if n == 2 else "m1"))
        await store.destroy(Erasure("acme", "s4"))

        first = await store.wrapped_by_others("m2", after="", limit=2)
        rest = await store.wrapped_by_others("m2", after=first[-1].key_id, limit=2)

        assert ["s1", "s3"] == [key.subject for key in first]
        assert ["s5"] == [key.subject for key in rest]

    async def test_rewrapping_replaces_only_what_is_still_there(self, store: KeyStore) -> None:
        """A destruction or another rotation in between wins."""
        old = await store.create(a_key())
        new = DataKey(old.key_id, old.tenant, old.subject, "m2", b"wrapped otherwise")

        assert await store.rewrap(old, new)
        assert not await store.rewrap(old, new)
        assert new == await store.of_subject("acme", "ada")

        await store.destroy(Erasure("acme", "ada"))
        assert not await store.rewrap(new, old)
        assert old.tombstone() == await store.of_subject("acme", "ada")

    async def test_status_counts_keys_by_master_key(self, store: KeyStore) -> None:
        """Tombstones of subjects apart; that of a tenant is none of a subject."""
        await store.create(a_key("ada", id_=1))
        await store.create(a_key("bob", id_=2))
        await store.create(a_key("eve", id_=3, master="m2"))
        await store.create(a_key("zoe", tenant="other", id_=4))
        await store.destroy(Erasure("other"))

        status = await store.status()

        assert {"m1": 2, "m2": 1} == dict(status.wrapped_by)
        assert (3, 1) == (status.alive, status.destroyed)

    async def test_scrubbing_keeps_what_is_alive(self, store: KeyStore) -> None:
        """And says what remains, if anything, in words."""
        await store.create(a_key())
        await store.create(a_key("bob", id_=2))
        await store.destroy(Erasure("acme", "bob"))

        remains = await store.scrub()

        assert all(isinstance(words, str) and words for words in remains)
        assert a_key() == await store.of_subject("acme", "ada")
