"""Data keys: one a (tenant, subject), kept apart from what they protect, and destroyed for good.

       create                    destroy
    ──────────▶ alive (wrapped) ──────────▶ tombstone (no key material)
    ───────────────── destroy ────────────▶ tombstone: none was ever made, and none ever will be

Nothing leads back. A tombstone of a whole tenant stands for every subject it has or might have had.
Keys are only ever stored wrapped by a master key, which no store has seen (`flotilla.privacy`).

What an implementation promises is written down, executably, in `flotilla.testing.KeyStoreContract`.
Adapters live in `flotilla.stores`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from flotilla.errors import Conflict, Rejected

NAME_BYTES_MAX = 512
"""Of a tenant, and of a subject: both are indexed."""
COPY_KEYS_MAX = 500


class Erased(Rejected):
    """The subject or its tenant was erased: nothing is sealed for it any more."""

    default_code = "subject-erased"


class NoSubject(Rejected):
    """This is not what a tenant or a subject can be called."""

    default_code = "subject-invalid"


@dataclass(frozen=True, slots=True)
class DataKey:
    """One subject's key as it is stored. `subject` is a pseudonym: it outlives the key.

    `wrapped` is the key, encrypted by the master key `master_id`; None: it was destroyed.
    """

    key_id: str
    tenant: str
    subject: str
    master_id: str | None
    wrapped: bytes | None = field(repr=False)

    @property
    def destroyed(self) -> bool:
        """Whether only the tombstone is left."""
        return self.wrapped is None

    def tombstone(self) -> "DataKey":
        """Return what stays when the key is destroyed."""
        return replace(self, master_id=None, wrapped=None)


@dataclass(frozen=True, slots=True)
class Erasure:
    """A fact of the log: this subject, or with None the whole tenant, is to be unreadable for ever.

    `key_id` (see `Vault.key_id`) lets a key store that was restored from before that key was made
    know what was sealed with it.
    """

    tenant: str
    subject: str | None = None
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Destroyed:
    """What a destruction did. `keys` were alive before; 0 when there was nothing left to do.

    `remains` says in words where wrapped copies may still be, and for how long; empty: nowhere that
    this store knows of.
    """

    tenant: str
    subject: str | None
    keys: int
    remains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """How many keys there are. `wrapped_by` counts the living ones by their master key's id."""

    destroyed: int
    wrapped_by: Mapping[str, int]

    @property
    def alive(self) -> int:
        """Return how many keys can still open something."""
        return sum(self.wrapped_by.values())


def check_names(tenant: str, subject: str | None) -> None:
    """Raise `NoSubject` when a store could not keep these as they are, all the same."""
    for what, name in (("tenant", tenant), ("subject", subject)):
        if name is None:
            continue
        try:
            size_bytes = len(name.encode())
        except UnicodeEncodeError:
            size_bytes = 0
        if not 0 < size_bytes <= NAME_BYTES_MAX or "\0" in name:
            raise NoSubject(
                f"a {what} of personal data is text of 1 to {NAME_BYTES_MAX} bytes without NUL"
            )


class KeyStore(Protocol):
    """Data keys. Every method raises `Unavailable` when the store does not answer in time."""

    async def create(self, key: DataKey) -> DataKey:
        """Keep `key` if its subject has none; return the one that is durable now, whoever made it.

        Of two at once one is kept, and both are told which. What was destroyed comes back destroyed.
        """
        ...

    async def of_subject(self, tenant: str, subject: str) -> DataKey | None:
        """Return the subject's key or tombstone; None when it has neither."""
        ...

    async def by_id(self, tenant: str, key_id: str) -> DataKey | None:
        """Return the key with this id, whosever it is.

        When nobody has it and all of `tenant` was destroyed, it is the tombstone of that tenant.
        """
        ...

    async def destroy(self, erasure: Erasure) -> Destroyed:
        """Delete key material, leave tombstones; again: nothing happens.

        When it returns, no `create` that was under way brings a key back.
        """
        ...

    async def scrub(self) -> tuple[str, ...]:
        """Remove what deleted rows left behind in files; return what remains, in words.

        Others that are in the way are part of what remains: what was destroyed stays destroyed.
        """
        ...

    async def wrapped_by_others(
        self, master_id: str, *, after: str, limit: int
    ) -> Sequence[DataKey]:
        """Return up to `limit` living keys that another master key wraps, by id, those after `after`."""
        ...

    async def rewrap(self, old: DataKey, new: DataKey) -> bool:
        """Put `new` in the place of `old` if that is still stored as it was; return whether it was."""
        ...

    async def status(self) -> KeyStatus:
        """Count the keys."""
        ...


async def copy_keys(source: KeyStore, target: KeyStore) -> int:
    """Copy every living key to another store; return how many there are. Again: nothing happens.

    Raises `Conflict` (`keys-differ`) when the target has another key, or none any more, for a subject.
    """
    copied, after = 0, ""
    while page := await source.wrapped_by_others("", after=after, limit=COPY_KEYS_MAX):
        for key in page:
            if await target.create(key) != key:
                raise Conflict(
                    "the target has other keys of personal data: move to a new place, or restore"
                    " the target's own; see docs/runbooks/privacy.md",
                    code="keys-differ",
                )
        copied, after = copied + len(page), page[-1].key_id
    return copied
