"""Data keys in this process: for tests and simulations."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from flotilla.keys import DataKey, Destroyed, Erasure, KeyStatus


class MemoryKeys:
    """Keeps every promise of the contract except surviving the process."""

    _by_url: ClassVar[dict[str, "MemoryKeys"]] = {}

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], DataKey] = {}
        self._tenants: set[str] = set()

    @classmethod
    def named(cls, url: str) -> "MemoryKeys":
        """Return the keys of this process that are known by `url`."""
        return cls._by_url.setdefault(url, cls())

    async def create(self, key: DataKey) -> DataKey:
        """Keep `key`, unless there is one or may be none."""
        if key.tenant in self._tenants:
            key = replace(key, key_id="").tombstone()
        return self._keys.setdefault((key.tenant, key.subject), key)

    async def of_subject(self, tenant: str, subject: str) -> DataKey | None:
        """Return the subject's key or tombstone."""
        return self._keys.get((tenant, subject))

    async def by_id(self, tenant: str, key_id: str) -> DataKey | None:
        """Return the key with this id, or the tombstone of `tenant`."""
        for key in self._keys.values():
            if key.key_id == key_id:
                return key
        return DataKey("", tenant, "", None, None) if tenant in self._tenants else None

    async def destroy(self, erasure: Erasure) -> Destroyed:
        """Leave tombstones only."""
        tenant, subject = erasure.tenant, erasure.subject
        if subject is None:
            self._tenants.add(tenant)
        else:
            name = (tenant, subject)
            none = DataKey(erasure.key_id or "", tenant, subject, None, None)
            found = self._keys.setdefault(name, none)
            self._keys[name] = replace(found, key_id=found.key_id or none.key_id)
        names = [n for n in self._keys if n[0] == tenant and subject in (None, n[1])]
        alive = sum(not self._keys[name].destroyed for name in names)
        self._keys |= {name: self._keys[name].tombstone() for name in names}
        return Destroyed(tenant, subject, alive)

    async def scrub(self) -> tuple[str, ...]:
        """Nothing of memory is in a file."""
        return ()

    async def wrapped_by_others(
        self, master_id: str, *, after: str, limit: int
    ) -> Sequence[DataKey]:
        """Return living keys that another master key wraps, by id."""
        found = [
            key
            for key in self._keys.values()
            if not key.destroyed and key.master_id != master_id and key.key_id > after
        ]
        return sorted(found, key=lambda key: key.key_id)[:limit]

    async def rewrap(self, old: DataKey, new: DataKey) -> bool:
        """Put `new` in the place of `old`, if it is still there."""
        name = (old.tenant, old.subject)
        if self._keys.get(name) != old:
            return False
        self._keys[name] = new
        return True

    async def status(self) -> KeyStatus:
        """Count the keys."""
        alive = [key for key in self._keys.values() if not key.destroyed]
        return KeyStatus(len(self._keys) - len(alive), Counter(str(key.master_id) for key in alive))
