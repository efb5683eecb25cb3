"""An instance of a workflow: asked (`asked`) → happened (`events`) → remembered (`state`) → decide.

No code is run again to find out where an instance stands, so there is no rule of determinism.
Every decision ends with what follows from it (`moving.advance`): a worker that reports that a step was
done is told in the same transaction what to do next.

Between any two of these transactions every worker may die. What is being asked for then has an `until`;
when that has passed, `Wake` asks for it again, under the same key. `Wake` is also what lets timers fire
and pauses end: there is nothing else that recovers.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from flotilla.decider import Decider
from flotilla.workflow import events as e
from flotilla.workflow.asked import (
    Answer,
    Arrive,
    Cancel,
    Command,
    Compensate,
    ForkFrom,
    NotDone,
    NotNow,
    OutcomeUnknown,
    Report,
    Resume,
    Start,
    StartedDifferently,
    StepUnknown,
    Succeeded,
    Unknown,
    UnknownInstance,
    Wake,
)
from flotilla.workflow.definition import Definition, Step
from flotilla.workflow.events import WorkflowEvent
from flotilla.workflow.expressions import Json
from flotilla.workflow.moving import (
    Events,
    advance,
    by_name,
    failed,
    first_try,
    give_up,
    matches,
    may_try,
    overdue,
    pause_s,
)
from flotilla.workflow.state import (
    MOVING,
    OPEN_CALLS,
    Instance,
    Phase,
    Status,
    Work,
    evolve,
    fold,
)

type Definitions = Callable[[str], Definition]
"""The definition with a hash; raises `DefinitionMissing` when it has to be loaded first."""


def decide(definitions: Definitions, command: Command, s: Instance) -> Sequence[WorkflowEvent]:
    """Return what follows from `command`, to where nothing more follows without an answer."""
    if isinstance(command, Start):
        events, definition = _start(command, s), command.definition
    elif s.status is Status.ABSENT:
        if isinstance(command, Arrive | Wake | Report):
            return ()  # others' events come whether or not somebody waits for them
        raise UnknownInstance("there is no such workflow: see `flotilla workflows list`")
    else:
        definition = definitions(s.definition)
        events = _answer(definition, command, s)
        if isinstance(command, ForkFrom):
            definition = command.definition
    if not events:
        return ()
    return [*events, *advance(definition, fold(events, s), command.now)]


def _start(command: Start, s: Instance) -> Events:
    definition = command.definition
    if s.status is not Status.ABSENT:
        if s.input != command.input:
            raise StartedDifferently(f"{s.name} {s.key!r} was started with another input")
        return []
    return [
        e.WorkflowStarted(
            name=definition.name,
            version=definition.version,
            definition=definition.hash,
            key=command.key,
            input=command.input,
            at=command.now,
        )
    ]


def _answer(definition: Definition, command: Command, s: Instance) -> Events:  # noqa: PLR0911 - a case a command
    match command:
        case Wake(now):
            return overdue(definition, s, now)
        case Report():
            return _report(definition, command, s)
        case Arrive():
            return _arrive(definition, command, s)
        case Answer():
            return _answered(command, s)
        case Cancel(by, reason):
            return _cancel(s, by, reason)
        case Resume(by, now):
            return _resume(definition, s, by, now)
        case Compensate():
            return _compensate(definition, command, s)
        case ForkFrom():
            return _fork(command, s)
    raise TypeError(f"nobody asks an instance for {command!r}")


def _report(definition: Definition, command: Report, s: Instance) -> Events:
    tried, outcome = command.attempted, command.outcome
    found = by_name(definition, s, tried.step, undo=tried.undo)
    if found is None or found[1].attempt != tried.attempt:
        return []  # it was settled by somebody who was asked the same
    step, work = found
    if isinstance(outcome, Succeeded):
        is_open = work.phase in {*OPEN_CALLS, Phase.SPENT}
        known = _success(step, tried.attempt, outcome.result, s, undo=tried.undo)
        return [known] if is_open else []
    if work.phase is not Phase.ASKING or work.tries != tried.tries:
        return []  # a later try will tell, and may tell otherwise
    if isinstance(outcome, NotDone) and outcome.final:
        return failed(step, undo=tried.undo, code=outcome.code, message=outcome.message)
    return _pause(step, work, command, s)


def _pause(step: Step, work: Work, command: Report, s: Instance) -> Events:
    """Return when it is asked for again, or that it is not."""
    outcome, undo = command.outcome, command.attempted.undo
    assert not isinstance(outcome, Succeeded)  # noqa: S101 - for the type checker
    pause = pause_s(step.retries, work.tries, f"{s.key}/{step.name}")
    scheduled = e.StepRetryScheduled(
        step=step.name,
        undo=undo,
        until=command.now + timedelta(seconds=pause),
        unknown=isinstance(outcome, Unknown),
        code=outcome.code,
        message=outcome.message,
    )
    if s.status not in MOVING or may_try(step, work, scheduled.until):
        return [scheduled]
    unknown = work.unknown or scheduled.unknown
    pausing = replace(work, phase=Phase.PAUSING, unknown=unknown, why=outcome.message)
    return [scheduled, *give_up(step, pausing, undo=undo)]


def _success(
    step: Step, attempt: int, result: Json, s: Instance, *, undo: bool
) -> e.StepSucceeded | e.StepCompensated:
    if undo:
        return e.StepCompensated(step=step.name, attempt=s.effects[-1].attempt)
    return e.StepSucceeded(
        step=step.name, attempt=attempt, result=result, undoable=step.compensation is not None
    )


def _arrive(definition: Definition, command: Arrive, s: Instance) -> Events:
    if any(command.event_id == event_id for event_id, _ in s.arrived.values()):
        return []
    for step in definition.awaits(command.event):
        work = s.steps.get(step.name)
        is_open = step.name not in s.arrived if work is None else work.phase is Phase.AWAITING
        if is_open and step.wait_for and matches(step.wait_for, command.data, s) is not False:
            return [e.EventArrived(step=step.name, event_id=command.event_id, data=command.data)]
    return []


def _answered(command: Answer, s: Instance) -> Events:
    work = s.steps.get(command.step)
    if work is None or work.phase is not Phase.APPROVING:
        if work and command.approved and s.results.get(command.step) == {"by": command.by}:
            return []
        raise StepUnknown(f"{command.step!r} does not wait for an approval: see the picture of it")
    if s.status is not Status.RUNNING:
        raise NotNow(f"it is {s.status}: an answer would change nothing")
    if command.approved:
        return [e.ApprovalGiven(step=command.step, by=command.by)]
    return [e.ApprovalRefused(step=command.step, by=command.by, reason=command.reason)]


def _cancel(s: Instance, by: str, reason: str) -> Events:
    if s.status is Status.CANCELLED:
        return []
    if s.status not in MOVING:
        raise NotNow(f"it is {s.status}: there is nothing to cancel")
    return [e.WorkflowCancelled(by=by, reason=reason)]


def _resume(definition: Definition, s: Instance, by: str, now: datetime) -> Events:
    if s.status in MOVING:
        return []
    if s.status not in {Status.STUCK, Status.CANCELLED}:
        raise NotNow(f"it is {s.status}: fork it from a step to do something again")
    events: Events = [e.WorkflowResumed(by=by)]
    for name, work in _spent(s):
        step = definition.by_name[name or s.effects[-1].step]
        events.append(first_try(step, work, now, undo=not name))
    return events


def _compensate(definition: Definition, command: Compensate, s: Instance) -> Events:
    if s.status in {Status.COMPENSATING, Status.COMPENSATED}:
        return []
    events: Events = []
    for name, work in _spent(s):
        step = definition.by_name[name or s.effects[-1].step]
        if command.unknown is None:
            raise OutcomeUnknown(f"nobody knows of {step.name}: say that it is done, or not-done")
        if command.unknown == "done":
            events.append(_success(step, work.attempt, {}, s, undo=not name))
        elif name:
            said = f"{command.by} says that it was not done"
            events += failed(step, undo=False, code="said-not-done", message=said)
        else:
            events.append(first_try(step, work, command.now, undo=True))
    if s.undoing and s.undoing.phase is Phase.FAILED and command.unknown == "done":
        step = definition.by_name[s.effects[-1].step]
        events.append(_success(step, s.undoing.attempt, {}, s, undo=True))
    if s.before is Status.COMPENSATING:
        return [*events, e.WorkflowResumed(by=command.by)]
    return [*events, e.CompensationBegun(reason=command.reason, by=command.by)]


def _fork(command: ForkFrom, s: Instance) -> Events:
    new, step = command.definition, command.step
    if s.status in MOVING:
        raise NotNow(f"it is {s.status}: cancel it first, or wait for its end")
    if new.name != s.name or step not in new.by_name:
        raise StepUnknown(f"{new.name} v{new.version} has no step {step!r}")
    if unsettled := [name for name, w in (*s.open_calls(), *_spent(s)) if w]:
        told = unsettled[0] or s.effects[-1].step
        raise OutcomeUnknown(f"nobody knows whether {told} was done: resume it first")
    if missing := sorted(n for n in new.needs_all[step] if not s.has_done(n)):
        raise NotNow(f"{step} builds on {', '.join(missing)}, which is not done: fork from there")
    if lost := sorted({x.step for x in s.effects if x.step not in new.by_name}):
        raise NotNow(f"v{new.version} could not take back {', '.join(lost)}: compensate it first")
    dropped = tuple(n for n in new.by_name if n == step or step in new.needs_all[n])
    return [
        e.WorkflowForked(
            step=step,
            name=new.name,
            version=new.version,
            definition=new.hash,
            dropped=dropped,
            by=command.by,
        )
    ]


def _spent(s: Instance) -> list[tuple[str, Work]]:
    """Return the steps of which nobody knows whether they were done; an undoing under ""."""
    found = [(name, work) for name, work in s.steps.items() if work.phase is Phase.SPENT]
    if s.undoing and s.undoing.phase is Phase.SPENT:
        found.append(("", s.undoing))
    return found


def decider(definitions: Definitions) -> Decider[Command, Instance, WorkflowEvent]:
    """Return the rules of an instance, with where definitions are found."""
    return Decider(
        initial=Instance(),
        decide=lambda command, instance: decide(definitions, command, instance),
        evolve=evolve,
    )
