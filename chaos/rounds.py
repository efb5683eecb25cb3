"""A round and its verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from chaos.faults import Fault
from chaos.history import History

SETTLE_MAX_S = 15.0
"""How long everything may take to be well again after the last fault, without a human."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round was like. `violations` is empty when every promise was kept."""

    seed: int
    faults: tuple[str, ...]
    commands: int
    acknowledged: int
    replayed: int
    """Attempts that learned that an earlier one, of which nobody had heard, had done it."""
    refused: int
    unknown: int
    reads: int
    recovery_s: float
    violations: tuple[str, ...]

    @classmethod
    def of(
        cls,
        seed: int,
        faults: Sequence[Fault],
        history: History,
        recovery_s: float,
        violations: Sequence[str],
    ) -> Self:
        """Return the round with this history."""
        return cls(
            seed,
            tuple(map(str, faults)),
            len(history.commands),
            history.count("ok"),
            sum(a.heard.replayed for c in history.commands for a in c.acknowledged),
            history.count("refused"),
            history.count("unknown"),
            len(history.reads),
            recovery_s,
            tuple(violations),
        )
