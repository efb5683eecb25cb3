"""The shape of every aggregate: a starting point and two pure functions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce


@dataclass(frozen=True, slots=True)
class Decider[C, S, E]:
    """What an aggregate may do (`decide`) and what it remembers (`evolve`).

    `decide` returns the events that follow from a command; none means "already true". It refuses by
    raising a subclass of `Rejected`. `evolve` never refuses: what is stored has happened.
    """

    initial: S
    decide: Callable[[C, S], Sequence[E]]
    evolve: Callable[[S, E], S]

    def fold(self, events: Iterable[E], state: S | None = None) -> S:
        """Return the state that `events` lead to, from `state` or the start."""
        return reduce(self.evolve, events, self.initial if state is None else state)
