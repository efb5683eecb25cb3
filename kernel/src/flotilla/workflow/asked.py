"""What an instance of a workflow may be told, and what it may refuse.

`now` is the store's time: it says when anything that is waited for will be over.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from flotilla.errors import Rejected
from flotilla.workflow import events as e
from flotilla.workflow.definition import Definition
from flotilla.workflow.expressions import Json


@dataclass(frozen=True, slots=True)
class Start:
    """Begin. The same key with the same input a second time is already true."""

    definition: Definition
    key: str
    input: Json
    now: datetime


@dataclass(frozen=True, slots=True)
class Wake:
    """Time has passed."""

    now: datetime


@dataclass(frozen=True, slots=True)
class Succeeded:
    """It was done."""

    result: Json


@dataclass(frozen=True, slots=True)
class NotDone:
    """It was not done. `final`: and it never will be, under this key."""

    code: str
    message: str
    final: bool


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been done."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one try."""

    attempted: e.StepAttempted
    outcome: Succeeded | NotDone | Unknown
    now: datetime


@dataclass(frozen=True, slots=True)
class Arrive:
    """Something happened elsewhere that is this instance's business. `event_id` is `stream@version`."""

    event: str
    event_id: str
    data: Json
    now: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's yes or no."""

    step: str
    approved: bool
    by: str
    now: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop where it is."""

    by: str
    reason: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on: what is stuck is tried again, what was cancelled continues."""

    by: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Compensate:
    """Take everything back. `unknown` says what to believe of tries whose outcome nobody knows.

    Of an undoing as well: who took something back by hand says that it is done.
    """

    by: str
    reason: str
    now: datetime
    unknown: Literal["done", "not-done"] | None = None


@dataclass(frozen=True, slots=True)
class ForkFrom:
    """Begin again from a step, perhaps on another version; what came before it stays done."""

    step: str
    definition: Definition
    by: str
    now: datetime


Command = Start | Wake | Report | Arrive | Answer | Cancel | Resume | Compensate | ForkFrom


class UnknownInstance(Rejected):
    """There is no such instance."""

    default_code = "workflow-not-found"


class StartedDifferently(Rejected):
    """This key was used for another input."""

    default_code = "workflow-started-differently"


class NotNow(Rejected):
    """Where it stands, this cannot be done; the message says what can."""

    default_code = "workflow-not-now"


class OutcomeUnknown(Rejected):
    """Nobody knows whether a step was done: say what to believe, or let it be asked again first."""

    default_code = "workflow-outcome-unknown"


class StepUnknown(Rejected):
    """There is no such step, or it does not wait for that."""

    default_code = "workflow-step-unknown"
