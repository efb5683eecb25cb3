"""What an instance does by itself, as far as it gets without anybody's answer. Pure.

`advance` follows every other decision: it begins what can begin, goes back when something has failed,
and ends when there is nothing left. `overdue` is what the passing of time leads to: it is what wakes an
instance whose worker has died, and whose timer has ended, alike.

A try whose worker was not heard of may have been done. So it is asked for again under the same key, and
when no try is left that is neither success nor failure: the instance is stuck, and says so.
"""

import zlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from flotilla.workflow import events as e
from flotilla.workflow.definition import (
    CALL_TIMEOUT_S,
    Call,
    Definition,
    Retries,
    Step,
    WaitFor,
)
from flotilla.workflow.events import WorkflowEvent
from flotilla.workflow.expressions import Json, ReferenceMissing, evaluate
from flotilla.workflow.state import (
    Instance,
    Phase,
    Status,
    Work,
    attempts_key,
    fold,
    scope,
)

TRY_TIMEOUT_S = 5.0
"""How long one try may take: the deadline that travels with it."""
MARGIN_S = 1.0
"""How much longer than a try may take nobody else begins another one."""
UNHEARD_TRIES_MAX = 20
"""How many workers may die while they ask for one thing, before somebody has to look at it."""

type Events = list[WorkflowEvent]


def advance(definition: Definition, instance: Instance, now: datetime) -> Events:
    """Return everything that follows without anybody's answer: at most a few rounds a step."""
    events: Events = []
    while news := _next(definition, instance, now):
        events += news
        instance = fold(news, instance)
    return events


def _next(definition: Definition, s: Instance, now: datetime) -> Events:
    if s.status is Status.RUNNING:
        for name, work in s.steps.items():
            if work.phase is Phase.FAILED:
                return [e.CompensationBegun(reason=f"{name}: {work.why}")]
        if all(s.has_done(step.name) for step in definition.steps):
            return [e.WorkflowCompleted()]
        return [
            event
            for step in definition.steps
            if step.name not in s.steps and all(map(s.has_done, step.depends_on))
            for event in _begin(step, s, now)
        ]
    if s.status is Status.COMPENSATING and s.undoing is None and not s.open_calls():
        return _undo_last(definition, s, now)
    return []


def _begin(step: Step, s: Instance, now: datetime) -> Events:
    until = now + timedelta(seconds=step.timeout_s) if step.timeout_s else None
    if step.timer_s:
        return [e.TimerSet(step=step.name, until=now + timedelta(seconds=step.timer_s))]
    if step.approval:
        return [e.ApprovalAsked(step=step.name, by=step.approval.by, until=until)]
    if step.wait_for:
        awaited = e.EventAwaited(step=step.name, event=step.wait_for.event, until=until)
        early = s.arrived.get(step.name)
        if early and matches(step.wait_for, early[1], s):
            return [awaited, e.EventArrived(step=step.name, event_id=early[0], data=early[1])]
        return [awaited]
    return attempt(step, s, now)


def matches(wait: WaitFor, data: Json, s: Instance) -> bool | None:
    """Return whether an event is the one that is waited for; None while that cannot be known yet."""
    try:
        wanted = {name: evaluate(value, s.scope) for name, value in wait.where.items()}
    except ReferenceMissing:
        return None
    return isinstance(data, Mapping) and all(data.get(n) == v for n, v in wanted.items())


def _undo_last(definition: Definition, s: Instance, now: datetime) -> Events:
    if not s.effects:
        return [e.WorkflowCompensated(reason=s.reason)]
    effect = s.effects[-1]
    step = definition.by_name[effect.step]
    if step.compensation is None:
        return [e.StepCompensated(step=effect.step, attempt=effect.attempt)]
    return attempt(step, s, now, undo=True)


def call_of(step: Step, *, undo: bool) -> Call:
    """Return what is asked for to do a step, or to undo it."""
    call = step.compensation if undo else step.call
    if call is None:
        raise ValueError(f"{step.name} asks for nothing")
    return call


def parameters(s: Instance, step: Step, *, undo: bool) -> dict[str, Json]:
    """Return the fields of the command: the same ones each time.

    Raises:
        ReferenceMissing: a field refers to something that is not there.

    """
    results = s.effects[-1].results if undo else s.results
    fields = evaluate(dict(call_of(step, undo=undo).parameters), scope(s, results))
    return dict(fields) if isinstance(fields, Mapping) else {}


def attempt(step: Step, s: Instance, now: datetime, *, undo: bool = False) -> Events:
    """Return how something is done anew: under a key that was never used before."""
    number = s.attempts.get(attempts_key(step.name, undo=undo), 0) + 1
    try:
        parameters(s, step, undo=undo)
    except ReferenceMissing as error:
        return failed(step, undo=undo, code="reference-missing", message=str(error))
    return [first_try(step, Work(Phase.ASKING, attempt=number), now, undo=undo)]


def try_again(step: Step, work: Work, now: datetime, *, undo: bool) -> Events:
    """Return how the same attempt is asked for again: under the same key. It was said that it would be.

    Nobody heard of tries whose worker died: that is no fault of the step's, unless it kills workers.
    """
    unheard = UNHEARD_TRIES_MAX if work.phase is Phase.ASKING else 0
    if work.tries < step.retries.attempts_max + unheard:
        return [_try(step, work, now, undo=undo)]
    return give_up(step, work, undo=undo)


def give_up(step: Step, work: Work, *, undo: bool) -> Events:
    """Return what follows when there is no try left, or no time."""
    if not (work.unknown or work.phase is Phase.ASKING):
        return failed(step, undo=undo, code="tries-spent", message=work.why)
    why = work.why or "no answer"
    message = f"after {work.tries} tries nobody knows whether it was done: {why}"
    return [e.WorkflowStuck(step=step.name, undo=undo, code="outcome-unknown", message=message)]


def first_try(step: Step, work: Work, now: datetime, *, undo: bool) -> e.StepAttempted:
    """Return how an attempt is asked for from the beginning: with all its tries, and all its time."""
    deadline = None if undo else now + timedelta(seconds=step.timeout_s or CALL_TIMEOUT_S)
    return _try(step, replace(work, tries=0, deadline=deadline), now, undo=undo)


def may_try(step: Step, work: Work, now: datetime) -> bool:
    """Return whether there is a try left, and time for it: asked before a pause is made for it."""
    in_time = work.deadline is None or now < work.deadline
    return in_time and work.tries < step.retries.attempts_max


def failed(step: Step, *, undo: bool, code: str, message: str) -> Events:
    """Return that something will not be done. What cannot be undone is for a human."""
    failure = e.StepFailed(step=step.name, undo=undo, code=code, message=message)
    if not undo:
        return [failure]
    stuck = e.WorkflowStuck(step=step.name, undo=True, code=code, message=message)
    return [failure, stuck]


def pause_s(retries: Retries, tries: int, key: str) -> float:
    """Return how long to wait after so many tries: doubling, bounded, spread by what is asked for."""
    spread = zlib.crc32(f"{key}#{tries}".encode()) / 2**32
    doubled: float = retries.backoff_first_s * 2.0 ** min(tries - 1, 30)
    longest = min(retries.backoff_max_s, doubled)
    return longest * (0.5 + spread / 2)


def overdue(definition: Definition, s: Instance, now: datetime) -> Events:
    """Return what the passing of time leads to."""
    events: Events = []
    for name, work in s.waiting():
        if work.until is None or work.until > now or any(_stops(event) for event in events):
            continue
        undo = not name
        step = definition.by_name[s.effects[-1].step if undo else name]
        if work.phase is Phase.TIMING:
            events.append(e.TimerFired(step=name))
        elif work.phase in {Phase.ASKING, Phase.PAUSING}:
            events += try_again(step, work, now, undo=undo)
        else:
            message = f"nothing came {work.why} in time"
            events += failed(step, undo=False, code="deadline-passed", message=message)
    return events


def by_name(
    definition: Definition, s: Instance, step: str, *, undo: bool
) -> tuple[Step, Work] | None:
    """Return a step that has begun, with where it stands."""
    works: Mapping[str, Work] = s.steps
    work = s.undoing if undo else works.get(step)
    if work is None or step not in definition.by_name or (undo and s.effects[-1].step != step):
        return None
    return definition.by_name[step], work


def _try(step: Step, work: Work, now: datetime, *, undo: bool) -> e.StepAttempted:
    return e.StepAttempted(
        step=step.name,
        undo=undo,
        attempt=work.attempt,
        tries=work.tries + 1,
        until=now + timedelta(seconds=TRY_TIMEOUT_S + MARGIN_S),
        deadline=work.deadline,
    )


def _stops(event: WorkflowEvent) -> bool:
    return isinstance(event, e.WorkflowStuck)
