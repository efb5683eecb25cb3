"""Whether a definition can work, told before anything runs: every mistake at once, each with its place.

What is checked: that commands and events are in the contract, that their fields exist, are all given and
have values that the contract allows; that references lead to something that is there by then; that every
command says how it is undone; that nobody waits for itself. What a reference will hold is not known yet.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from flotilla.workflow.definition import Call, Definition, DefinitionInvalid, Step, WaitFor
from flotilla.workflow.expressions import Json, Path, references, untied

ALWAYS = ("key", "name")
"""What `${workflow.…}` has."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What may be asked and what happens: the contract's models, by subject and by type."""

    commands: Mapping[str, type[BaseModel]]
    replies: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    events: Mapping[str, type[BaseModel]] = field(default_factory=dict)

    @classmethod
    def of(cls, commands: Iterable[Any], events: Iterable[Any]) -> Self:
        """Return that of commands with a `subject` and a `reply`, and of events with a `type`."""
        asked = {command.subject: command for command in commands}
        replies = {subject: command.reply for subject, command in asked.items()}
        return cls(asked, replies, {event.type: event for event in events})


def check(definition: Definition, contract: Contract) -> None:
    """Raise `DefinitionInvalid` with every mistake; return when there is none."""
    if found := list(mistakes(definition, contract)):
        told = "; ".join(found)
        raise DefinitionInvalid(f"{definition.name} v{definition.version}: {told}")


def mistakes(definition: Definition, contract: Contract) -> Iterator[str]:
    """Yield every mistake in words: where it is, and what to do."""
    names = [step.name for step in definition.steps]
    yield from (f"steps.{name} is there twice" for name in _twice(names))
    for step in definition.steps:
        for needed in step.depends_on:
            if needed not in definition.by_name:
                yield f"steps.{step.name}.depends_on: {_unknown('step', needed, names)}"
    circle = [step for step in names if step in definition.needs_all[step]]
    if circle:
        yield f"these wait for each other, so none ever begins: {', '.join(circle)}"
    trigger = definition.trigger
    if trigger.event and trigger.event not in contract.events:
        yield f"trigger.event: {_unknown('event', trigger.event, contract.events)}"
    if trigger.command and trigger.command.subject not in contract.commands:
        yield f"trigger.command: {_unknown('command', trigger.command.subject, contract.commands)}"
    yield from _Scope(definition, contract, None).check(
        "idempotency_key", definition.idempotency_key
    )
    for step in definition.steps:
        yield from _step(definition, contract, step)


def _step(definition: Definition, contract: Contract, step: Step) -> Iterator[str]:
    where, scope = f"steps.{step.name}", _Scope(definition, contract, step)
    if step.call:
        yield from _call(f"{where}.call", step.call, scope)
        if not step.says_how_it_is_undone:
            yield (
                f"{where}.compensation is missing: say which command takes this back, or write"
                " `compensation: null` if it leaves nothing behind"
            )
    if step.compensation:
        after = _Scope(definition, contract, step, own=True)
        yield from _call(f"{where}.compensation", step.compensation, after)
    if step.wait_for:
        yield from _wait_for(f"{where}.wait_for", step.wait_for, scope)


def _wait_for(where: str, wait: WaitFor, scope: "_Scope") -> Iterator[str]:
    model = scope.contract.events.get(wait.event)
    if model is None:
        yield f"{where}.event: {_unknown('event', wait.event, scope.contract.events)}"
        return
    for name, value in wait.where.items():
        if why := _missing(name, model):
            yield f"{where}.where: {why}"
        yield from scope.check(f"{where}.where.{name}", value)
    for reference in untied(scope.definition.idempotency_key, wait.where):
        yield (
            f"{where}.where: nothing says which field of {wait.event} is {reference}, and without that"
            " nobody knows whose event it is"
        )


def _call(where: str, call: Call, scope: "_Scope") -> Iterator[str]:
    model = scope.contract.commands.get(call.subject)
    if model is None:
        yield f"{where}: {_unknown('command', call.subject, scope.contract.commands)}"
        return
    fields = model.model_fields
    for name, value in call.parameters.items():
        if name not in fields:
            yield f"{where}.parameters: {_unknown('field of ' + call.subject, name, fields)}"
            continue
        found = list(scope.check(f"{where}.parameters.{name}", value))
        yield from found
        if not found and not list(references(value)) and (why := _not_allowed(fields[name], value)):
            yield f"{where}.parameters.{name}: {why}"
    for name, info in fields.items():
        if info.is_required() and name not in call.parameters:
            yield f"{where}.parameters: {call.subject} needs {name!r}"


@dataclass(frozen=True, slots=True)
class _Scope:
    """What may be referred to at one place: `own`: the step's own result as well."""

    definition: Definition
    contract: Contract
    step: Step | None
    own: bool = False

    def check(self, where: str, value: Json) -> Iterator[str]:
        """Yield what is wrong with the references in `value`."""
        try:
            found = list(references(value))
        except ValueError as error:
            yield f"{where}: {error}"
            return
        for path in found:
            if why := self._why_not(path):
                yield f"{where}: ${{{'.'.join(path)}}}: {why}"

    def _why_not(self, path: Path) -> str | None:  # noqa: PLR0911 - a case a root
        trigger = self.definition.trigger
        match path:
            case ("trigger", name, *_) if trigger.command:
                return _missing(name, self.contract.commands.get(trigger.command.subject))
            case ("trigger", name, *_) if trigger.event:
                return _missing(name, self.contract.events.get(trigger.event))
            case ("trigger", name, *_):
                return None if name == "at" else "a schedule brings `at` and nothing else"
            case ("workflow", name) if self.step:
                return None if name in ALWAYS else _unknown("field of workflow", name, ALWAYS)
            case ("steps", name, "result", *rest) if self.step:
                return self._result(self.step, name, rest)
            case ("steps", *_) if self.step:
                return "write ${steps.<name>.result.<field>}"
            case _:
                roots = "trigger, steps, workflow" if self.step else "trigger"
                return f"there is no {path[0]!r} here, but {roots}"

    def _result(self, step: Step, name: str, rest: list[str]) -> str | None:
        other = self.definition.by_name.get(name)
        if other is None:
            return _unknown("step", name, self.definition.by_name)
        if not (name in self.definition.needs_all[step.name] or (self.own and other is step)):
            return f"{step.name} does not wait for {name}: name it in depends_on"
        if not rest:
            return None
        if other.call:
            return _missing(rest[0], self.contract.replies.get(other.call.subject))
        if other.wait_for:
            return _missing(rest[0], self.contract.events.get(other.wait_for.event))
        return None if other.approval and rest == ["by"] else f"{name} has no result {rest[0]!r}"


def _missing(name: str, model: type[BaseModel] | None) -> str | None:
    """Return what is wrong with a field of a model; of an unknown model nothing is known."""
    if model is None or name in model.model_fields:
        return None
    return _unknown(f"field of {model.__name__}", name, model.model_fields)


def _not_allowed(info: FieldInfo, value: Any) -> str | None:
    kind: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)[0]["msg"]
    return None


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    listed = sorted(known)
    close = difflib.get_close_matches(name, listed, n=1)
    cure = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(listed) or 'none'}"
    return f"there is no {what} {name!r}: {cure}"


def _twice(names: Iterable[str]) -> list[str]:
    listed = list(names)
    return sorted({name for name in listed if listed.count(name) > 1})
