"""Why a projection is late: from what can be observed to a verdict, without looking anywhere.

    store ──▶ outbox ──relay──▶ stream ──broker──▶ projector ──▶ view store
      1          2                3        4           5             1

What is nearest to the store is told first: whoever waits for somebody is not to blame. The numbers are
the order of `_CAUSES`. `Facts` are gathered in `flotilla_platform.looking`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flotilla.partition import whole_name
from flotilla.replica import LEADERLESS_MAX_S

BUDGET_S = 10.0
"""What a projection is held to that has never said what it promises."""
SIGN_OF_LIFE_S = 15.0
"""How old the last sign of life may be: it comes every two seconds, or after a long batch."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of a projection and its log: twice, `interval_s` apart."""

    projection: str
    log: str
    budget_s: float = BUDGET_S
    lag_events: int = 0
    lag_s: float = 0.0
    log_error: str | None = None
    """Why the log's store cannot be read."""
    views_error: str | None = None
    """Why the view store cannot be read."""
    broker_answers: bool = True
    waiting: int = 0
    """Events of the log without an offset."""
    oldest_waiting_s: float = 0.0
    offset: int = 0
    """The last offset of the ledger."""
    stream_last: int | None = None
    """The last sequence of the stream; None when the broker does not answer."""
    interval_s: float = 1.0
    committed_before: int = 0
    committed: int = 0
    checkpoint_before: int = 0
    checkpoint: int = 0
    parked_events: int = 0
    parked_keys: int = 0
    parked_s: float = 0.0
    """Age of the oldest parked event, by when it happened."""
    sign_of_life_s: float | None = None
    """Age of the last one; None when there never was one."""
    trouble: str = ""
    """What the projector says of itself."""
    ownerless_s: float | None = None
    """For how long nobody has owned it; None while somebody does."""
    diverged: str | None = None
    """Why its checkpoint is none of this log."""
    lock_wait_s: float = 0.0
    lock_holder: str = ""
    """Who holds a lock that the projector waits for."""

    @property
    def folded_per_s(self) -> float:
        """How many events a second it folded while it was watched."""
        return max(0, self.checkpoint - self.checkpoint_before) / self.interval_s

    @property
    def arriving_per_s(self) -> float:
        """How many events a second were committed while it was watched."""
        return max(0, self.committed - self.committed_before) / self.interval_s


class Reason(BaseModel):
    """One cause: its name for programs, what is the matter, and what helps."""

    model_config = ConfigDict(frozen=True)

    code: str
    because: str
    do: str


class Verdict(BaseModel):
    """Whether a projection is late, and why. The JSON of it is stable: fields are only added."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    projection: str
    log: str
    late: bool
    lag_events: int
    lag_s: float
    budget_s: float
    folded_per_s: float
    arriving_per_s: float
    parked_events: int
    reasons: tuple[Reason, ...]
    """The nearest to the store first; empty when it is not late."""
    partitions: tuple["Verdict", ...] = ()
    """Of each partition, by number; this one is the slowest's. None when it is folded in one part."""


def judge(facts: Facts) -> Verdict:
    """Return the verdict. Late is: over its budget, something parked, or not to be measured.

    What was folded of a log that was lost measures nothing, and is told alone.
    """
    blind = facts.log_error is not None or facts.views_error is not None
    behind = facts.lag_s > facts.budget_s and not facts.diverged
    late = blind or behind or bool(facts.parked_events) or facts.diverged is not None
    causes = _CAUSES if blind or behind else (_diverged, _parked)
    found = [reason for cause in causes if (reason := cause(facts))] if late else []
    if behind and not [r for r in found if r.code != "parked"]:
        found.append(_slow(facts))
    return Verdict(
        projection=facts.projection,
        log=facts.log,
        late=late,
        lag_events=facts.lag_events,
        lag_s=round(facts.lag_s, 3),
        budget_s=facts.budget_s,
        folded_per_s=round(facts.folded_per_s, 1),
        arriving_per_s=round(facts.arriving_per_s, 1),
        parked_events=facts.parked_events,
        reasons=tuple(found),
    )


def slowest_of(projection: str, partitions: Sequence[Verdict]) -> Verdict:
    """Return the verdict on a projection by those on its partitions: that on the latest."""
    worst = max(partitions, key=lambda one: (one.late, one.lag_s, one.lag_events))
    if len(partitions) == 1 and worst.projection == projection:
        return worst
    parked = sum(one.parked_events for one in partitions)
    together = {"partitions": tuple(partitions), "parked_events": parked}
    return worst.model_copy(update={"projection": projection, **together})


def _log_unreadable(facts: Facts) -> Reason | None:
    if facts.log_error is None:
        return None
    return Reason(
        code="store-unreachable",
        because=f"the store of the log {facts.log!r} cannot be read: {facts.log_error}",
        do="repair the store; `flotilla status` says when it answers",
    )


def _views_unreadable(facts: Facts) -> Reason | None:
    if facts.views_error is None:
        return None
    return Reason(
        code="views-unreachable",
        because=f"its view store cannot be read: {facts.views_error}",
        do="repair the store; `flotilla status` says when it answers",
    )


def _broker_down(facts: Facts) -> Reason | None:
    if facts.broker_answers:
        return None
    return Reason(
        code="broker-down",
        because="the broker does not answer, so nothing is relayed and nothing delivered",
        do="start the broker again; relay and projector go on by themselves",
    )


def _relay_stands(facts: Facts) -> Reason | None:
    if not facts.waiting or facts.oldest_waiting_s <= facts.budget_s:
        return None
    return Reason(
        code="relay",
        because=f"{facts.waiting} event(s) of {facts.log!r} have no offset, the oldest for"
        f" {facts.oldest_waiting_s:.1f} s: no relay publishes them",
        do="look at `curl <api>/readyz`, restart the relay, and see docs/runbooks/relay.md",
    )


def _stream_ahead(facts: Facts) -> Reason | None:
    if facts.stream_last is None or facts.stream_last <= facts.offset or not facts.waiting:
        return None
    return Reason(
        code="relay-halted",
        because=f"the stream ends at {facts.stream_last} and the ledger at {facts.offset}: what is"
        " published and not recorded is not folded",
        do="see docs/runbooks/relay.md, halted",
    )


def _not_running(facts: Facts) -> Reason | None:
    age_s = facts.sign_of_life_s
    if facts.folded_per_s or (age_s is not None and age_s <= SIGN_OF_LIFE_S):
        return None
    seen = "never left a sign of life" if age_s is None else f"was last heard of {age_s:.0f} s ago"
    return Reason(
        code="not-running",
        because=f"its projector {seen}, and the checkpoint stays at {facts.checkpoint}",
        do="start the fleet (`flotilla up`), or restart the projector",
    )


def _diverged(facts: Facts) -> Reason | None:
    if facts.diverged is None:
        return None
    return Reason(
        code="diverged",
        because=f"{facts.diverged}: the store of {facts.log!r} was restored from before that",
        do=f"`flotilla rebuild {whole_name(facts.projection)}`, then restart the projector; see"
        " docs/runbooks/restore.md",
    )


def _no_owner(facts: Facts) -> Reason | None:
    """Somebody lives, and nobody owns it: else it is enough to say that nobody runs."""
    since_s = facts.ownerless_s
    if since_s is None or since_s <= LEADERLESS_MAX_S or _not_running(facts):
        return None
    return Reason(
        code="no-owner",
        because=f"no projector has owned it for {since_s:.0f} s: none reaches broker and store, or"
        " all are halted",
        do="look at `curl <api>/readyz`, and see docs/runbooks/projector.md",
    )


def _lock(facts: Facts) -> Reason | None:
    if not facts.lock_holder:
        return None
    return Reason(
        code="lock",
        because=f"it waits for {facts.lock_wait_s:.1f} s for a lock of {facts.lock_holder}",
        do="end that transaction: `select pg_terminate_backend(<process>)`",
    )


def _troubled(facts: Facts) -> Reason | None:
    if not facts.trouble or facts.folded_per_s or _not_running(facts):
        return None
    return Reason(
        code="trouble",
        because=f"the projector says: {facts.trouble}",
        do="see docs/runbooks/projector.md; a halted one stays so until it is started again",
    )


def _parked(facts: Facts) -> Reason | None:
    if not facts.parked_events:
        return None
    name = facts.projection
    return Reason(
        code="parked",
        because=f"{facts.parked_events} event(s) of {facts.parked_keys} key(s) are parked, the oldest"
        f" of {facts.parked_s:.0f} s ago: these keys are stale, the others are not",
        do=f"`flotilla parked list --projection {name}`, mend the projection, then"
        f" `flotilla parked retry {name}`",
    )


def _slow(facts: Facts) -> Reason:
    """Nobody else is to blame: the projector runs, and there is more than it has folded."""
    rates = (
        f"it folds {facts.folded_per_s:.0f} events/s and {facts.arriving_per_s:.0f}/s arrive,"
        f" {facts.lag_events} are left"
    )
    gain_per_s = facts.folded_per_s - facts.arriving_per_s
    if gain_per_s > 0:
        return Reason(
            code="catching-up",
            because=f"{rates}: it catches up in about {facts.lag_events / gain_per_s:.0f} s",
            do="wait; `flotilla status --watch` shows it",
        )
    if facts.folded_per_s:
        return Reason(
            code="slow",
            because=f"{rates}: its handler is slower than what arrives",
            do="make `apply` set-wise, look at the view store's load, or split the projection",
        )
    return Reason(
        code="stuck",
        because=f"{rates}: it lives, and its checkpoint stays at {facts.checkpoint}",
        do="look at its log for a slow batch or an error that comes back, and restart it",
    )


_CAUSES: Sequence[Callable[[Facts], Reason | None]] = (
    _log_unreadable,
    _views_unreadable,
    _broker_down,
    _relay_stands,
    _stream_ahead,
    _not_running,
    _no_owner,
    _lock,
    _troubled,
    _parked,
)
