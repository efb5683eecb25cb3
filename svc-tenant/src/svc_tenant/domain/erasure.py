"""What was erased: one stream, so that it can be done again when keys come back (ADR 0022).

Nothing is remembered of it to decide by: to erase again does nothing, to record it again is harmless.
"""

from collections.abc import Sequence

from flotilla import Decider
from flotilla_contracts.tenant_events import (
    ErasureRecorded,
)


def decide(wanted: ErasureRecorded, _: int) -> Sequence[ErasureRecorded]:
    """Record it."""
    return [wanted]


def evolve(count: int, _: ErasureRecorded) -> int:
    """Count it."""
    return count + 1


DECIDER: Decider[ErasureRecorded, int, ErasureRecorded] = Decider(0, decide, evolve)
"""The rules of erasures."""
