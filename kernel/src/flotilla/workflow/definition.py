"""What a workflow does, as data: `platform-model/workflows/*.yaml` is written in this shape.

    name: ordering
    version: 1
    trigger: { event: order.placed.v1 }
    idempotency_key: ${trigger.order_id}    # one instance a key: a trigger that comes twice starts one
    steps:
      - name: reserve
        call: { service: stock, command: reserve, parameters: { order_id: "${trigger.order_id}" } }
        retries: { attempts_max: 5, backoff_first_s: 1, backoff_max_s: 60 }
        compensation:
          { service: stock, command: release, parameters: { order_id: "${trigger.order_id}" } }
      - { name: agreed, approval: { by: sales }, timeout_s: 86400 }
      - name: paid
        depends_on: [reserve, agreed]
        wait_for: { event: invoice.paid.v1, where: { order_id: "${trigger.order_id}" } }
      - { name: settle-down, depends_on: [paid], timer_s: 60 }

Steps that do not depend on each other are done side by side. Every call says how it is undone, or
`compensation: null` when it leaves nothing behind. `where` ties the event to the fields of which the
idempotency key is made: so whose event it is can be computed from it.
"""

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flotilla.errors import Rejected
from flotilla.workflow.expressions import Json

STEPS_MAX = 100
CALL_TIMEOUT_S = 60.0
"""How long a call is tried, pauses included, when its step does not say."""
NAME = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"
YEAR_S = 366 * 86_400

Name = Annotated[str, Field(pattern=NAME)]
EventType = Annotated[str, Field(pattern=r"^[^.\s]+\.[^.\s]+\.v[1-9][0-9]*$")]
Seconds = Annotated[float, Field(gt=0, le=YEAR_S)]


class DefinitionInvalid(Rejected):
    """A definition that cannot work; the message names every mistake and its place."""

    default_code = "workflow-invalid"


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Retries(_Shape):
    """How often one thing is asked for while nobody knows that it was done, and the pauses between."""

    attempts_max: Annotated[int, Field(ge=1, le=100)] = 5
    backoff_first_s: Seconds = 1.0
    """Before the second time; twice as long before each further one, with jitter."""
    backoff_max_s: Seconds = 60.0


class Call(_Shape):
    """A contract command and its fields."""

    service: Name
    command: Name
    parameters: dict[str, Any] = {}

    @property
    def subject(self) -> str:
        """Where it is asked for."""
        return f"cmd.{self.service}.{self.command}"


class WaitFor(_Shape):
    """Something that happens elsewhere; kept for its step when it comes before the step has begun."""

    event: EventType
    where: dict[str, Any] = {}


class Approval(_Shape):
    """A person's yes or no: by whom, for whoever shows it and lets them answer."""

    by: Name


class Step(_Shape):
    """One thing to do: exactly one of `call`, `wait_for`, `timer_s`, `approval`.

    After `timeout_s` nothing more is waited for or tried; a call that does not say has `CALL_TIMEOUT_S`.
    """

    name: Name
    call: Call | None = None
    wait_for: WaitFor | None = None
    timer_s: Seconds | None = None
    approval: Approval | None = None
    depends_on: tuple[Name, ...] = ()
    timeout_s: Seconds | None = None
    retries: Retries = Retries()
    compensation: Call | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        kinds = (self.call, self.wait_for, self.timer_s, self.approval)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("a step is one of call, wait_for, timer_s, approval")
        if not self.call and {"retries", "compensation"} & self.model_fields_set:
            raise ValueError("retries and compensation belong to a call")
        return self

    @property
    def says_how_it_is_undone(self) -> bool:
        """Whether there is a compensation, or it is written that there is nothing to undo."""
        return "compensation" in self.model_fields_set


class Schedule(_Shape):
    """Times at which it starts, by a clock on somebody's wall."""

    cron: str
    time_zone: str = "UTC"


class TriggerCommand(_Shape):
    """A command; its fields are what the instance is started with."""

    service: Name
    command: Name

    @property
    def subject(self) -> str:
        """Where it is asked for."""
        return f"cmd.{self.service}.{self.command}"


class Trigger(_Shape):
    """What starts it: exactly one of these."""

    command: TriggerCommand | None = None
    event: EventType | None = None
    schedule: Schedule | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(t is not None for t in (self.command, self.event, self.schedule)) != 1:
            raise ValueError("a trigger is one of command, event, schedule")
        return self


class Definition(_Shape):
    """One version of a workflow. What runs finishes on the version it was started with."""

    name: Name
    version: Annotated[int, Field(ge=1)]
    summary: str = ""
    owner: str = ""
    trigger: Trigger
    idempotency_key: Annotated[str, Field(min_length=1)]
    environments: tuple[str, ...] = ()
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=STEPS_MAX)]

    @cached_property
    def hash(self) -> str:
        """What tells this content from any other."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:32]

    @property
    def schedule_id(self) -> str:
        """What a scheduler calls the times of `trigger.schedule`."""
        return f"workflow.{self.name}"

    @cached_property
    def by_name(self) -> dict[str, Step]:
        """Its steps."""
        return {step.name: step for step in self.steps}

    @cached_property
    def needs_all(self) -> dict[str, frozenset[str]]:
        """What each step waits for, directly or not: what it may refer to."""
        found: dict[str, frozenset[str]] = {}
        for step in self.steps:
            seen: set[str] = set()
            waiting = list(step.depends_on)
            while waiting:
                name = waiting.pop()
                if name not in seen:
                    seen.add(name)
                    waiting += self.by_name[name].depends_on if name in self.by_name else ()
            found[step.name] = frozenset(seen)
        return found

    def known_as(self, content: str) -> Self:
        """Return this definition under the hash that it was published with."""
        self.__dict__["hash"] = content
        return self

    def awaits(self, event: str) -> tuple[Step, ...]:
        """Return the steps that wait for events of this type."""
        return tuple(s for s in self.steps if s.wait_for and s.wait_for.event == event)

    def content(self) -> dict[str, Any]:
        """Return it as the document that it was read from, without what it did not say."""
        return self.model_dump(mode="json", exclude_unset=True)

    def to_json(self) -> str:
        """Return what `definition_from` reads; the same content is the same text."""
        content = self.content()
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def definition_from(document: Json, *, where: str = "workflow") -> Definition:
    """Return the definition that a document (YAML or JSON, parsed) holds.

    Raises:
        DefinitionInvalid: it is not of the shape above; says where and why, for each mistake.

    """
    try:
        return Definition.model_validate(document)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False, include_context=False)
        told = "; ".join(
            f"{'.'.join(str(part) for part in m['loc']) or 'the document'}: {m['msg']}"
            for m in mistakes
        )
        raise DefinitionInvalid(f"{where}: {told}") from None
