"""Which units of a batch may share a statement.

A store promises to commit a batch *as if* its units came one after the other. One multi-row statement
sees only one moment, so a batch is cut into rounds that run after each other, and a round into chains
that know nothing of each other:

- a *chain* is one unit, or several of one stream that build on each other (5→6, 6→8, 8→8 …): together
  they are one compare-and-set from the first expectation to the last version;
- whatever shares a stream or an idempotency key with another chain waits for the next round.
"""

from collections.abc import Sequence

from flotilla.store import ClaimKey, StreamId, Unit, Version

Chain = list[int]
"""Indices of units, in order."""


def plan_rounds(units: Sequence[Unit]) -> list[list[Chain]]:
    """Return the rounds, each a list of chains, each a list of indices into `units`."""
    rounds: list[list[Chain]] = []
    waiting = list(range(len(units)))
    while waiting:
        chains, waiting = _plan_round(units, waiting)
        rounds.append(chains)
    return rounds


def _plan_round(units: Sequence[Unit], waiting: Sequence[int]) -> tuple[list[Chain], list[int]]:
    chains: list[Chain] = []
    open_ends: dict[StreamId, tuple[Chain, Version]] = {}
    taken: set[StreamId | ClaimKey] = set()
    deferred: list[int] = []
    for i in waiting:
        unit = units[i]
        streams = {append.stream for append in unit.appends}
        touched: set[StreamId | ClaimKey] = {
            *streams,
            *([unit.record.claim] if unit.record else ()),
        }
        clashes = touched & taken
        single = unit.appends[0] if len(unit.appends) == 1 else None
        end = open_ends.get(single.stream) if single else None
        if not clashes:
            chain = [i]
            chains.append(chain)
            if single:
                open_ends[single.stream] = (chain, single.version)
        elif single and end and clashes == {single.stream} and end[1] == single.expected:
            end[0].append(i)
            open_ends[single.stream] = (end[0], single.version)
        else:
            deferred.append(i)
            for stream in streams:
                open_ends.pop(stream, None)
        taken |= touched
    return chains, deferred
