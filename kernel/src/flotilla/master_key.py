"""The master key: what wraps data keys, and is itself in no store, backup or log.

Written as 32 bytes of base64url; several with commas between them while it is changed: the first
wraps, all of them unwrap. A key's id is a hash of it, so that nobody has to number keys.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flotilla.errors import Corrupt, Rejected

KEY_BYTES = 32
NONCE_BYTES = 12
MASTER_KEYS_MAX = 4
_FORM = re.compile(r"[A-Za-z0-9_-]{43}=?")
CURE = "make one with `openssl rand -base64 32 | tr +/ -_`; keep it where no backup of the keys is"


class MasterKeyInvalid(Rejected):
    """The master key is not one. What was given instead is not repeated."""

    default_code = "master-key-invalid"


@dataclass(frozen=True, slots=True)
class MasterKeys:
    """The master key that wraps, and older ones that still unwrap. Shows only their ids."""

    current: str
    """The id of the one that wraps."""
    _ciphers: Mapping[str, AESGCM] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the keys that `text` holds. Raises `MasterKeyInvalid`, with the cure."""
        parts = [part.strip() for part in text.strip().split(",")]
        if len(parts) > MASTER_KEYS_MAX:
            raise MasterKeyInvalid(f"{len(parts)} master keys; {MASTER_KEYS_MAX} at most")
        ciphers = {}
        for place, part in enumerate(parts, start=1):
            key = _decoded(part)
            if key is None:
                raise MasterKeyInvalid(f"master key {place} is not 32 bytes of base64url: {CURE}")
            ciphers[_id_of(key)] = AESGCM(key)
        return cls(next(iter(ciphers)), ciphers)

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of all, the one that wraps first."""
        return tuple(self._ciphers)

    def wrap(self, key: bytes, context: bytes, nonce: bytes) -> bytes:
        """Return `key` encrypted by the current master key; it opens with the same `context` only."""
        return nonce + self._ciphers[self.current].encrypt(nonce, key, context)

    def unwrap(self, wrapped: bytes, context: bytes, master_id: str | None) -> bytes:
        """Return the key.

        Raises `Corrupt`: the master key is not at hand (`master-key-unknown`), or what was stored is
        not what it wrapped (`data-key-damaged`).
        """
        cipher = self._ciphers.get(master_id or "")
        if cipher is None:
            raise unknown_master(master_id or "none", self)
        try:
            return cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], context)
        except (InvalidTag, ValueError):
            raise Corrupt(
                "a data key is damaged, or was put in another's place: restore the key store from a"
                " backup; see docs/runbooks/privacy.md",
                code="data-key-damaged",
            ) from None


def unknown_master(master_id: str, keys: MasterKeys) -> Corrupt:
    """Return the error for keys that need a master key which nobody gave us."""
    return Corrupt(
        f"data keys are wrapped by the master key {master_id}, and FLOTILLA_MASTER_KEY has only"
        f" {', '.join(keys.ids)}: add the older one behind a comma, then `flotilla keys rotate`",
        code="master-key-unknown",
    )


def new_master_key(entropy: bytes) -> str:
    """Return 32 random bytes as they are written in settings."""
    if len(entropy) != KEY_BYTES:
        raise ValueError(f"a master key has {KEY_BYTES} bytes")
    return base64.urlsafe_b64encode(entropy).decode().rstrip("=")


def _decoded(text: str) -> bytes | None:
    if not _FORM.fullmatch(text):
        return None
    try:
        key = base64.urlsafe_b64decode(text.rstrip("=") + "=")
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"flotilla master key\0" + key).hexdigest()[:16]
