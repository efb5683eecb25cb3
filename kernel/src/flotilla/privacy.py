"""Personal text that can be made unreadable, wherever it was copied to: its key is destroyed.

    seal(tenant, subject, text) ─▶ sealed:1:<key id>:<base64url> ─▶ events, stream, views, backups
    open(tenant, sealed)        ─▶ the text, or None once its key was destroyed
    destroy(tenant[, subject])  ─▶ a tombstone; what was sealed is noise from now on

AES-256-GCM with a random nonce, one data key a (tenant, subject); the tenant, the subject and the key's
id are authenticated, so that a text moved to another tenant or subject does not open there.

What the process may die in: before `create` nothing happened; after it the key is there for whoever
comes next. `destroy` is one transaction and is repeated by whoever reads the erasure in the log
(`reconcile`): record the erasure first, then destroy. Other processes keep a key in memory for at most
`cache_ttl_s`; what they seal with it after its destruction nobody can ever open.
"""

import base64
import binascii
import json
import os
import re
from collections import OrderedDict
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field, replace

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flotilla.clock import Clock
from flotilla.errors import Corrupt, Rejected
from flotilla.keys import DataKey, Destroyed, Erased, Erasure, KeyStatus, KeyStore, check_names
from flotilla.master_key import KEY_BYTES, NONCE_BYTES, MasterKeys, unknown_master

CACHE_KEYS_MAX = 4096
CACHE_TTL_S = 30.0
"""How long another process may go on opening what was destroyed here."""
TEXT_BYTES_MAX = 64 * 1024
ROTATION_BATCH_KEYS_MAX = 500
_KEY_ID_BYTES = 16
_SEALED = re.compile(r"sealed:1:([0-9a-f]{32}):([A-Za-z0-9_-]{38,})")

log = structlog.get_logger()


class SealedElsewhere(Rejected):
    """The text was sealed for another tenant than the one that asks."""

    default_code = "sealed-for-another-tenant"


class TextTooLong(Rejected):
    """More than is sealed in one piece."""

    default_code = "personal-text-too-long"


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a change of the master key did."""

    master_id: str
    rewrapped: int
    remains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Cached:
    """A key ready for use; `cipher` is None when it was destroyed."""

    key: DataKey
    cipher: AESGCM | None = field(repr=False)
    context: bytes
    until_s: float


class Vault:
    """Seals and opens personal text. One a process; its cache of keys is bounded in number and age."""

    def __init__(
        self,
        keys: KeyStore,
        master: MasterKeys,
        clock: Clock,
        *,
        entropy: Callable[[int], bytes] = os.urandom,
        cache_keys_max: int = CACHE_KEYS_MAX,
        cache_ttl_s: float = CACHE_TTL_S,
    ) -> None:
        self._keys = keys
        self._master = master
        self._clock = clock
        self._entropy = entropy
        self._cache_ttl_s = cache_ttl_s
        self._cache_keys_max = cache_keys_max
        self._by_subject: OrderedDict[tuple[str, str], _Cached] = OrderedDict()
        self._by_id: dict[str, _Cached] = {}
        self._destructions = 0

    async def seal(self, tenant: str, subject: str, text: str) -> str:
        """Return `text` as only this vault can read it, and nobody once `subject` is destroyed.

        `subject` is a pseudonym (a user's id), never a name or an address: it stays.

        Raises:
            Erased: the subject, or its tenant, was destroyed.
            TextTooLong: more than `TEXT_BYTES_MAX`.
            NoSubject: a tenant or subject that cannot be stored.

        """
        check_names(tenant, subject)
        try:
            plain = text.encode()
        except UnicodeEncodeError:
            raise Rejected("text with half a surrogate pair cannot be sealed") from None
        if len(plain) > TEXT_BYTES_MAX:
            raise TextTooLong(f"personal text of {len(plain)} bytes; {TEXT_BYTES_MAX} are allowed")
        found = self._fresh(self._by_subject.get((tenant, subject)))
        if found is None:
            asked = self._destructions
            stored = await self._keys.of_subject(tenant, subject)
            stored = stored or await self._keys.create(self._new(tenant, subject))
            found = self._remember(stored, asked)
        if found.cipher is None:
            raise Erased("this person or tenant was erased: nothing is kept about them any more")
        nonce = self._entropy(NONCE_BYTES)
        sealed = nonce + found.cipher.encrypt(nonce, plain, found.context)
        body = base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
        return f"sealed:1:{found.key.key_id}:{body}"

    async def open(self, tenant: str, sealed: str) -> str | None:
        """Return the text; None when its key was destroyed.

        Raises:
            SealedElsewhere: it is another tenant's.
            Corrupt: it was changed or is none (`sealed-text-damaged`); its key is in no store
                (`data-key-missing`: the keys are older than the text).

        """
        match = _SEALED.fullmatch(sealed)
        if match is None:
            raise _damaged()
        key_id = match[1]
        found = self._fresh(self._by_id.get(key_id))
        if found is None:
            asked = self._destructions
            key = await self._keys.by_id(tenant, key_id)
            if key is None:
                raise Corrupt(
                    f"there is no key {key_id}: the key store is older than what it protects;"
                    " restore a newer one, see docs/runbooks/privacy.md",
                    code="data-key-missing",
                )
            if key.key_id != key_id:  # the tombstone of a whole tenant
                return None
            found = self._remember(key, asked)
        if found.key.tenant != tenant:
            raise SealedElsewhere("this was sealed for another tenant")
        if found.cipher is None:
            return None
        try:
            box = base64.b64decode(match[2] + "=" * (-len(match[2]) % 4), b"-_", validate=True)
            return found.cipher.decrypt(
                box[:NONCE_BYTES], box[NONCE_BYTES:], found.context
            ).decode()
        except (InvalidTag, ValueError, binascii.Error):
            raise _damaged() from None

    async def key_id(self, tenant: str, subject: str) -> str | None:
        """Return the id of the subject's key, to be recorded with its erasure; None without a key."""
        key = await self._keys.of_subject(tenant, subject)
        return None if key is None else key.key_id or None

    async def destroy(
        self, tenant: str, subject: str | None = None, *, key_id: str | None = None
    ) -> Destroyed:
        """Destroy the keys of one subject, or of the whole tenant: for good, and for the future too.

        Record the erasure before, so that it can be repeated. Again: nothing happens.
        """
        check_names(tenant, subject)
        destroyed = await self._keys.destroy(Erasure(tenant, subject, key_id))
        self._destructions += 1
        for cached in [*self._by_subject.values()]:
            if cached.key.tenant == tenant and subject in (None, cached.key.subject):
                self._forget(cached)
        return replace(destroyed, remains=await self._keys.scrub())

    async def reconcile(self, erasures: AsyncIterable[Erasure]) -> int:
        """Destroy again what the log says was destroyed; return how many keys had come back.

        Done before anything is served: keys restored from an older backup are alive again.
        """
        alive = 0
        async for erasure in erasures:
            alive += (await self._keys.destroy(erasure)).keys
        self._destructions += 1
        self._by_subject.clear()
        self._by_id.clear()
        if alive:
            await self._keys.scrub()
            log.warning("privacy.keys_destroyed_again", keys=alive)
        return alive

    async def rotate(self) -> Rotated:
        """Wrap every living key by the current master key; sealed texts stay as they are.

        Safe beside others that seal, destroy or rotate; when it ended early, the same goes on.
        """
        current, rewrapped, after = self._master.current, 0, ""
        while batch := await self._keys.wrapped_by_others(
            current, after=after, limit=ROTATION_BATCH_KEYS_MAX
        ):
            for key in batch:
                rewrapped += await self._keys.rewrap(key, self._rewrapped(key))
            after = batch[-1].key_id
        return Rotated(current, rewrapped, await self._keys.scrub())

    async def status(self) -> KeyStatus:
        """Count the keys."""
        return await self._keys.status()

    async def check(self) -> None:
        """Raise `Corrupt` (`master-key-unknown`) when there are keys that no master key here opens."""
        for master_id in (await self.status()).wrapped_by:
            if master_id not in self._master.ids:
                raise unknown_master(master_id, self._master)

    def _new(self, tenant: str, subject: str) -> DataKey:
        key = DataKey(self._entropy(_KEY_ID_BYTES).hex(), tenant, subject, None, None)
        return self._wrapped(key, self._entropy(KEY_BYTES))

    def _rewrapped(self, key: DataKey) -> DataKey:
        plain = self._master.unwrap(key.wrapped or b"", _context("key", key), key.master_id)
        return self._wrapped(key, plain)

    def _wrapped(self, key: DataKey, plain: bytes) -> DataKey:
        wrapped = self._master.wrap(plain, _context("key", key), self._entropy(NONCE_BYTES))
        return replace(key, master_id=self._master.current, wrapped=wrapped)

    def _fresh(self, cached: _Cached | None) -> _Cached | None:
        if cached is None:
            return None
        if cached.cipher is not None and cached.until_s <= self._clock.monotonic_s():
            self._forget(cached)
            return None
        name = (cached.key.tenant, cached.key.subject)
        if name in self._by_subject:
            self._by_subject.move_to_end(name)
        return cached

    def _remember(self, key: DataKey, asked: int) -> _Cached:
        """Keep a key at hand, unless something was destroyed since it was asked for."""
        cipher = None
        if key.wrapped is not None:
            cipher = AESGCM(self._master.unwrap(key.wrapped, _context("key", key), key.master_id))
        until_s = self._clock.monotonic_s() + self._cache_ttl_s
        cached = _Cached(key, cipher, _context("text", key), until_s)
        if asked != self._destructions:
            return cached
        self._by_subject[key.tenant, key.subject] = self._by_id[key.key_id] = cached
        while len(self._by_subject) > self._cache_keys_max:
            self._forget(next(iter(self._by_subject.values())))
        return cached

    def _forget(self, cached: _Cached) -> None:
        self._by_subject.pop((cached.key.tenant, cached.key.subject), None)
        self._by_id.pop(cached.key.key_id, None)


def _context(purpose: str, key: DataKey) -> bytes:
    """Return what is authenticated with a text or a wrapped key; JSON, so that no two are alike."""
    return json.dumps(["flotilla", purpose, 1, key.tenant, key.subject, key.key_id]).encode()


def _damaged() -> Corrupt:
    return Corrupt(
        "a sealed text was changed or is none: see docs/runbooks/privacy.md",
        code="sealed-text-damaged",
    )
