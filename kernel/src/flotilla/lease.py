"""Leadership for a while: one holder a name, decided by a store's clock, trusted by ours for less.

    standing by ──acquired──▶ leading ──renewed──▶ leading
        ▲  ▲                    │ │
        │  └──the work ended────┘ │        (released at once: the next one need not wait)
        └──trust ended, taken─────┘        (the work is cancelled first)

Two clocks, and why that is safe. The store's clock alone says when a lease may be taken. The holder
never reads that clock: it trusts its lease until the moment it *sent* the last successful request,
plus `ttl_s`, minus `margin_s`, on its own monotonic clock. The store counts from when it handled the
request, which is later; so a holder's trust ends before anybody else can begin.

What each failure leads to:

- the holder dies: nobody renews, and after `ttl_s` somebody else acquires;
- the holder is paused and woken: its trust has ended meanwhile; whoever asks `trusted` is told so,
  and the work is cancelled. What it had already sent is what fencing is for: a lease keeps the peace,
  it is not the lock (a request may always be on its way while the lease changes hands);
- the store does not answer: trust runs out, the work is cancelled; afterwards it tries again;
- it stops in order: the lease is released, and another one begins at its next look;
- whether it was released is not known: the request may still arrive, and would release our next lease
  as well, had it the same holder and token. So that one is asked for under another name.

No I/O here: the store, the clock and chance are given.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from flotilla.clock import Clock
from flotilla.errors import KernelError

TTL_S = 3.0
"""How long a lease lives without being renewed."""
RENEW_EVERY_S = 1.0
MARGIN_S = 0.5
"""How much earlier than the store a holder lets go: what an answer of it may still be worth."""
LOOK_EVERY_S = 0.5
"""How often, at most, whoever stands by tries. With `TTL_S` this bounds a take-over."""
STOP_TIMEOUT_S = 1.0
"""How long cancelled work may take to end."""
RELEASE_TIMEOUT_S = 0.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Lease:
    """What a holder has. `token` grows with every change of holder, so that it can fence."""

    name: str
    holder: str
    token: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """Where a lease stands, by the store's clock. `holder` is None when nobody has it."""

    name: str
    holder: str | None
    token: int
    expires_in_s: float
    """Zero or less: it ended so long ago."""


class LeaseStore(Protocol):
    """Leases beside what they are about. Raises `Unavailable` when the store does not answer.

    Its promises are in `flotilla.testing.LeaseStoreContract`.
    """

    async def acquire(self, name: str, holder: str, *, ttl_s: float) -> Lease | None:
        """Take `name`, or renew it when `holder` has it already; None while somebody else has it.

        The store's clock decides. The token stays while it is renewed in time, and grows otherwise.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Let go at once; nothing happens when `lease` is not the newest any more."""
        ...

    async def leases(self) -> Sequence[LeaseStatus]:
        """Return every lease there ever was, by name."""
        ...


@dataclass(slots=True)
class Leadership:
    """One candidate for one lease.

    `able` says whether it could do the work now; `hesitation_s` how long to let others go first: both
    are asked before every try.
    """

    store: LeaseStore
    name: str
    holder: str
    clock: Clock
    chance: random.Random
    ttl_s: float = TTL_S
    renew_every_s: float = RENEW_EVERY_S
    margin_s: float = MARGIN_S
    able: Callable[[], bool] = lambda: True
    hesitation_s: Callable[[], float] = lambda: 0.0
    standing_by: Callable[[], None] = lambda: None
    """Called whenever it was found that somebody else leads: all is well."""
    won: Lease | None = field(default=None, init=False)
    """The lease that was won last: what is written under it is refused once somebody else has won."""
    _trusted_until_s: float = field(default=float("-inf"), init=False)
    _releases_unknown: int = field(default=0, init=False)

    @property
    def trusted(self) -> bool:
        """Return whether we lead: ask right before anything that only a leader may do."""
        return self.clock.monotonic_s() < self._trusted_until_s

    async def lead(self, work: Callable[[Lease], Awaitable[None]]) -> None:
        """Wait for the lease, then do `work` for as long as it is ours; return when that is over.

        Raises what `work` raises, and `Unavailable` when the store does not answer.
        """
        lease = self.won = await self._win()
        log.info("lease.acquired", lease=lease.name, fencing=lease.token)
        working = asyncio.ensure_future(work(lease))
        watching = [asyncio.create_task(self._renew(lease)), asyncio.create_task(self._expire())]
        try:
            await asyncio.wait([working, *watching], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._trusted_until_s = float("-inf")
            for task in (working, *watching):
                task.cancel()
            _, still = await asyncio.wait([working, *watching], timeout=STOP_TIMEOUT_S)
            log.info("lease.given_up", lease=lease.name, fencing=lease.token)
            if not still:  # else it is not over: the lease ends when its time has come
                await self._release(lease)
        for task in (working, *watching):
            if task.done() and not task.cancelled():
                task.result()

    async def _win(self) -> Lease:
        while True:
            if (pause_s := self.hesitation_s()) > 0:
                await self.clock.sleep(pause_s)
            if self.able():
                if lease := await self._acquire():
                    return lease
                self.standing_by()
            await self.clock.sleep(LOOK_EVERY_S * (0.5 + self.chance.random() / 2))

    async def _acquire(self) -> Lease | None:
        holder = f"{self.holder}+{n}" if (n := self._releases_unknown) else self.holder
        sent_s = self.clock.monotonic_s()
        lease = await self.store.acquire(self.name, holder, ttl_s=self.ttl_s)
        if lease is not None:
            self._trusted_until_s = sent_s + self.ttl_s - self.margin_s
        return lease

    async def _renew(self, lease: Lease) -> None:
        """Return when the lease is not the one that was won any more."""
        while True:
            await self.clock.sleep(self.renew_every_s)
            try:
                renewed = await self._acquire()
            except KernelError as error:  # the trust that is left is for trying again
                log.warning("lease.not_renewed", lease=lease.name, error=str(error))
                continue
            if renewed is None or renewed.token != lease.token:
                return

    async def _expire(self) -> None:
        """Return when trust ends."""
        while (left_s := self._trusted_until_s - self.clock.monotonic_s()) > 0:
            await self.clock.sleep(left_s)

    async def _release(self, lease: Lease) -> None:
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self.store.release(lease)
        except (KernelError, TimeoutError) as error:  # it ends by itself, a little later
            self._releases_unknown += 1
            log.warning("lease.not_released", lease=lease.name, error=repr(error))
