"""Which faults a round has, and when: all of it follows from the round's seed.

schedule_of(seed, kinds) ──▶ 1 to 3 faults, in the order of their moments
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FAULTS_MAX = 3
FIRST_S, LAST_S = 0.2, 2.0
SECONDS_MIN = 0.1
FREEZE_MAX_S = 5.0
"""How long a process is frozen at most, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to break something. `targets`: what it may hit; `weight`: how often it is chosen.

    `seconds_max` is how long it lasts at most; 0: it is over at once.
    """

    targets: tuple[str, ...] = ("",)
    seconds_max: float = 0.0
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when, counted from the start of the load, what, where, for how long."""

    at_s: float
    kind: str
    target: str
    seconds: float
    pick: float
    """From 0 to 1: which one, where there are many that the schedule cannot name."""

    def __str__(self) -> str:
        """Return it as the table shows it."""
        lasting = f" {self.seconds:.1f}s" if self.seconds else ""
        return f"{self.kind}{' ' if self.target else ''}{self.target}{lasting} @{self.at_s:.1f}"

    def chosen[T](self, among: Sequence[T]) -> T:
        """Return the one that is hit."""
        return among[min(int(self.pick * len(among)), len(among) - 1)]


def schedule_of(
    seed: int, kinds: Mapping[str, Kind], *, faults_max: int = FAULTS_MAX, last_s: float = LAST_S
) -> list[Fault]:
    """Return the faults of the round with this seed."""
    chance = random.Random(seed)
    names = [name for name, kind in kinds.items() for _ in range(kind.weight)]
    faults = []
    for _ in range(chance.randint(1, faults_max)):
        name = chance.choice(names)
        kind = kinds[name]
        # Short ones are likelier: most bugs are in the moments around the edges.
        seconds = kind.seconds_max and SECONDS_MIN + (kind.seconds_max - SECONDS_MIN) * (
            chance.random() ** 2
        )
        faults.append(
            Fault(
                round(chance.uniform(FIRST_S, last_s), 3),
                name,
                chance.choice(kind.targets),
                round(seconds, 3),
                chance.random(),
            )
        )
    return sorted(faults, key=lambda fault: fault.at_s)
