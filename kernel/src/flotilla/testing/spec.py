"""Given some history, when a command arrives, then these events — and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from flotilla.decider import Decider
from flotilla.errors import Rejected


@dataclass(frozen=True, slots=True)
class Spec[C, S, E]:
    """`Spec(DECIDER).given(...).when(...).then(...)`: no store, no mock, no event loop."""

    decider: Decider[C, S, E]
    history: Sequence[E] = ()
    command: C | None = None

    def given(self, *history: E) -> Self:
        """Start from this history."""
        return replace(self, history=history)

    def when(self, command: C) -> Self:
        """Let this command arrive."""
        return replace(self, command=command)

    def then(self, *expected: E) -> None:
        """Expect exactly these events; none means that the command was already satisfied."""
        assert tuple(expected) == tuple(self._decide())

    def then_rejected(self, reason: type[Rejected]) -> None:
        """Expect the domain to refuse, for this reason."""
        try:
            events = self._decide()
        except reason:
            return
        raise AssertionError(f"expected {reason.__name__}, got {events!r}")

    def then_state(self, check: Callable[[S], bool]) -> None:
        """Expect the state after the history and the command to satisfy `check`."""
        state = self.decider.fold(self.history)
        if self.command is not None:
            state = self.decider.fold(self._decide(), state)
        assert check(state), state

    def _decide(self) -> Sequence[E]:
        assert self.command is not None, "when() comes before then()"
        return self.decider.decide(self.command, self.decider.fold(self.history))
