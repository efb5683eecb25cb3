"""Whether a definition can work, told before anything runs: every mistake at once, each with its place.

What is checked: that commands and events are in the contract, that their fields exist, are all given and
have values that the contract allows; that references lead to something that is there by then; that every
command says how it is undone; that nobody waits for itself. What a reference will hold is not known yet.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from flotilla.workflow.definition import Call, Definition, DefinitionInvalid, Step
from flotilla.workflow.expressions import Json, Path, references

ALWAYS = ("key", "name", "tenant")
"""What `${workflow.…}` has."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What may be asked and what happens: the contract's models, by subject and by type."""

    commands: Mapping[str, type[BaseModel]]
    replies: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    events: Mapping[str, type[BaseModel]] = field(default_factory=dict)


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
        for needed in step.depends_on or ():
            if needed not in definition.by_name:
                yield f"steps.{step.name}.depends_on: {_unknown('step', needed, names)}"
    circle = [step for step in names if step in definition.needs_all[step]]
    if circle:
        yield f"these wait for each other, so none ever begins: {', '.join(circle)}"
    event = definition.trigger.event
    if event and event not in contract.events:
        yield f"trigger.event: {_unknown('event', event, contract.events)}"
    yield from _Scope(definition, contract, None).check("key", definition.key)
    for step in definition.steps:
        yield from _step(definition, contract, step)


def _step(definition: Definition, contract: Contract, step: Step) -> Iterator[str]:
    where, scope = f"steps.{step.name}", _Scope(definition, contract, step)
    if step.call:
        yield from _call(where, step.call, scope)
        if step.compensation is None:
            yield (
                f"{where}.compensation is missing: say which command takes this back, or write"
                " `compensation: none` if it leaves nothing behind"
            )
        if step.undo:
            after = _Scope(definition, contract, step, own=True)
            yield from _call(f"{where}.compensation", step.undo, after)
    if step.wait_for:
        kind = step.wait_for.event
        if kind not in contract.events:
            yield f"{where}.wait_for.event: {_unknown('event', kind, contract.events)}"
        yield from _Scope(definition, contract, step, event=kind).check(
            f"{where}.wait_for.key", step.wait_for.key
        )


def _call(where: str, call: Call, scope: "_Scope") -> Iterator[str]:
    model = scope.contract.commands.get(call.command)
    if model is None:
        yield f"{where}.command: {_unknown('command', call.command, scope.contract.commands)}"
        return
    fields = model.model_fields
    for name, value in call.parameters.items():
        if name not in fields:
            yield f"{where}.with: {_unknown('field of ' + call.command, name, fields)}"
            continue
        found = list(scope.check(f"{where}.with.{name}", value))
        yield from found
        if not found and not list(references(value)) and (why := _not_allowed(fields[name], value)):
            yield f"{where}.with.{name}: {why}"
    for name, info in fields.items():
        if info.is_required() and name not in call.parameters:
            yield f"{where}.with: {call.command} needs {name!r}"


@dataclass(frozen=True, slots=True)
class _Scope:
    """What may be referred to at one place: `own` is the step's own result, `event` an event's type."""

    definition: Definition
    contract: Contract
    step: Step | None
    own: bool = False
    event: str | None = None

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
            case ("event", name, *_) if self.event:
                return _missing(name, self.contract.events.get(self.event))
            case _ if self.event:
                return "whose event it is can only be said from the event: ${event.field}"
            case ("trigger", name, *_) if trigger.command:
                return None if name in trigger.input else _unknown("input", name, trigger.input)
            case ("trigger", name, *_) if trigger.event:
                return _missing(name, self.contract.events.get(trigger.event))
            case ("trigger", name, *_):
                return None if name == "at" else "a schedule brings `at` and nothing else"
            case ("workflow", name) if self.step:
                return None if name in ALWAYS else _unknown("field of workflow", name, ALWAYS)
            case ("steps", name, *rest) if self.step:
                return self._result(self.step, name, rest)
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
        if other.command:
            return _missing(rest[0], self.contract.replies.get(other.command))
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
