"""A counter: opened by its first use, then counted up, down and back to zero, within its bounds.

What may be asked and what may have happened are contract messages (`flotilla_contracts.counter`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import assert_never

from flotilla import Decider, Rejected
from flotilla_contracts.counter import (
    CounterCommand,
    CounterDecremented,
    CounterEvent,
    CounterIncremented,
    CounterOpened,
    CounterReset,
    DecrementCounter,
    IncrementCounter,
    ResetCounter,
)
from flotilla_contracts.errors import ErrorCode

# What may be asked.

Command = CounterCommand


# What may have happened.

Event = CounterEvent


class UpperBoundPassed(Rejected):
    """The counter would pass its upper bound."""

    default_code = ErrorCode.COUNTER_UPPER_BOUND_PASSED


class LowerBoundPassed(Rejected):
    """The counter would pass its lower bound."""

    default_code = ErrorCode.COUNTER_LOWER_BOUND_PASSED


# What we remember. Never the truth, so free to change.


@dataclass(frozen=True, slots=True)
class Counter:
    """Just enough to decide."""

    is_open: bool = False
    value: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which values a counter moves, both included."""

    lower: int
    upper: int


def evolve(counter: Counter, event: Event) -> Counter:
    """Apply one fact. Never refuses: it already happened."""
    match event:
        case CounterOpened():
            return replace(counter, is_open=True)
        case CounterIncremented(value=value) | CounterDecremented(value=value):
            return replace(counter, value=value)
        case CounterReset():
            return replace(counter, value=0)
    assert_never(event)


def decide(bounds: Bounds, command: Command, counter: Counter) -> Sequence[Event]:
    """Return what follows from `command`; nothing, if it is already true."""
    opened = [] if counter.is_open else [CounterOpened(counter_id=command.counter_id)]
    return [*opened, *_move(bounds, command, counter)]


def _move(bounds: Bounds, command: Command, counter: Counter) -> Sequence[Event]:
    name = command.counter_id
    match command:
        case IncrementCounter(by=by):
            value = counter.value + by
            if value > bounds.upper:
                raise UpperBoundPassed(f"{counter.value} + {by} would pass {bounds.upper}")
            return [CounterIncremented(counter_id=name, by=by, value=value)]
        case DecrementCounter(by=by):
            value = counter.value - by
            if value < bounds.lower:
                raise LowerBoundPassed(f"{counter.value} - {by} would pass {bounds.lower}")
            return [CounterDecremented(counter_id=name, by=by, value=value)]
        case ResetCounter():
            if counter.value == 0:
                return []
            return [CounterReset(counter_id=name, previous_value=counter.value)]
    assert_never(command)


def decider(bounds: Bounds) -> Decider[Command, Counter, Event]:
    """Return the rules of counters that move within `bounds`."""
    return Decider(Counter(), partial(decide, bounds), evolve)
