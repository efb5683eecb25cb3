"""One process among the replicas of its service: what it leads, and how it tries for more.

For each lease one of them does the work, and the others stand by. Everybody tries for every lease, and
waits `HESITATION_S` longer for each that it has already, so that whoever has less to do is first. Nobody
gives up what it leads just to share: a replica that comes later gets work when others stop or fail.

Whatever must not be done twice is fenced by something else than the lease (`flotilla.lease` says why).
"""

import os
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flotilla.background import Background, Work
from flotilla.clock import Clock, IdSource
from flotilla.lease import Leadership, Lease, LeaseStatus, LeaseStore

HESITATION_S, HESITATION_MAX_S = 0.2, 0.6
"""For each lease that is held already, and at most: a take-over stays within five seconds."""
LEADERLESS_MAX_S = 5.0
"""How long nobody may lead before that is a trouble: longer than a take-over takes."""


def this_process(ids: IdSource) -> str:
    """Return the name that leases have of this process: `<host>:<pid>:<id>`."""
    return f"{socket.gethostname()}:{os.getpid()}:{ids()}"


@dataclass(frozen=True, slots=True)
class Replica:
    """This process. `able` says whether it could do the work now: asked before every try."""

    holder: str
    clock: Clock
    chance: random.Random
    able: Callable[[], bool] = lambda: True
    leads: set[str] = field(default_factory=set)
    """The leases whose work is being done here."""

    def candidate(self, leases: LeaseStore, name: str) -> Leadership:
        """Return a candidate for the lease `name`."""
        return Leadership(
            leases,
            name,
            self.holder,
            self.clock,
            self.chance,
            able=self.able,
            hesitation_s=lambda: min(HESITATION_MAX_S, HESITATION_S * len(self.leads)),
        )

    def leading(self, leadership: Leadership, work: Work) -> Work:
        """Return background work that stands by, and does `work` while it leads."""

        async def stand_by_or_lead(shown: Background) -> None:
            async def lead(lease: Lease) -> None:
                self.leads.add(lease.name)
                try:
                    await work(shown)
                finally:
                    self.leads.discard(lease.name)

            leadership.standing_by = shown.recovered
            await leadership.lead(lead)

        return stand_by_or_lead


@dataclass(frozen=True, slots=True)
class Led:
    """Who leads, read from the table and by its store's clock."""

    holder: str | None = None
    since_s: float | None = None
    """For how long nobody has; None while somebody does, or when nobody ever did."""

    @property
    def is_missed(self) -> bool:
        """Whether nobody leads any more, for longer than a take-over takes."""
        return self.since_s is not None and self.since_s > LEADERLESS_MAX_S


def led(leases: Sequence[LeaseStatus], name: str) -> Led:
    """Return who leads `name` among these leases."""
    for lease in leases:
        if lease.name == name:
            return Led(lease.holder, None if lease.holder else max(0.0, -lease.expires_in_s))
    return Led()
