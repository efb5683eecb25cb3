"""Workflows, in their own words: what happened to an instance, what is answered, what may be asked.

The events are those that the kernel stores (`flotilla.workflow.events`), written down a second
time because neither knows the other; a test of svc-workflow holds them equal. An instance is named as
in its stream: `<workflow>:<key>`.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, Field

from flotilla_contracts.message import Command, Event, Identifier, Query, Reply

SERVICE = "workflow"
PAGE_SIZE_MAX = 200

Instance = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9-]*:[^/\s]+( [^/\s]+)*$",
        max_length=200,
        description="Which one: `<workflow>:<key>`, as `flotilla workflows list` shows it.",
        examples=["ordering:o-1"],
    ),
]
By = Annotated[str, Field(min_length=1, max_length=100, description="Who says so.")]
Reason = Annotated[str, Field(max_length=500, description="Why, for whoever looks later.")]
WorkflowStatus = Literal[
    "running", "compensating", "completed", "compensated", "stuck", "cancelled"
]


class WorkflowErrorCode(StrEnum):
    """What a workflow refuses, for programs. No route of the edge leads here yet."""

    NOT_FOUND = "workflow-not-found"
    STEP_UNKNOWN = "workflow-step-unknown"
    NOT_NOW = "workflow-not-now"
    OUTCOME_UNKNOWN = "workflow-outcome-unknown"
    STARTED_DIFFERENTLY = "workflow-started-differently"
    KEY_INVALID = "workflow-key-invalid"


# What happened. Stored forever: add optional fields, never rename them.


class WorkflowDefined(Event):
    """A version of a workflow was published."""

    type: ClassVar[str] = "workflow-definition.published.v1"

    hash: str
    definition: dict[str, Any]


class WorkflowHappened(Event):
    """What all events of an instance have in common."""


class WorkflowStarted(WorkflowHappened):
    """An instance began, on the version of the definition with this hash."""

    type: ClassVar[str] = "workflow.started.v1"

    name: str
    version: int
    definition: str
    key: str
    input: Any
    at: AwareDatetime


class StepAttempted(WorkflowHappened):
    """A command is asked for now; after `until` nobody is believed to be asking any more."""

    type: ClassVar[str] = "workflow.step-attempted.v1"

    step: str
    undo: bool = False
    attempt: int
    tries: int
    until: AwareDatetime
    deadline: AwareDatetime | None = None


class StepRetryScheduled(WorkflowHappened):
    """It was not done, or (`unknown`) nobody knows: it is asked for again, under the same key."""

    type: ClassVar[str] = "workflow.step-retry-scheduled.v1"

    step: str
    undo: bool = False
    until: AwareDatetime
    unknown: bool
    code: str
    message: str


class StepSucceeded(WorkflowHappened):
    """A command was done. `undoable`: it left something that can be taken back."""

    type: ClassVar[str] = "workflow.step-succeeded.v1"

    step: str
    attempt: int
    result: Any
    undoable: bool


class StepFailed(WorkflowHappened):
    """It was not done and will not be."""

    type: ClassVar[str] = "workflow.step-failed.v1"

    step: str
    undo: bool = False
    code: str
    message: str


class TimerSet(WorkflowHappened):
    """A pause began."""

    type: ClassVar[str] = "workflow.timer-set.v1"

    step: str
    until: AwareDatetime


class TimerFired(WorkflowHappened):
    """A pause is over."""

    type: ClassVar[str] = "workflow.timer-fired.v1"

    step: str


class EventAwaited(WorkflowHappened):
    """From now on an event of this type is waited for; `until` when, if there is an end to that."""

    type: ClassVar[str] = "workflow.event-awaited.v1"

    step: str
    event: str
    until: AwareDatetime | None = None


class EventArrived(WorkflowHappened):
    """It happened, perhaps before it was waited for. `event_id` is `stream@version`."""

    type: ClassVar[str] = "workflow.event-arrived.v1"

    step: str
    event_id: str
    data: Any


class ApprovalAsked(WorkflowHappened):
    """Somebody is asked for a yes or no."""

    type: ClassVar[str] = "workflow.approval-asked.v1"

    step: str
    by: str
    until: AwareDatetime | None = None


class ApprovalGiven(WorkflowHappened):
    """Somebody said yes."""

    type: ClassVar[str] = "workflow.approval-given.v1"

    step: str
    by: str


class ApprovalRefused(WorkflowHappened):
    """Somebody said no."""

    type: ClassVar[str] = "workflow.approval-refused.v1"

    step: str
    by: str
    reason: str


class CompensationBegun(WorkflowHappened):
    """From now on everything is taken back that was done, the last first."""

    type: ClassVar[str] = "workflow.compensation-begun.v1"

    reason: str
    by: str = ""


class StepCompensated(WorkflowHappened):
    """What an attempt had left behind was taken back."""

    type: ClassVar[str] = "workflow.step-compensated.v1"

    step: str
    attempt: int


class WorkflowCompleted(WorkflowHappened):
    """Every step succeeded."""

    type: ClassVar[str] = "workflow.completed.v1"


class WorkflowCompensated(WorkflowHappened):
    """Everything that was done has been taken back."""

    type: ClassVar[str] = "workflow.compensated.v1"

    reason: str


class WorkflowStuck(WorkflowHappened):
    """It cannot go on by itself: somebody has to look at this step."""

    type: ClassVar[str] = "workflow.stuck.v1"

    step: str
    undo: bool = False
    code: str
    message: str


class WorkflowCancelled(WorkflowHappened):
    """Somebody stopped it where it was. Nothing was taken back."""

    type: ClassVar[str] = "workflow.cancelled.v1"

    by: str
    reason: str


class WorkflowResumed(WorkflowHappened):
    """Somebody let it go on where it had stopped."""

    type: ClassVar[str] = "workflow.resumed.v1"

    by: str


class WorkflowForked(WorkflowHappened):
    """Somebody let it begin again from a step, on this definition; `dropped` are done anew."""

    type: ClassVar[str] = "workflow.forked.v1"

    step: str
    name: str
    version: int
    definition: str
    dropped: tuple[str, ...]
    by: str


# What is answered.


class WorkflowReply(Reply):
    """Where an instance stands after a command."""

    instance: str
    workflow: str
    version: int
    key: str
    status: WorkflowStatus
    reason: str


class WorkflowStep(Reply):
    """A step of an instance: what it does, what it builds on, where it stands and why.

    `standing` is `later`, `now`, `done`, `failed` or `undone`.
    """

    name: str
    does: str
    depends_on: tuple[str, ...]
    standing: str
    why: str


class WorkflowDetail(WorkflowReply):
    """An instance with its steps; `picture` is a Mermaid flowchart of them."""

    steps: tuple[WorkflowStep, ...]
    picture: str


class WorkflowRow(Reply):
    """An instance in a list. `changed_at` is when the last of its events was recorded."""

    tenant: str
    instance: str
    workflow: str
    version: int
    key: str
    status: WorkflowStatus
    reason: str
    started_at: Annotated[AwareDatetime, Field(strict=False)]
    changed_at: Annotated[AwareDatetime, Field(strict=False)]


class WorkflowPage(Reply):
    """Some instances, the last started first. `next_cursor` is null on the last page."""

    items: tuple[WorkflowRow, ...]
    next_cursor: str | None


# What may be asked.


class ResumeWorkflow(Command):
    """Go on where it stopped: what is stuck is tried again, what was cancelled continues."""

    subject: ClassVar[str] = "cmd.workflow.resume"
    reply: ClassVar[type[Reply]] = WorkflowReply

    instance: Instance
    by: By


class CompensateWorkflow(Command):
    """Take everything back. `unknown` says what to believe of steps whose outcome nobody knows."""

    subject: ClassVar[str] = "cmd.workflow.compensate"
    reply: ClassVar[type[Reply]] = WorkflowReply

    instance: Instance
    by: By
    reason: Reason
    unknown: Literal["done", "not-done"] | None = None


class CancelWorkflow(Command):
    """Stop where it is; nothing is taken back."""

    subject: ClassVar[str] = "cmd.workflow.cancel"
    reply: ClassVar[type[Reply]] = WorkflowReply

    instance: Instance
    by: By
    reason: Reason


class ForkWorkflow(Command):
    """Begin again from a step, on a version (null: the newest); what it builds on stays done."""

    subject: ClassVar[str] = "cmd.workflow.fork-from"
    reply: ClassVar[type[Reply]] = WorkflowReply

    instance: Instance
    step: Identifier
    by: By
    version: Annotated[int, Field(ge=1)] | None = None


class AnswerWorkflow(Command):
    """Say yes or no to a step that asks somebody."""

    subject: ClassVar[str] = "cmd.workflow.answer"
    reply: ClassVar[type[Reply]] = WorkflowReply

    instance: Instance
    step: Identifier
    approved: bool
    by: By
    reason: Reason = ""


class GetWorkflow(Query):
    """One instance, from its own store."""

    subject: ClassVar[str] = "qry.workflow.get-instance"
    reply: ClassVar[type[Reply]] = WorkflowDetail

    instance: Instance


class ListWorkflows(Query):
    """Instances, the last started first, from the read model.

    Of the tenant that asks; with `every_tenant` of all, which only an operator may ask.
    """

    subject: ClassVar[str] = "qry.projector.list-workflows"
    reply: ClassVar[type[Reply]] = WorkflowPage

    every_tenant: bool = False
    status: WorkflowStatus | None = None
    workflow: Identifier | None = None
    since: AwareDatetime | None = None
    after: Annotated[str, Field(max_length=500)] | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_SIZE_MAX)] = 50


WorkflowCommand = (
    ResumeWorkflow | CompensateWorkflow | CancelWorkflow | ForkWorkflow | AnswerWorkflow
)

EVENTS: tuple[type[Event], ...] = (
    WorkflowDefined,
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
COMMANDS: tuple[type[WorkflowCommand], ...] = (
    ResumeWorkflow,
    CompensateWorkflow,
    CancelWorkflow,
    ForkWorkflow,
    AnswerWorkflow,
)
QUERIES: tuple[type[Query], ...] = (GetWorkflow, ListWorkflows)
