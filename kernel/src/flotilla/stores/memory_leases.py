"""Leases in this process: for tests and simulations."""

from collections.abc import Sequence
from typing import ClassVar

from flotilla.clock import Clock, SystemClock
from flotilla.lease import Lease, LeaseStatus


class MemoryLeases:
    """Keeps every promise of the contract except surviving the process."""

    _by_url: ClassVar[dict[str, "MemoryLeases"]] = {}

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._held: dict[str, tuple[str | None, int, float]] = {}

    @classmethod
    def named(cls, url: str, *, service: str) -> "MemoryLeases":
        """Return the leases of this process that are known by `url` and `service`."""
        return cls._by_url.setdefault(f"{url}#{service}", cls())

    async def acquire(self, name: str, holder: str, *, ttl_s: float) -> Lease | None:
        """Take or renew `name`; None while somebody else has it."""
        now_s = self._clock.monotonic_s()
        owner, token, end_s = self._held.get(name, (None, 0, now_s))
        alive = owner is not None and end_s > now_s
        if alive and owner != holder:
            return None
        token = token if alive else token + 1
        self._held[name] = (holder, token, now_s + ttl_s)
        return Lease(name, holder, token, ttl_s)

    async def release(self, lease: Lease) -> None:
        """Let go, if it is the newest."""
        if self._held.get(lease.name, ())[:2] == (lease.holder, lease.token):
            self._held[lease.name] = (None, lease.token, self._clock.monotonic_s())

    def is_newest(self, lease: Lease) -> bool:
        """Return whether nobody else has had it since."""
        return self._held.get(lease.name, (None, 0, 0.0))[1] == lease.token

    async def leases(self) -> Sequence[LeaseStatus]:
        """Return every lease, by name."""
        now_s = self._clock.monotonic_s()
        return [
            LeaseStatus(name, owner if end_s > now_s else None, token, end_s - now_s)
            for name, (owner, token, end_s) in sorted(self._held.items())
        ]
