"""A workflow: commands over several services, in an order, with what undoes them."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from flotilla_platform.model.part import (
    EnvironmentRef,
    EventTypeName,
    Name,
    OwnerRef,
    OwnName,
    Part,
    ServiceRef,
    Summary,
)

REFERENCE = re.compile(r"\$\{([^}]*)\}")
RESULT = re.compile(r"steps\.([a-z][a-z0-9-]*)\.result\.[A-Za-z_]\w*")
TRIGGER = re.compile(r"trigger\.[A-Za-z_]\w*")


def _scalar(value: Any) -> str | int | float | bool:
    if not isinstance(value, str | int | float | bool):
        raise PydanticCustomError("scalar_type", "a text, a number, true or false is expected")
    return value


Value = Annotated[
    Any,
    AfterValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
    Field(examples=["${trigger.counter_id}"]),
]
"""A constant, or a text with `${trigger.<field>}` and `${steps.<step>.result.<field>}` in it."""

Seconds = Annotated[float, Field(gt=0, le=31_622_400, examples=[30])]


class Call(Part):
    """A command to a service."""

    service: ServiceRef
    command: Annotated[Name, Field(examples=["increment"])]
    parameters: Annotated[
        dict[str, Value],
        Field(
            description="The fields of the command: constants, or what the trigger or earlier steps"
            " have.",
            examples=["{ counter_id: '${trigger.counter_id}', by: 5 }"],
        ),
    ] = Field(default_factory=dict)


class Schedule(Part):
    """Times at which a workflow starts."""

    cron: Annotated[
        str,
        Field(
            pattern=r"^\S+( \S+){4}$",
            max_length=100,
            description="Minute, hour, day of the month, month, day of the week.",
            examples=["'0 3 * * *'"],
        ),
    ]
    time_zone: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_]+(/[A-Za-z0-9_+-]+)*$",
            description="Whose clock it is, by its IANA name.",
            examples=["Europe/Vienna"],
        ),
    ] = "UTC"


class TriggerCommand(Part):
    """A command that a service takes."""

    service: ServiceRef
    command: Annotated[Name, Field(examples=["reset"])]


class Trigger(Part):
    """What starts it: exactly one of these."""

    command: Annotated[
        TriggerCommand | None, Field(examples=["{ service: counter, command: reset }"])
    ] = None
    event: Annotated[EventTypeName | None, Field(examples=["counter.opened.v1"])] = None
    schedule: Annotated[Schedule | None, Field(examples=["{ cron: '0 3 * * *' }"])] = None


class Retries(Part):
    """How often a step is tried, and how long between: twice as long each time, with jitter."""

    attempts_max: Annotated[int, Field(ge=1, le=100, examples=[5])] = 5
    backoff_first_s: Annotated[Seconds, Field(description="After the first attempt.")] = 1.0
    backoff_max_s: Annotated[Seconds, Field(description="At most, however often.")] = 60.0


class WaitFor(Part):
    """An event that must come before it goes on."""

    event: EventTypeName
    where: Annotated[
        dict[str, Value],
        Field(
            description="What fields of the event must be.",
            examples=["{ counter_id: '${trigger.counter_id}' }"],
        ),
    ] = Field(default_factory=dict)


class Approval(Part):
    """A person who must agree before it goes on."""

    by: OwnerRef


class Step(Part):
    """One thing that is done or awaited: exactly one of call, wait_for, timer_s and approval."""

    name: Annotated[Name, Field(examples=["reserve"])]
    call: Annotated[Call | None, Field(examples=["{ service: counter, command: increment }"])] = (
        None
    )
    wait_for: Annotated[WaitFor | None, Field(examples=["{ event: counter.reset.v1 }"])] = None
    timer_s: Annotated[Seconds | None, Field(description="How long it waits.", examples=[3600])] = (
        None
    )
    approval: Annotated[Approval | None, Field(examples=["{ by: fleet-team }"])] = None
    depends_on: Annotated[
        tuple[Annotated[Name, Field(examples=["reserve"])], ...],
        Field(description="The steps that must be done before.", examples=["[reserve]"]),
    ] = ()
    timeout_s: Annotated[
        Seconds | None,
        Field(
            description="How long it may take, attempts and pauses included; null: a call a minute,"
            " and who waits for an event or a person waits until they come."
        ),
    ] = None
    retries: Annotated[Retries, Field(examples=["{ attempts_max: 5 }"])] = Retries()
    compensation: Annotated[
        Call | None,
        Field(
            description="What undoes it when a later step fails. `null`, written, says that there is"
            " nothing to undo.",
            examples=["{ service: counter, command: decrement }"],
        ),
    ] = None

    @property
    def actions(self) -> tuple[str, ...]:
        """Return which of its kinds it is; a step without mistakes is of exactly one."""
        kinds = ("call", "wait_for", "timer_s", "approval")
        return tuple(kind for kind in kinds if getattr(self, kind) is not None)


class Workflow(Part):
    """Commands over several services, each done once, or undone."""

    name: OwnName
    summary: Summary
    version: Annotated[
        int,
        Field(ge=1, description="Raise it with every change; what runs ends as it began."),
    ]
    owner: Annotated[OwnerRef, Field(description="Who is told when it is stuck.")]
    trigger: Annotated[Trigger, Field(examples=["{ event: counter.opened.v1 }"])]
    idempotency_key: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            description="What makes two starts one.",
            examples=["'${trigger.counter_id}'"],
        ),
    ]
    environments: Annotated[
        tuple[EnvironmentRef, ...],
        Field(description="Where it runs; empty: everywhere.", examples=["[staging]"]),
    ] = ()
    steps: Annotated[
        tuple[Step, ...],
        Field(
            min_length=1,
            max_length=100,
            examples=["[{ name: count, call: { service: counter, command: increment } }]"],
        ),
    ]
