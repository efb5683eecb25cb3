"""What an instance of a workflow remembers, and how each event changes that. `evolve` never refuses.

    running ──all steps done──▶ completed
       │ └──a step failed, or somebody wants it──▶ compensating ──all undone──▶ compensated
       ├──nobody knows whether a step was done──▶ stuck ◀──it cannot be undone──┘
       └──somebody stops it──▶ cancelled

From stuck and cancelled somebody may let it go on where it was, have everything undone, or begin again
from a step; from completed and compensated the latter two, as far as there is something to.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import reduce

from flotilla.store import Wake
from flotilla.workflow import events as e
from flotilla.workflow.events import WorkflowEvent
from flotilla.workflow.expressions import Json


class Status(StrEnum):
    """Where an instance stands."""

    ABSENT = "absent"
    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    STUCK = "stuck"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """Where a step stands that has begun."""

    ASKING = "asking"
    PAUSING = "pausing"
    SPENT = "spent"
    """Every try was made, and nobody knows whether it was done."""
    TIMING = "timing"
    AWAITING = "awaiting"
    APPROVING = "approving"
    DONE = "done"
    FAILED = "failed"


MOVING = frozenset({Status.RUNNING, Status.COMPENSATING})
OPEN_CALLS = frozenset({Phase.ASKING, Phase.PAUSING})


@dataclass(frozen=True, slots=True)
class Work:
    """A step that has begun, or its undoing. `until` is when it has to be looked at."""

    phase: Phase
    until: datetime | None = None
    attempt: int = 0
    tries: int = 0
    unknown: bool = False
    """Whether one of the tries may have been done, though nobody heard of it."""
    deadline: datetime | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """What an attempt left behind, with the results that its undoing may refer to."""

    step: str
    attempt: int
    results: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Instance:
    """One run of a workflow. `effects` are in the order in which they came about."""

    status: Status = Status.ABSENT
    before: Status = Status.ABSENT
    """What it was doing when it was stopped."""
    name: str = ""
    version: int = 0
    definition: str = ""
    key: str = ""
    input: Json = None
    steps: Mapping[str, Work] = field(default_factory=dict)
    results: Mapping[str, Json] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    undoing: Work | None = None
    """The undoing of the last of `effects`."""
    attempts: Mapping[str, int] = field(default_factory=dict)
    arrived: Mapping[str, tuple[str, Json]] = field(default_factory=dict)
    """Events by the step that they were for, waited for already or not."""
    reason: str = ""

    @property
    def scope(self) -> dict[str, Json]:
        """What expressions may refer to."""
        return scope(self, self.results)

    def has_done(self, step: str) -> bool:
        """Return whether this step succeeded, and still stands."""
        work = self.steps.get(step)
        return work is not None and work.phase is Phase.DONE

    def waiting(self) -> Iterable[tuple[str, Work]]:
        """Yield what this instance waits for by itself: steps under their names, an undoing under ""."""
        if self.status is Status.RUNNING:
            yield from self.steps.items()
        if self.status is Status.COMPENSATING:
            yield from self.open_calls()
            if self.undoing:
                yield "", self.undoing

    def open_calls(self) -> list[tuple[str, Work]]:
        """Return the steps that are being asked for, or will be again."""
        return [(name, work) for name, work in self.steps.items() if work.phase in OPEN_CALLS]


def scope(instance: Instance, results: Mapping[str, Json]) -> dict[str, Json]:
    """Return what expressions may refer to, with these results of steps."""
    about: Json = {"key": instance.key, "name": instance.name}
    steps = {name: {"result": result} for name, result in results.items()}
    return {"trigger": instance.input, "steps": steps, "workflow": about}


def wake(instance: Instance) -> Wake:
    """Return when this instance has to be looked at, if nobody tells it anything before."""
    return Wake(min((work.until for _, work in instance.waiting() if work.until), default=None))


def attempts_key(step: str, *, undo: bool) -> str:
    """Return under what name attempts of a step, or of its undoing, are counted."""
    return f"{step}:undo" if undo else step


def fold(events: Iterable[WorkflowEvent], instance: Instance) -> Instance:
    """Return what these events lead to."""
    return reduce(evolve, events, instance)


def evolve(s: Instance, event: WorkflowEvent) -> Instance:  # noqa: C901, PLR0911, PLR0912 - a case an event
    """Return what `event` leads to."""
    match event:
        case e.WorkflowStarted(name=name, version=version, definition=definition, key=key):
            known = (name, version, definition, key, event.input)
            return Instance(Status.RUNNING, Status.RUNNING, *known)
        case e.StepAttempted() | e.StepRetryScheduled():
            return _asked(s, event)
        case e.StepSucceeded(step=step, attempt=attempt, result=result):
            s = _done(s, step, result)
            left = (Effect(step, attempt, s.results),) if event.undoable else ()
            return replace(s, effects=s.effects + left)
        case e.StepFailed(undo=True, message=message):
            return replace(s, undoing=Work(Phase.FAILED, why=message))
        case e.StepFailed(step=step, message=message):
            return _with(s, step, Work(Phase.FAILED, why=message))
        case e.TimerSet(step=step, until=until):
            return _with(s, step, Work(Phase.TIMING, until))
        case e.TimerFired(step=step):
            return _done(s, step, None)
        case e.EventAwaited(step=step, event=kind, until=until):
            return _with(s, step, Work(Phase.AWAITING, until, why=f"for {kind}"))
        case e.EventArrived(step=step, event_id=event_id, data=data):
            s = replace(s, arrived={**s.arrived, step: (event_id, data)})
            return _done(s, step, data) if step in s.steps else s
        case e.ApprovalAsked(step=step, by=by, until=until):
            return _with(s, step, Work(Phase.APPROVING, until, why=f"of {by}"))
        case e.ApprovalGiven(step=step, by=by):
            return _done(s, step, {"by": by})
        case e.ApprovalRefused(step=step, by=by, reason=reason):
            return _with(s, step, Work(Phase.FAILED, why=f"refused by {by}: {reason}"))
        case e.StepCompensated(step=step):
            return _undone(s, step)
        case _:
            return _moved(s, event)


def _moved(s: Instance, event: WorkflowEvent) -> Instance:  # noqa: PLR0911 - a case an event
    """Return what an event about the whole instance leads to."""
    match event:
        case e.CompensationBegun(reason=reason):
            return replace(s, status=Status.COMPENSATING, before=Status.COMPENSATING, reason=reason)
        case e.WorkflowCompleted():
            return replace(s, status=Status.COMPLETED)
        case e.WorkflowCompensated():
            return replace(s, status=Status.COMPENSATED)
        case e.WorkflowCancelled(reason=reason):
            return replace(s, status=Status.CANCELLED, reason=reason)
        case e.WorkflowStuck(step=step, undo=undo, message=message):
            stuck = replace(s, status=Status.STUCK, reason=f"{step}: {message}")
            work = s.undoing if undo else s.steps.get(step)
            if work is None or work.phase is Phase.FAILED:
                return stuck
            spent = replace(work, phase=Phase.SPENT, until=None, why=message)
            return replace(stuck, undoing=spent) if undo else _with(stuck, step, spent)
        case e.WorkflowResumed():
            failed = s.undoing is not None and s.undoing.phase is Phase.FAILED
            return replace(s, status=s.before, undoing=None if failed else s.undoing)
        case e.WorkflowForked(name=name, version=version, definition=definition, dropped=dropped):
            kept = {n: w for n, w in s.steps.items() if w.phase is Phase.DONE and n not in dropped}
            return replace(
                s,
                status=Status.RUNNING,
                before=Status.RUNNING,
                name=name,
                version=version,
                definition=definition,
                steps=kept,
                results={n: r for n, r in s.results.items() if n in kept},
                arrived={n: a for n, a in s.arrived.items() if n in kept},
                undoing=None,
                reason="",
            )
        case _:
            return s


def _asked(s: Instance, event: e.StepAttempted | e.StepRetryScheduled) -> Instance:
    work = (s.undoing if event.undo else s.steps.get(event.step)) or Work(Phase.ASKING)
    if isinstance(event, e.StepRetryScheduled):
        unknown = work.unknown or event.unknown
        work = replace(
            work, phase=Phase.PAUSING, until=event.until, unknown=unknown, why=event.message
        )
    else:
        again = work.attempt == event.attempt
        unheard = again and (work.unknown or work.phase in {Phase.ASKING, Phase.SPENT})
        counts = (event.attempt, event.tries, unheard, event.deadline)
        work = Work(Phase.ASKING, event.until, *counts, work.why if again else "")
        key = attempts_key(event.step, undo=event.undo)
        s = replace(s, attempts={**s.attempts, key: event.attempt})
    return replace(s, undoing=work) if event.undo else _with(s, event.step, work)


def _with(s: Instance, step: str, work: Work) -> Instance:
    return replace(s, steps={**s.steps, step: work})


def _done(s: Instance, step: str, result: Json) -> Instance:
    attempt = s.steps[step].attempt if step in s.steps else 0
    s = _with(s, step, Work(Phase.DONE, attempt=attempt))
    return replace(s, results={**s.results, step: result})


def _undone(s: Instance, step: str) -> Instance:
    """Forget the last effect; its step does not stand any more, unless it was done anew since."""
    gone = s.effects[-1]
    work = s.steps.get(step)
    stands = work is not None and work.attempt != gone.attempt
    return replace(
        s,
        effects=s.effects[:-1],
        undoing=None,
        steps=s.steps if stands else {n: w for n, w in s.steps.items() if n != step},
        results=s.results if stands else {n: r for n, r in s.results.items() if n != step},
    )
