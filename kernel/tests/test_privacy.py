"""Sealing personal text, and making it unreadable for good."""

import asyncio
import io
import json
import logging
import re
import traceback
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from flotilla.erasures import PAGE_EVENTS_MAX, erasures_in
from flotilla.errors import Corrupt, KernelError, Rejected
from flotilla.keys import DataKey, Destroyed, Erased, Erasure, NoSubject
from flotilla.master_key import MasterKeyInvalid, MasterKeys, new_master_key
from flotilla.privacy import CACHE_TTL_S, TEXT_BYTES_MAX, SealedElsewhere, TextTooLong, Vault
from flotilla.service import KeysBinding
from flotilla.store import EMPTY, Append, NewEvent, RecordedEvent, Unit, stream_id
from flotilla.stores import open_keys, open_store, open_vault
from flotilla.stores.memory import MemoryStore
from flotilla.stores.memory_keys import MemoryKeys
from flotilla.testing import ManualClock

MASTER = new_master_key(bytes(range(32)))
NEXT_MASTER = new_master_key(bytes(range(1, 33)))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


class CountedKeys(MemoryKeys):
    """Knows how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def of_subject(self, tenant: str, subject: str) -> DataKey | None:
        self.asked += 1
        return await super().of_subject(tenant, subject)

    async def by_id(self, tenant: str, key_id: str) -> DataKey | None:
        self.asked += 1
        return await super().by_id(tenant, key_id)


@pytest.fixture
def keys() -> CountedKeys:
    return CountedKeys()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def vault(keys: CountedKeys, clock: ManualClock) -> Vault:
    return a_vault(keys, clock)


def a_vault(
    keys: MemoryKeys, clock: ManualClock, master: str = MASTER, *, cache_keys_max: int = 100
) -> Vault:
    return Vault(keys, MasterKeys.parse(master), clock, cache_keys_max=cache_keys_max)


async def these(*erasures: Erasure) -> AsyncIterator[Erasure]:
    for erasure in erasures:
        yield erasure


@given(text=TEXTS, subject=st.text("aß/:.", min_size=1, max_size=9))
def test_whatever_is_sealed_opens_as_it_was_and_shows_nothing(text: str, subject: str) -> None:
    async def scenario() -> None:
        vault = a_vault(MemoryKeys(), ManualClock())
        sealed = await vault.seal("acme", subject, text)
        assert re.fullmatch(r"sealed:1:[0-9a-f]{32}:[A-Za-z0-9_-]+", sealed)
        assert len(text) < 8 or text not in sealed
        assert text == await vault.open("acme", sealed)
        assert sealed != await vault.seal("acme", subject, text)

    asyncio.run(scenario())


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7), text=TEXTS)
def test_a_text_with_any_bit_changed_does_not_open(place: int, bit: int, text: str) -> None:
    async def scenario() -> None:
        vault = a_vault(MemoryKeys(), ManualClock())
        sealed = bytearray(await vault.seal("acme", "ada", text), "ascii")
        changed = bytearray(sealed)
        changed[place % len(changed)] ^= 1 << bit
        with pytest.raises(Corrupt) as caught:
            opened = await vault.open("acme", changed.decode("latin-1"))
            # The last character of base64 may have bits that stand for nothing.
            assert opened == text
            assert place % len(changed) == len(changed) - 1
            raise Corrupt("as good as damaged", code="sealed-text-damaged")
        assert caught.value.code in {"sealed-text-damaged", "data-key-missing"}

    asyncio.run(scenario())


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["seal", "destroy", "destroy all", "rotate", "forget cache"]),
            st.sampled_from(["acme", "globex"]),
            st.sampled_from(["ada", "bob"]),
        ),
        max_size=25,
    )
)
def test_after_any_script_what_opens_is_what_was_not_destroyed(
    steps: list[tuple[str, str, str]],
) -> None:
    async def scenario() -> None:
        keys, clock, masters = MemoryKeys(), ManualClock(), [MASTER]
        vault = a_vault(keys, clock)
        sealed: list[tuple[str, str, str, str]] = []
        gone: set[tuple[str, str | None]] = set()
        for n, (what, tenant, subject) in enumerate(steps):
            erased = bool(gone & {(tenant, subject), (tenant, None)})
            match what:
                case "seal" if erased:
                    with pytest.raises(Erased):
                        await vault.seal(tenant, subject, "late")
                case "seal":
                    text = f"text {n}"
                    sealed.append((tenant, subject, text, await vault.seal(tenant, subject, text)))
                case "destroy":
                    await vault.destroy(tenant, subject)
                    gone.add((tenant, subject))
                case "destroy all":
                    await vault.destroy(tenant)
                    gone.add((tenant, None))
                case "rotate":
                    masters.insert(0, new_master_key(n.to_bytes(32)))
                    vault = a_vault(keys, clock, ",".join(masters[:2]))
                    await vault.rotate()
                    vault = a_vault(keys, clock, masters[0])
                case "forget cache":
                    clock.advance(CACHE_TTL_S)
        for tenant, subject, text, box in sealed:
            erased = bool(gone & {(tenant, subject), (tenant, None)})
            assert (None if erased else text) == await vault.open(tenant, box), steps

    asyncio.run(scenario())


async def test_another_tenant_is_refused_and_told_nothing_of_the_text(vault: Vault) -> None:
    sealed = await vault.seal("acme", "ada", "Ada Lovelace")

    for _ in range(2):  # from the store, and from the cache
        with pytest.raises(SealedElsewhere) as caught:
            await vault.open("globex", sealed)
        assert "Lovelace" not in str(caught.value)
    await vault.destroy("acme")
    with pytest.raises(SealedElsewhere):
        await vault.open("globex", sealed)


async def test_a_text_under_the_id_of_anothers_key_does_not_open(vault: Vault) -> None:
    ada, bob = [await vault.seal("acme", who, "secret") for who in ("ada", "bob")]
    head, _, _ = bob.rpartition(":")

    with pytest.raises(Corrupt, match="changed") as caught:
        await vault.open("acme", f"{head}:{ada.rpartition(':')[2]}")

    assert "sealed-text-damaged" == caught.value.code


@pytest.mark.parametrize(
    "text",
    ["", "Ada Lovelace", "sealed:1:", "sealed:1:zz:AAAA", "sealed:2:" + "0" * 32 + ":" + "A" * 40],
)
async def test_what_is_no_sealed_text_is_damaged(vault: Vault, text: str) -> None:
    with pytest.raises(Corrupt) as caught:
        await vault.open("acme", text)

    assert "sealed-text-damaged" == caught.value.code
    assert not text or text not in str(caught.value)


async def test_a_text_whose_key_is_in_no_store_says_so(vault: Vault, clock: ManualClock) -> None:
    sealed = await vault.seal("acme", "ada", "text")

    with pytest.raises(Corrupt, match="older") as caught:
        await a_vault(MemoryKeys(), clock).open("acme", sealed)

    assert "data-key-missing" == caught.value.code


async def test_what_cannot_be_sealed_is_refused_and_makes_no_key(
    vault: Vault, keys: CountedKeys
) -> None:
    with pytest.raises(TextTooLong):
        await vault.seal("acme", "ada", "x" * (TEXT_BYTES_MAX + 1))
    with pytest.raises(Rejected, match="surrogate"):
        await vault.seal("acme", "ada", "\ud800")
    for tenant, subject in (
        ("", "ada"),
        ("acme", ""),
        ("acme", "a\0"),
        ("acme", "a" * 513),
        ("acme", "\ud800"),
    ):
        with pytest.raises(NoSubject):
            await vault.seal(tenant, subject, "text")
    with pytest.raises(NoSubject):
        await vault.destroy("acme", "")

    assert 0 == (await keys.status()).alive


async def test_destroying_says_how_many_keys_and_again_none(vault: Vault) -> None:
    for who in ("ada", "bob", "eve"):
        await vault.seal("acme", who, "text")

    assert Destroyed("acme", "ada", 1) == await vault.destroy("acme", "ada")
    assert Destroyed("acme", None, 2) == await vault.destroy("acme")
    assert Destroyed("acme", None, 0) == await vault.destroy("acme")


async def test_a_key_stays_at_hand_for_a_while_and_no_more_than_allowed(
    keys: CountedKeys, clock: ManualClock
) -> None:
    vault = a_vault(keys, clock, cache_keys_max=2)
    boxes = [await vault.seal("acme", who, who) for who in ("ada", "bob", "eve")]
    keys.asked = 0

    assert ["eve", "bob"] == [await vault.open("acme", boxes[n]) for n in (2, 1)]
    assert 0 == keys.asked
    assert "ada" == await vault.open("acme", boxes[0])
    assert "eve" == await vault.open("acme", boxes[2])
    assert 2 == keys.asked  # ada was pushed out, and has pushed out eve, who was used before bob

    clock.advance(CACHE_TTL_S)
    assert "eve" == await vault.open("acme", boxes[2])
    assert 3 == keys.asked


async def test_another_process_stops_opening_when_its_cache_has_aged(
    keys: CountedKeys, clock: ManualClock
) -> None:
    here, there = a_vault(keys, clock), a_vault(keys, clock)
    sealed = await there.seal("acme", "ada", "text")
    await here.destroy("acme", "ada")

    clock.advance(CACHE_TTL_S)

    assert await there.open("acme", sealed) is None
    with pytest.raises(Erased):
        await there.seal("acme", "ada", "more")


async def test_a_key_that_was_on_its_way_when_it_was_destroyed_is_not_kept(
    clock: ManualClock,
) -> None:
    class SlowKeys(MemoryKeys):
        slow = False
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def by_id(self, tenant: str, key_id: str) -> DataKey | None:
            found = await super().by_id(tenant, key_id)
            if self.slow:
                self.reached.set()
                await self.go_on.wait()
            return found

    keys = SlowKeys()
    sealed = await a_vault(keys, clock).seal("acme", "ada", "text")
    vault, keys.slow = a_vault(keys, clock), True
    opening = asyncio.create_task(vault.open("acme", sealed))
    await keys.reached.wait()
    await vault.destroy("acme", "ada")
    keys.slow = False
    keys.go_on.set()

    await opening
    assert await vault.open("acme", sealed) is None


async def test_two_replicas_seal_under_one_key(keys: CountedKeys, clock: ManualClock) -> None:
    here, there = a_vault(keys, clock), a_vault(keys, clock)

    ours, theirs = await asyncio.gather(
        here.seal("acme", "ada", "ours"), there.seal("acme", "ada", "theirs")
    )

    assert ("theirs", "ours") == (await here.open("acme", theirs), await there.open("acme", ours))
    assert 1 == (await keys.status()).alive


async def test_rotation_rewraps_every_key_and_the_old_master_key_can_go(
    keys: CountedKeys, clock: ManualClock
) -> None:
    old = a_vault(keys, clock)
    boxes = [await old.seal("acme", f"s{n}", f"text {n}") for n in range(1200)]
    both = a_vault(keys, clock, f"{NEXT_MASTER},{MASTER}")

    assert 1200 == (await both.rotate()).rewrapped
    assert 0 == (await both.rotate()).rewrapped

    new = a_vault(keys, clock, NEXT_MASTER)
    await new.check()
    assert ["text 0", "text 1199"] == [await new.open("acme", boxes[n]) for n in (0, 1199)]
    with pytest.raises(Corrupt) as caught:
        await a_vault(keys, clock).check()
    assert "master-key-unknown" == caught.value.code
    assert "flotilla keys rotate" in str(caught.value)


async def test_a_data_key_in_anothers_place_is_noticed(
    keys: CountedKeys, clock: ManualClock
) -> None:
    vault = a_vault(keys, clock)
    sealed = await vault.seal("acme", "ada", "text")
    await vault.seal("acme", "bob", "text")
    ada, bob = await keys.of_subject("acme", "ada"), await keys.of_subject("acme", "bob")
    assert ada
    assert bob
    await keys.rewrap(ada, replace(ada, wrapped=bob.wrapped))

    with pytest.raises(Corrupt) as caught:
        await a_vault(keys, clock).open("acme", sealed)

    assert "data-key-damaged" == caught.value.code


@pytest.mark.parametrize(
    "text", ["", "short", "A" * 44, "ä" * 43, f"{MASTER},", ",".join([MASTER] * 5)]
)
def test_what_is_no_master_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(MasterKeyInvalid) as caught:
        MasterKeys.parse(text)

    assert "master-key-invalid" == caught.value.code
    assert MASTER not in str(caught.value)
    assert len(text) < 5 or text not in str(caught.value)


async def test_erasures_are_read_from_their_stream_in_pages_and_nothing_else_is_one(
    vault: Vault,
) -> None:
    store, stream = MemoryStore(), stream_id("platform", "erasures", "all")
    events = tuple(
        NewEvent(str(n), "erased.v1" if n % 2 else "noted.v1", json.dumps(f"s{n}"), {})
        for n in range(PAGE_EVENTS_MAX + 2)
    )
    await store.commit([Unit((Append(stream, EMPTY, events),))])

    def read(event: RecordedEvent) -> Erasure | None:
        return Erasure("acme", json.loads(event.payload)) if event.type == "erased.v1" else None

    found = [erasure async for erasure in erasures_in(store, stream, read)]

    assert [Erasure("acme", f"s{n}") for n in range(1, PAGE_EVENTS_MAX + 2, 2)] == found
    await vault.seal("acme", f"s{PAGE_EVENTS_MAX + 1}", "text")
    assert 1 == await vault.reconcile(erasures_in(store, stream, read))


class TestRestoredKeys:
    """Keys restored from before an erasure are alive; the log's erasures end that."""

    @pytest.fixture
    def binding(self, tmp_path: Path) -> KeysBinding:
        return KeysBinding(f"libsql://{tmp_path}/keys.db", MasterKeys.parse(MASTER))

    async def test_an_older_backup_is_read_no_more_once_the_log_was_read(
        self, binding: KeysBinding, clock: ManualClock, tmp_path: Path
    ) -> None:
        log: list[Erasure] = []
        file, backup = tmp_path / "keys.db", tmp_path / "backup"
        async with open_vault(binding, clock=clock, erasures=these()) as vault:
            boxes = {who: await vault.seal("acme", who, who) for who in ("ada", "bob")}
            others = await vault.seal("globex", "eve", "eve")
        backup.write_bytes(file.read_bytes())
        async with open_vault(binding, clock=clock, erasures=these(*log)) as vault:
            log.append(Erasure("acme", "ada", await vault.key_id("acme", "ada")))
            await vault.destroy("acme", "ada")
            late = await vault.seal("acme", "zoe", "made after the backup")
            log.append(Erasure("acme", "zoe", await vault.key_id("acme", "zoe")))
            await vault.destroy("acme", "zoe")
            log.append(Erasure("globex"))
            await vault.destroy("globex")
        file.write_bytes(backup.read_bytes())

        async with open_keys(binding.url) as restored:
            assert 3 == (await restored.status()).alive
        with structlog.testing.capture_logs() as logs:
            async with open_vault(binding, clock=clock, erasures=these(*log)) as vault:
                assert [None, "bob"] == [await vault.open("acme", boxes[w]) for w in ("ada", "bob")]
                assert await vault.open("globex", others) is None
                assert await vault.open("acme", late) is None
                for tenant, subject in (("acme", "ada"), ("acme", "zoe"), ("globex", "new")):
                    with pytest.raises(Erased):
                        await vault.seal(tenant, subject, "again")
        assert [2] == [
            line["keys"] for line in logs if line["event"] == "privacy.keys_destroyed_again"
        ]

    async def test_keys_of_another_master_key_are_not_served(
        self, binding: KeysBinding, clock: ManualClock
    ) -> None:
        async with open_vault(binding, clock=clock, erasures=these()) as vault:
            await vault.seal("acme", "ada", "text")

        with pytest.raises(Corrupt, match="FLOTILLA_MASTER_KEY"):
            async with open_vault(
                replace(binding, master=MasterKeys.parse(NEXT_MASTER)),
                clock=clock,
                erasures=these(),
            ):
                pytest.fail("it was served")

    async def test_neither_keys_nor_plain_text_get_into_files_logs_errors_or_reprs(
        self, binding: KeysBinding, clock: ManualClock, tmp_path: Path
    ) -> None:
        canary = "canary Ada Lovelace, 12 St James's Square"
        made: list[bytes] = []

        def entropy(size: int) -> bytes:
            made.append(bytes([len(made) + 1]) * size)
            return made[-1]

        seen = io.StringIO()
        handler = logging.StreamHandler(seen)
        logging.getLogger().addHandler(handler)
        with structlog.testing.capture_logs() as logs:
            async with (
                open_keys(binding.url) as keys,
                open_store(f"libsql://{tmp_path}/thing.db", service="thing") as store,
            ):
                vault = Vault(keys, binding.master, clock, entropy=entropy)
                sealed = await vault.seal("acme", "ada", canary)
                event = NewEvent("1", "thing.named.v1", json.dumps({"name": sealed}), {})
                await store.commit(
                    [Unit((Append(stream_id("acme", "thing", "x"), EMPTY, (event,)),))]
                )
                assert canary == await vault.open("acme", sealed)
                secrets = [*(key for key in made if len(key) == 32), bytes(range(32))]
                told = [repr(vault), repr(binding), repr(await keys.of_subject("acme", "ada"))]
                told += [repr(binding.master), repr(vault.__dict__)]
                for tenant, box in (("globex", sealed), ("acme", sealed[:-9] + "A" * 9)):
                    try:
                        await vault.open(tenant, box)
                    except KernelError as error:
                        told += traceback.format_exception(error)
                told += [repr(await vault.rotate()), repr(await vault.destroy("acme"))]
        logging.getLogger().removeHandler(handler)
        told += [seen.getvalue(), json.dumps(logs, default=repr)]
        files = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
        assert len(secrets) == 2
        _absent(["canary", "Lovelace", *_written(secrets)], told)
        _absent(["canary", "Lovelace", *_written(secrets)], [files.decode("latin-1")])


def _written(secrets: Iterable[bytes]) -> list[str]:
    """Return how secrets might be written, were they."""
    return [
        form
        for secret in secrets
        for form in (
            secret.decode("latin-1"),
            secret.hex(),
            new_master_key(secret),
            new_master_key(secret).replace("-", "+").replace("_", "/"),
            repr(secret)[2:-1],
        )
    ]


def _absent(secrets: Iterable[str], texts: Iterable[str]) -> None:
    for text in texts:
        for secret in secrets:
            assert secret not in text, f"{secret!r} is told: {text[:200]!r}"
