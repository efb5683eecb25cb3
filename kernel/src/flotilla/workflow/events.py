"""What happened to an instance of a workflow, as it is stored. Add optional fields, never rename them.

`at` and `until` are the store's time. A `step` is named as in the definition; `undo` says that it is
about taking the step back. An attempt is asked for once or several times (`tries`), always under one
idempotency key: only when it is decided to do something anew does the attempt's number grow.
"""

from typing import Any, ClassVar

from pydantic import AwareDatetime, BaseModel, ConfigDict


class WorkflowEvent(BaseModel):
    """What all of them have in common."""

    model_config = ConfigDict(frozen=True)


class WorkflowStarted(WorkflowEvent):
    """An instance began, on the version of the definition with this hash."""

    type: ClassVar[str] = "workflow.started.v1"

    name: str
    version: int
    definition: str
    key: str
    input: Any
    at: AwareDatetime


class StepAttempted(WorkflowEvent):
    """A command is asked for now; after `until` nobody is believed to be asking any more."""

    type: ClassVar[str] = "workflow.step-attempted.v1"

    step: str
    undo: bool = False
    attempt: int
    tries: int
    until: AwareDatetime
    deadline: AwareDatetime | None = None


class StepRetryScheduled(WorkflowEvent):
    """It was not done, or (`unknown`) nobody knows: it is asked for again, under the same key."""

    type: ClassVar[str] = "workflow.step-retry-scheduled.v1"

    step: str
    undo: bool = False
    until: AwareDatetime
    unknown: bool
    code: str
    message: str


class StepSucceeded(WorkflowEvent):
    """A command was done. `undoable`: it left something that can be taken back."""

    type: ClassVar[str] = "workflow.step-succeeded.v1"

    step: str
    attempt: int
    result: Any
    undoable: bool


class StepFailed(WorkflowEvent):
    """It was not done and will not be."""

    type: ClassVar[str] = "workflow.step-failed.v1"

    step: str
    undo: bool = False
    code: str
    message: str


class TimerSet(WorkflowEvent):
    """A pause began."""

    type: ClassVar[str] = "workflow.timer-set.v1"

    step: str
    until: AwareDatetime


class TimerFired(WorkflowEvent):
    """A pause is over."""

    type: ClassVar[str] = "workflow.timer-fired.v1"

    step: str


class EventAwaited(WorkflowEvent):
    """From now on an event of this type is waited for; `until` when, if there is an end to that."""

    type: ClassVar[str] = "workflow.event-awaited.v1"

    step: str
    event: str
    until: AwareDatetime | None = None


class EventArrived(WorkflowEvent):
    """It happened, perhaps before it was waited for. `event_id` is `stream@version`."""

    type: ClassVar[str] = "workflow.event-arrived.v1"

    step: str
    event_id: str
    data: Any


class ApprovalAsked(WorkflowEvent):
    """Somebody is asked for a yes or no."""

    type: ClassVar[str] = "workflow.approval-asked.v1"

    step: str
    by: str
    until: AwareDatetime | None = None


class ApprovalGiven(WorkflowEvent):
    """Somebody said yes."""

    type: ClassVar[str] = "workflow.approval-given.v1"

    step: str
    by: str


class ApprovalRefused(WorkflowEvent):
    """Somebody said no."""

    type: ClassVar[str] = "workflow.approval-refused.v1"

    step: str
    by: str
    reason: str


class CompensationBegun(WorkflowEvent):
    """From now on everything is taken back that was done, the last first."""

    type: ClassVar[str] = "workflow.compensation-begun.v1"

    reason: str
    by: str = ""


class StepCompensated(WorkflowEvent):
    """What an attempt had left behind was taken back."""

    type: ClassVar[str] = "workflow.step-compensated.v1"

    step: str
    attempt: int


class WorkflowCompleted(WorkflowEvent):
    """Every step succeeded."""

    type: ClassVar[str] = "workflow.completed.v1"


class WorkflowCompensated(WorkflowEvent):
    """Everything that was done has been taken back."""

    type: ClassVar[str] = "workflow.compensated.v1"

    reason: str


class WorkflowStuck(WorkflowEvent):
    """It cannot go on by itself: somebody has to look at this step."""

    type: ClassVar[str] = "workflow.stuck.v1"

    step: str
    undo: bool = False
    code: str
    message: str


class WorkflowCancelled(WorkflowEvent):
    """Somebody stopped it where it was. Nothing was taken back."""

    type: ClassVar[str] = "workflow.cancelled.v1"

    by: str
    reason: str


class WorkflowResumed(WorkflowEvent):
    """Somebody let it go on where it had stopped."""

    type: ClassVar[str] = "workflow.resumed.v1"

    by: str


class WorkflowForked(WorkflowEvent):
    """Somebody let it begin again from a step, on this definition; `dropped` are done anew."""

    type: ClassVar[str] = "workflow.forked.v1"

    step: str
    name: str
    version: int
    definition: str
    dropped: tuple[str, ...]
    by: str


EVENTS: tuple[type[WorkflowEvent], ...] = (
    WorkflowStarted,
    StepAttempted,
    StepRetryScheduled,
    StepSucceeded,
    StepFailed,
    TimerSet,
    TimerFired,
    EventAwaited,
    EventArrived,
    ApprovalAsked,
    ApprovalGiven,
    ApprovalRefused,
    CompensationBegun,
    StepCompensated,
    WorkflowCompleted,
    WorkflowCompensated,
    WorkflowStuck,
    WorkflowCancelled,
    WorkflowResumed,
    WorkflowForked,
)
