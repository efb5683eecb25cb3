"""Values that are computed from a workflow's trigger and the results of earlier steps.

    ${trigger.order_id}     ${steps.reserve.result.counter_id}     welcome-${trigger.name}

A text that is one reference stands for the value itself, whatever it is; a reference within a text for
its text. There is nothing else: no arithmetic, no condition, no clock. So a parameter is the same each
time it is computed, and a command that is asked again has the same content under the same key.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

type Json = bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")

type Path = tuple[str, ...]
"""`("steps", "reserve", "result", "counter_id")`."""


class ReferenceMissing(Exception):
    """What an expression refers to is not there; the message says what is."""


def references(value: Json) -> Iterator[Path]:
    """Yield every reference in a value.

    Raises:
        ValueError: one is not written `${root.field}`.

    """
    match value:
        case str():
            for found in _REFERENCE.finditer(value):
                yield _path(found[1])
            if "${" in _REFERENCE.sub("", value):
                raise ValueError(f"{value!r}: a reference begins with ${{ and does not end")
        case Sequence():
            for item in value:
                yield from references(item)
        case Mapping():
            for item in value.values():
                yield from references(item)


def evaluate(value: Json, scope: Mapping[str, Json]) -> Json:
    """Return `value` with every reference replaced by what it stands for in `scope`.

    Raises:
        ReferenceMissing: there is nothing there.

    """
    match value:
        case str():
            if whole := _REFERENCE.fullmatch(value):
                return _look_up(_path(whole[1]), scope)
            return _REFERENCE.sub(lambda found: _text(_look_up(_path(found[1]), scope)), value)
        case Sequence():
            return [evaluate(item, scope) for item in value]
        case Mapping():
            return {name: evaluate(item, scope) for name, item in value.items()}
        case _:
            return value


def correlated(key: str, where: Mapping[str, Json]) -> str:
    """Return `key`, which is about the trigger, as one about an event of which `where` holds.

    `${trigger.order_id}` is `${trigger.order}` to an event with `where: {order: "${trigger.order_id}"}`.
    What `where` does not tie to the event stays; `untied` says what that is.
    """
    fields = {value: name for name, value in where.items() if isinstance(value, str)}
    return _REFERENCE.sub(
        lambda found: f"${{trigger.{fields[found[0]]}}}" if found[0] in fields else found[0], key
    )


def untied(key: str, where: Mapping[str, Json]) -> list[str]:
    """Return the references of `key` that `where` says nothing about."""
    tied = {value for value in where.values() if isinstance(value, str)}
    return [found[0] for found in _REFERENCE.finditer(key) if found[0] not in tied]


def _path(text: str) -> Path:
    if not _PATH.fullmatch(text.strip()):
        raise ValueError(
            f"${{{text}}} is not a reference: write ${{trigger.field}} or ${{steps.name.result.field}}"
        )
    return tuple(text.strip().split("."))


def _look_up(path: Path, scope: Mapping[str, Json]) -> Json:
    value: Json = dict(scope)
    for depth, part in enumerate(path):
        if not isinstance(value, Mapping) or part not in value:
            there = ", ".join(value) if isinstance(value, Mapping) else f"a {type(value).__name__}"
            where = ".".join(path[:depth]) or "here"
            raise ReferenceMissing(f"${{{'.'.join(path)}}}: {where} has no {part!r}, but {there}")
        value = value[part]
    return value


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)
