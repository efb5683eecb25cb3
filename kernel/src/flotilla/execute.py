"""The one loop that turns decisions into history: load → decide → commit → on conflict, again.

It takes *all* decisions that wait for one stream. They are decided one after the other on the state
in memory and committed together with consecutive versions: a hot aggregate costs one commit for many
of them, and the expected version still fences every other process.

    open ──decide──▶ tentative ──commit──▶ settled
      ▲                  │
      ├── a unit before it was not committed: it was decided on a phantom
      └── it would write nothing, on a state that was only remembered: it needs a fresh one

The loop knows decisions, not commands, transport or telemetry.
"""

from collections.abc import Mapping, Sequence

from flotilla.aggregate import Aggregate, Claim, Decision, Done, Settled
from flotilla.errors import Conflict, KeyReused, VersionMismatch
from flotilla.store import (
    ClaimKey,
    Committed,
    Conflicted,
    Failed,
    Outcome,
    Replayed,
    Reused,
    StoredReply,
    StreamId,
    Unit,
    Version,
)

IDLE_ROUNDS_MAX = 10
"""Rounds in a row in which nobody of a batch gets anywhere, before they are told `Conflict`."""
REUSED = "this idempotency key was used for other content; take a new one"
BACKOFF_BASE_S = 0.002

Tentative = tuple[int, Unit | None, Settled]
"""A decision by its index, what it would commit, and what to tell its caller if that is committed."""


async def execute[C, S, E](
    aggregate: Aggregate[C, S, E], stream: StreamId, decisions: Sequence[Decision[S, E]]
) -> list[Settled]:
    """Settle every decision, in order; return for each what to tell its caller.

    Raises `Unavailable` or `Corrupt` when the store does: then nothing is known of those still open.
    """
    settled: dict[int, Settled] = {}
    idle_rounds = 0
    while len(settled) < len(decisions) and idle_rounds < IDLE_ROUNDS_MAX:
        if idle_rounds:
            pause_s = BACKOFF_BASE_S * 2**idle_rounds * aggregate.chance.random()
            await aggregate.clock.sleep(pause_s)
        still_open = {i: d for i, d in enumerate(decisions) if i not in settled}
        news, was_fresh = await _round(aggregate, stream, still_open)
        settled |= news
        idle_rounds = 0 if news or not was_fresh else idle_rounds + 1
    lost = Conflict(f"{stream}: lost {IDLE_ROUNDS_MAX} races in a row; try again")
    return [settled.get(i, lost) for i in range(len(decisions))]


async def _round[C, S, E](
    aggregate: Aggregate[C, S, E], stream: StreamId, decisions: Mapping[int, Decision[S, E]]
) -> tuple[dict[int, Settled], bool]:
    """Return what was settled, and whether it was decided on a state fresh from the store."""
    remembered, replies = aggregate.memory.recall(stream), dict[ClaimKey, StoredReply]()
    if remembered:
        state, version = remembered
    else:
        claims = [d.claim.key for d in decisions.values() if d.claim]
        loaded = await aggregate.load(stream, claims)
        state, version, replies = aggregate.rehydrate(loaded), loaded.version, dict(loaded.replies)
    tentative, after = _decide(aggregate, stream, decisions, (state, version), replies)
    if remembered:
        tentative = [(i, unit, result) for i, unit, result in tentative if unit]
    units = [unit for _, unit, _ in tentative if unit]
    aggregate.memory.forget(stream)  # until it is known again
    outcomes = await aggregate.commit(units) if units else ()
    if len(tentative) == len(decisions) and all(o == Committed() for o in outcomes):
        aggregate.memory.remember(stream, *after)
    return _settle(tentative, outcomes), not remembered


def _decide[C, S, E](
    aggregate: Aggregate[C, S, E],
    stream: StreamId,
    decisions: Mapping[int, Decision[S, E]],
    start: tuple[S, Version],
    replies: Mapping[ClaimKey, StoredReply],
) -> tuple[list[Tentative], tuple[S, Version]]:
    """Decide one after the other, each on the state that the ones before it would lead to."""
    state, version = start
    tentative: list[Tentative] = []
    claimed: set[ClaimKey] = set()
    for i, decision in decisions.items():
        claim = decision.claim
        if claim and claim.key in claimed:
            continue  # a twin: the next round finds its reply
        if claim and (known := replies.get(claim.key)):
            tentative.append((i, None, _replay(claim, known)))
            continue
        if decision.expected not in (None, version):
            mismatch = VersionMismatch(f"expected version {decision.expected}, it is {version}")
            tentative.append((i, None, mismatch))
            continue
        try:
            unit, state, done = aggregate.unit(stream, decision, (state, version))
        except Exception as refusal:  # noqa: BLE001 - refused, or a bug that only its caller pays for
            tentative.append((i, None, refusal))
            continue
        version = done.version or version
        claimed |= {claim.key} if claim else set()
        tentative.append((i, unit, done))
    return tentative, (state, version)


def _settle(tentative: Sequence[Tentative], outcomes: Sequence[Outcome]) -> dict[int, Settled]:
    """Settle up to the first unit that was not committed: what follows was decided on a phantom."""
    settled: dict[int, Settled] = {}
    told = iter(outcomes)
    for i, unit, result in tentative:
        match next(told) if unit else Committed():
            case Committed():
                settled[i] = result
                continue
            case Replayed(reply):
                settled[i] = Done(reply, replayed=True)
            case Reused():
                settled[i] = KeyReused(REUSED)
            case Failed(error):
                settled[i] = error
            case Conflicted():
                pass
        break
    return settled


def _replay(claim: Claim, known: StoredReply) -> Settled:
    if known.fingerprint != claim.fingerprint:
        return KeyReused(REUSED)
    return Done(known.reply, replayed=True)
