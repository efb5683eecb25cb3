"""From what pydantic found to what a person reads: where, what is wrong, what to write instead."""

import json
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from flotilla_platform.loading import (
    Document,
    Mistake,
    ModelInvalid,
    Steps,
    did_you_mean,
    suggest,
)

_UNIONS = (UnionType, Union)
"""`str | None` is the one, `Name | None` the other."""
_EXPECTED: Mapping[str, str] = {
    "string_type": "a text is expected",
    "tuple_type": "a list is expected",
    "model_type": "keys with values are expected",
    "model_attributes_type": "keys with values are expected",
    "string_pattern_mismatch": "this is not in the right form",
    "string_too_short": "this must not be empty",
    "too_short": "this must not be empty",
    "int_type": "a whole number is expected",
    "float_type": "a number is expected",
    "dict_type": "keys with values are expected",
    "greater_than_equal": "at least {ge} is expected",
    "greater_than": "more than {gt} is expected",
    "less_than_equal": "at most {le} is expected",
    "less_than": "less than {lt} is expected",
    "string_too_long": "at most {max_length} characters are expected",
    "too_long": "at most {max_length} entries are expected",
}


def validate[T: BaseModel](document: Document, kind: type[T]) -> T:
    """Return the document as a `kind`.

    Raises:
        ModelInvalid: with every mistake in it, in the order of the file.

    """
    try:
        # By way of JSON, because there strict validation knows that a list may be a tuple.
        return kind.model_validate_json(json.dumps(document.content))
    except ValidationError as error:
        mistakes = _explain(document, kind, error)
        raise ModelInvalid(sorted(mistakes, key=_place)) from error


def _place(mistake: Mistake) -> tuple[int, int]:
    return mistake.position.line, mistake.position.column


def _explain(
    document: Document, kind: type[BaseModel], error: ValidationError
) -> Iterator[Mistake]:
    details = error.errors(include_url=False)
    misspelt = {
        (*detail["loc"][:-1], meant)
        for detail in details
        if detail["type"] == "extra_forbidden"
        and (meant := did_you_mean(detail["loc"][-1], _keys(kind, detail["loc"][:-1])))
    }
    for detail in details:  # one mistake, one line
        steps = detail["loc"]
        told = detail["type"] == "missing" and steps in misspelt
        inner = (other["loc"] for other in details if len(other["loc"]) > len(steps))
        # pydantic calls a list too short whose items have mistakes
        told |= detail["type"] == "too_short" and any(i[: len(steps)] == steps for i in inner)
        if not told:
            yield _mistake(document, kind, detail)


def _mistake(document: Document, kind: type[BaseModel], detail: ErrorDetails) -> Mistake:
    steps: Steps = detail["loc"]
    key = str(steps[-1]) if steps else "this"
    example = _example(kind, steps)
    match detail["type"]:
        case "extra_forbidden":
            known = [k for k in _keys(kind, steps[:-1]) if (*steps[:-1], k) not in document.keys]
            return Mistake(
                document.at_key(*steps),
                f"there is no key {key!r} here",
                suggest(key, known) if known else "remove it",
            )
        case "missing":
            return Mistake(
                document.at(*steps[:-1]), f"the key {key!r} is missing", f"write `{key}: {example}`"
            )
        case "literal_error":
            wrong = f"{_shown(detail['input'])} is unknown here"
            choices = [str(choice) for choice in _choices(kind, steps)]
            return Mistake(document.at(*steps), wrong, suggest(detail["input"], choices))
        case other:
            told = _EXPECTED.get(other)
            expected = told.format(**detail.get("ctx", {})) if told else detail["msg"]
            return Mistake(
                document.at(*steps),
                f"{key}: {expected}, not {_shown(detail['input'])}",
                f"write for example `{example}`",
            )


def _shown(value: object) -> str:
    """Return a value as the YAML it was read from, cut where it gets long."""
    text = json.dumps(value, ensure_ascii=False)
    limit = 60
    return text if len(text) <= limit else f"{text[:limit]}…"


def _keys(kind: type[BaseModel], steps: Steps) -> list[str]:
    """Return the keys that may stand at `steps`."""
    inner, _ = _at(kind, steps)
    known = inner.model_fields if isinstance(inner, type) and issubclass(inner, BaseModel) else {}
    return list(known)


def _choices(kind: type[BaseModel], steps: Steps) -> tuple[object, ...]:
    inner, _ = _at(kind, steps)
    return get_args(inner) if get_origin(inner) is Literal else ()


def _example(kind: type[BaseModel], steps: Steps) -> str:
    _, example = _at(kind, steps)
    return example


def _at(kind: type[BaseModel], steps: Steps) -> tuple[Any, str]:
    """Return the type that is expected at `steps`, and an example of it."""
    inner: Any = kind
    example = "name: …"
    for step in steps:
        if isinstance(inner, type) and issubclass(inner, BaseModel) and step in inner.model_fields:
            found = inner.model_fields[str(step)]
            inner, example = _bare(found.annotation), _first(found, _of_item(found.annotation, "…"))
        elif get_origin(inner) is tuple:
            item = get_args(inner)[0]
            inner, example = _bare(item), _of_item(item, example)
        elif get_origin(inner) is dict:
            item = get_args(inner)[1]
            inner, example = _bare(item), _of_item(item, example)
        else:
            return None, "…"
    return inner, example


def _bare(annotation: Any) -> Any:
    """Return an annotation without what is around it: metadata, `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in _UNIONS:
        return _bare(next(kind for kind in get_args(annotation) if kind is not type(None)))
    return annotation


def _of_item(item: Any, otherwise: str) -> str:
    """Return an example of what a type says of itself: `Annotated[…]`, also within `… | None`."""
    around = [item, *(get_args(item) if get_origin(item) in _UNIONS else ())]
    marks = [mark for one in around for mark in getattr(one, "__metadata__", ())]
    examples = [m for m in marks if isinstance(m, FieldInfo) and m.examples]
    return _first(examples[-1], otherwise) if examples else otherwise


def _first(info: FieldInfo, otherwise: str) -> str:
    return str(info.examples[0]) if info.examples else otherwise
