"""Whether a workflow can be run: its steps come one after the other, and what they name is there."""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any
from zoneinfo import available_timezones

from flotilla_platform.defining import check_definition
from flotilla_platform.loading import Mistake, Steps, did_you_mean, suggest
from flotilla_platform.model import Call, Platform, Step, Workflow
from flotilla_platform.model.workflow import (
    REFERENCE,
    RESULT,
    TRIGGER,
    TriggerCommand,
)

_CRON = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))


def check_workflow(platform: Platform, workflow: Workflow) -> list[Mistake]:
    """Return what is wrong with a workflow, each mistake with its place."""
    found = [
        *_check_trigger(platform, workflow),
        *_check_steps(platform, workflow),
        *_check_order(workflow),
        *_check_values(workflow),
    ]
    if not found and not platform.unread:
        return check_definition(platform, workflow)
    return [
        Mistake(platform.at("workflow", workflow.name, *steps), wrong, instead)
        for steps, wrong, instead in found
    ]


type _Found = Iterator[tuple[Steps, str, str]]


def _check_trigger(platform: Platform, workflow: Workflow) -> _Found:
    trigger = workflow.trigger
    kinds = [k for k in ("command", "event", "schedule") if getattr(trigger, k) is not None]
    if len(kinds) != 1:
        said = f"it has {' and '.join(kinds)}" if kinds else "it has none"
        yield (
            ("trigger",),
            f"exactly one thing starts a workflow, and {said}",
            "keep one of: command, event, schedule",
        )
    if trigger.command:
        yield from _check_command(platform, trigger.command, ("trigger", "command"))
    if trigger.event:
        yield from _check_event(platform, trigger.event, ("trigger", "event"))
    if trigger.schedule:
        zone = trigger.schedule.time_zone
        if zone not in (zones := available_timezones()):
            steps = ("trigger", "schedule", "time_zone")
            meant = did_you_mean(zone, sorted(zones)) or "Europe/Vienna"
            yield steps, f"there is no time zone {zone!r}", f"did you mean {meant!r}?"
        for part, (unit, low, high) in zip(trigger.schedule.cron.split(" "), _CRON, strict=True):
            if not _is_cron(part, low, high):
                yield (
                    ("trigger", "schedule", "cron"),
                    f"{part!r} is no {unit}",
                    f"write `*`, or numbers from {low} to {high} with `,`, `-` and `/`",
                )


def _is_cron(part: str, low: int, high: int) -> bool:
    for item in part.split(","):
        span, slash, every = item.partition("/")
        first, dash, last = span.partition("-")
        numbers = [] if span == "*" else [first, last] if dash else [first]
        if slash and not (every.isascii() and every.isdecimal() and int(every) > 0):
            return False
        if not all(n.isascii() and n.isdecimal() and low <= int(n) <= high for n in numbers):
            return False
    return True


def _check_steps(platform: Platform, workflow: Workflow) -> _Found:
    names = [step.name for step in workflow.steps]
    awaited = {name for step in workflow.steps for name in step.depends_on}
    for index, step in enumerate(workflow.steps):
        at: Steps = ("steps", index)
        if step.name in names[:index]:
            yield (*at, "name"), f"there are two steps {step.name!r}", "rename one of them"
        for place, name in enumerate(step.depends_on):
            if name not in names:
                known = [other for other in names if other != step.name]
                yield (
                    (*at, "depends_on", place),
                    f"there is no step {name!r}",
                    suggest(name, known),
                )
        if step.call and step.name in awaited and "compensation" not in step.model_fields_set:
            yield (
                at,
                f"nothing undoes the step {step.name!r} when one after it fails",
                "write its `compensation`; `compensation: null` says that nothing is to undo",
            )
        yield from _check_step(platform, step, at)


def _check_step(platform: Platform, step: Step, at: Steps) -> _Found:
    if len(step.actions) != 1:
        said = f"has {' and '.join(step.actions)}" if step.actions else "does nothing"
        yield (
            at,
            f"the step {step.name!r} {said}",
            "keep one of: call, wait_for, timer_s, approval",
        )
    if step.call:
        yield from _check_command(platform, step.call, (*at, "call"))
    if step.compensation:
        yield from _check_command(platform, step.compensation, (*at, "compensation"))
    if step.wait_for:
        yield from _check_event(platform, step.wait_for.event, (*at, "wait_for", "event"))
    if step.retries.backoff_first_s > step.retries.backoff_max_s:
        yield (
            (*at, "retries"),
            "the first pause is longer than the longest",
            "write a backoff_max_s of at least backoff_first_s",
        )


def _check_command(platform: Platform, call: Call | TriggerCommand, at: Steps) -> _Found:
    service = platform.services.get(call.service)
    known = [command.name for command in service.commands] if service else []
    if service and call.command not in known:
        yield (
            (*at, "command"),
            f"the service {service.name!r} has no command {call.command!r}",
            suggest(call.command, known),
        )


def _check_event(platform: Platform, event: str, at: Steps) -> _Found:
    known = [event for service in platform.services.values() for event in service.events]
    if event not in known and not platform.unread:
        yield at, f"no service stores {event!r}", suggest(event, known)


def _check_order(workflow: Workflow) -> _Found:
    steps = {step.name: step for step in workflow.steps}
    graph = {n: [d for d in step.depends_on if d in steps] for n, step in steps.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        names = [step.name for step in workflow.steps]
        first = min(names.index(name) for name in cycle)
        ring = " → ".join(reversed(cycle))
        yield (
            ("steps", first, "depends_on"),
            f"these steps wait for each other: {ring}",
            "remove one of them from a depends_on",
        )


def _check_values(workflow: Workflow) -> _Found:
    steps = {step.name: step for step in workflow.steps}
    yield from _check_text(workflow.idempotency_key, ("idempotency_key",), set())
    for index, step in enumerate(workflow.steps):
        if not steps.keys() >= set(step.depends_on):
            continue  # told already; who knows what is done before it
        before = _before(step, steps)
        at: Steps = ("steps", index)
        values: dict[tuple[str, str], tuple[Mapping[str, Any], set[str]]] = {}
        if step.call:
            values["call", "parameters"] = step.call.parameters, before
        if step.compensation:
            own = before | {step.name}
            values["compensation", "parameters"] = step.compensation.parameters, own
        if step.wait_for:
            values["wait_for", "where"] = step.wait_for.where, before
        for keys, (given, known) in values.items():
            for key, value in given.items():
                yield from _check_text(value, (*at, *keys, key), known)


def _before(step: Step, steps: Mapping[str, Step]) -> set[str]:
    """Return the steps that are done before `step`, whatever happens."""
    found: set[str] = set()
    left = list(step.depends_on)
    while left:
        name = left.pop()
        if name in steps and name not in found:
            found.add(name)
            left += steps[name].depends_on
    return found - {step.name}


def _check_text(value: Any, at: Steps, known: set[str]) -> _Found:
    if not isinstance(value, str):
        return
    for reference in REFERENCE.findall(value):
        result = RESULT.fullmatch(reference)
        if result is None and not TRIGGER.fullmatch(reference):
            yield (
                at,
                f"`${{{reference}}}` refers to nothing",
                "write `${trigger.<field>}` or `${steps.<step>.result.<field>}`",
            )
        elif result is not None and result[1] not in known:
            yield (
                at,
                f"the step {result[1]!r} is not done before this",
                f"add it to depends_on, or {suggest(result[1], sorted(known))}"
                if known
                else "add it to depends_on",
            )
