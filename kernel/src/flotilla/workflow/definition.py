"""What a workflow does, as data: `platform-model/workflows/*.yaml` is written in this shape.

    name: tenant-onboarding
    version: 1
    trigger: {command: onboard-tenant, input: [tenant_id, name]}
    key: ${trigger.tenant_id}            # one instance a key: a trigger that comes twice starts one
    steps:
      - name: create
        command: cmd.tenant.create
        with: {tenant_id: "${trigger.tenant_id}", name: "${trigger.name}"}
        retries: {tries_max: 5, backoff_s: 0.5, backoff_max_s: 60}
        compensation: {command: cmd.tenant.close, with: {tenant_id: "${trigger.tenant_id}"}}
      - name: agreed
        approval: {role: operator}
        deadline_s: 86400
      - name: paid
        wait_for: {event: invoice.paid.v1, key: "${event.tenant_id}"}
      - name: settle-down
        timer: {after_s: 60}

A step without `depends_on` begins when the one before it has succeeded; `depends_on: []` at once. Steps
that do not depend on each other are done side by side. Every command says how it is undone, or
`compensation: none` if it leaves nothing behind.
"""

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flotilla.errors import Rejected
from flotilla.workflow.expressions import Json

STEPS_MAX = 64
NAME = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"
DAYS_400_S = 400 * 86_400

Name = Annotated[str, Field(pattern=NAME)]
Seconds = Annotated[float, Field(gt=0, le=DAYS_400_S)]


class DefinitionInvalid(Rejected):
    """A definition that cannot work; the message names every mistake and its place."""

    default_code = "workflow-invalid"


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Retries(_Shape):
    """How often one attempt is asked for while its outcome is not known, and the pauses between."""

    tries_max: Annotated[int, Field(ge=1, le=100)] = 5
    backoff_s: Seconds = 0.5
    """Before the second try; twice as long before each further one."""
    backoff_max_s: Seconds = 60.0


class Call(_Shape):
    """A contract command and its fields; `timeout_s` is what one try may take."""

    command: Annotated[str, Field(pattern=r"^cmd\.[^.\s]+\.[^.\s]+$")]
    parameters: dict[str, Any] = Field(default={}, alias="with")
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    retries: Retries = Retries()


class Timer(_Shape):
    """A pause. It is over though nobody was there to see it end."""

    after_s: Seconds


class WaitFor(_Shape):
    """Something that happens elsewhere. `key` says, from the event, whose instance it belongs to.

    An event that comes before its step has begun is kept for it.
    """

    event: Annotated[str, Field(pattern=r"^[^.\s]+\.[^.\s]+\.v[1-9][0-9]*$")]
    key: str


class Approval(_Shape):
    """A person's yes or no. `role` says whose, for whoever shows it and lets them answer."""

    role: Name


class Step(_Shape):
    """One thing to do: exactly one of `command`, `timer`, `wait_for`, `approval`.

    After `deadline_s` nothing more is waited for or tried.
    """

    name: Name
    depends_on: tuple[Name, ...] | None = None
    deadline_s: Seconds | None = None
    command: str | None = None
    parameters: dict[str, Any] = Field(default={}, alias="with")
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    retries: Retries = Retries()
    compensation: Call | Literal["none"] | None = None
    timer: Timer | None = None
    wait_for: WaitFor | None = None
    approval: Approval | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        kinds = [k for k in ("command", "timer", "wait_for", "approval") if getattr(self, k)]
        if len(kinds) != 1:
            raise ValueError("a step is one of command, timer, wait_for, approval")
        if (
            not self.command
            and {"parameters", "retries", "compensation", "timeout_s"} & self.model_fields_set
        ):
            raise ValueError("with, timeout_s, retries and compensation belong to a command")
        return self

    @cached_property
    def call(self) -> Call | None:
        """What it asks for."""
        if self.command is None:
            return None
        return Call(
            command=self.command,
            parameters=self.parameters,
            timeout_s=self.timeout_s,
            retries=self.retries,
        )

    @property
    def undo(self) -> Call | None:
        """What takes it back; None when it leaves nothing behind."""
        return self.compensation if isinstance(self.compensation, Call) else None


class Schedule(_Shape):
    """Times at which it starts, by a clock on somebody's wall."""

    cron: str
    timezone: str = "UTC"


class Trigger(_Shape):
    """What starts it: exactly one of a command of that name, an event, a schedule."""

    command: Name | None = None
    input: tuple[str, ...] = ()
    """The fields that a starting command brings."""
    event: Annotated[str, Field(pattern=r"^[^.\s]+\.[^.\s]+\.v[1-9][0-9]*$")] | None = None
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
    description: str = ""
    trigger: Trigger
    key: str
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=STEPS_MAX)]

    @cached_property
    def hash(self) -> str:
        """What tells this content from any other."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:32]

    @cached_property
    def by_name(self) -> dict[str, Step]:
        """Its steps."""
        return {step.name: step for step in self.steps}

    @cached_property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """What each step waits for directly."""
        before: tuple[str, ...] = ()
        found: dict[str, tuple[str, ...]] = {}
        for step in self.steps:
            found[step.name] = before if step.depends_on is None else step.depends_on
            before = (step.name,)
        return found

    @cached_property
    def needs_all(self) -> dict[str, frozenset[str]]:
        """What each step waits for, directly or not: what it may refer to."""
        found: dict[str, frozenset[str]] = {}
        for step in self.steps:
            seen: set[str] = set()
            waiting = list(self.needs[step.name])
            while waiting:
                name = waiting.pop()
                if name not in seen:
                    seen.add(name)
                    waiting += self.needs.get(name, ())
            found[step.name] = frozenset(seen)
        return found

    def known_as(self, content: str) -> Self:
        """Return this definition under the hash that it was published with."""
        self.__dict__["hash"] = content
        return self

    def awaits(self, event: str) -> tuple[Step, ...]:
        """Return the steps that wait for events of this type."""
        return tuple(s for s in self.steps if s.wait_for and s.wait_for.event == event)

    def to_json(self) -> str:
        """Return what `definition_from` reads; the same content is the same text."""
        content = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
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
