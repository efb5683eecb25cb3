"""What a changed schema means for those who hold messages of the old shape: the rules, and a verdict.

A change lets *less* through than before (narrowed), *more* (widened), or something else (replaced);
or a field is added, removed, or means something else when it is left out. Whom that breaks depends
on who reads and who writes (`docs/compatibility.md` says why, with examples):

    kind             who has the old shape                       breaks when
    event            our own store, for ever                     narrowed, removed, replaced, redefined
    command, query   callers; we read what they write            narrowed, removed, replaced
    reply, problem   callers; they read what we write            widened, removed, replaced
    envelope         the broker's stream, and other readers      any of these

A field that is added and required is *narrowed* (old messages lack it), except for those who only
read what we write. One that is added and optional breaks nobody. Everything here is pure: two JSON
Schemas in, differences out. A keyword that nobody taught it to judge is never passed over: a change
of it is a replacement.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any

from flotilla_contracts.shape import ANNOTATIONS, Shape, alternatives

type Schema = Mapping[str, Any]


class Kind(StrEnum):
    """What a schema describes, and so who depends on it."""

    EVENT = "event"
    COMMAND = "command"
    QUERY = "query"
    REPLY = "reply"
    ENVELOPE = "envelope"
    PROBLEM = "problem"


class Change(Enum):
    """What happened to what a schema lets through."""

    NARROWED = auto()
    WIDENED = auto()
    REPLACED = auto()
    REMOVED = auto()
    ADDED = auto()
    """An optional field; nobody has to know it."""
    ADDED_REQUIRED = auto()
    REDEFINED = auto()
    """The same messages, with another meaning: the default of a field that is left out."""


_READ_BY_US = {Change.NARROWED, Change.ADDED_REQUIRED, Change.REMOVED, Change.REPLACED}
_WRITTEN_BY_US = {Change.WIDENED, Change.REMOVED, Change.REPLACED}
BREAKS: dict[Kind, set[Change]] = {
    Kind.EVENT: _READ_BY_US | {Change.REDEFINED},
    Kind.COMMAND: _READ_BY_US,
    Kind.QUERY: _READ_BY_US,
    Kind.REPLY: _WRITTEN_BY_US,
    Kind.PROBLEM: _WRITTEN_BY_US,
    Kind.ENVELOPE: _READ_BY_US | _WRITTEN_BY_US | {Change.REDEFINED},
}
"""The rules, as one table."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One change. `path` is the field (`items[].value`), empty for the whole; `cure` what to do."""

    path: str
    what: str
    cure: str
    is_breaking: bool


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    change: Change
    what: str


def differences(kind: Kind, old: Schema, new: Schema) -> list[Difference]:
    """Return every change from `old` to `new`, judged by the rules for `kind`."""
    found = _compare("", Shape.of(old), Shape.of(new), frozenset())
    return [
        Difference(
            f.path, f.what, cure_of(kind, name_of(old)) if breaks else _harmless(kind, f), breaks
        )
        for f in found
        for breaks in (f.change in BREAKS[kind],)
    ]


def name_of(schema: Schema) -> str:
    """Return what a schema is called: the end of its `$id`, or its title."""
    return str(schema.get("$id", schema.get("title", "it"))).rsplit(":", 1)[-1]


def cure_of(kind: Kind, name: str) -> str:
    """Return what to do instead of breaking the message `name`."""
    match kind:
        case Kind.EVENT:
            return f"put it back, and add {_next_version(name)} and an upcaster"
        case Kind.COMMAND | Kind.QUERY:
            return f"put it back; make what is new optional, or ask it with a new {kind}"
        case Kind.REPLY:
            return "put it back; add an optional field beside it, or answer with a new reply"
        case Kind.PROBLEM:
            return "put it back; or release it as a new version, and tell its readers first"
        case Kind.ENVELOPE:
            return "put it back, and add an optional attribute beside it"


def _harmless(kind: Kind, found: _Found) -> str:
    if kind is Kind.ENVELOPE and found.change is Change.ADDED:
        return "nothing to change; deploy readers before the relay: older ones refuse attributes"
    return "nothing: it is compatible"


def _next_version(event_type: str) -> str:
    stem, dot_v, number = event_type.rpartition(".v")
    return f"{stem}.v{int(number) + 1}" if dot_v and number.isdigit() else f"{event_type}.v2"


# How two shapes differ.


def _compare(path: str, old: Shape, new: Shape, seen: frozenset[tuple[str, str]]) -> list[_Found]:
    """Compare what two shapes let through; `seen` holds the definitions that we are inside of."""
    if old.reference and new.reference:
        if (old.reference, new.reference) in seen:
            return []
        seen |= {(old.reference, new.reference)}
    return _compare_alternatives(path, alternatives(old), alternatives(new), seen)


def _compare_alternatives(
    path: str, old: list[Shape], new: list[Shape], seen: frozenset[tuple[str, str]]
) -> list[_Found]:
    """Pair what is most alike; what is left over was taken away or came in, unless it is covered."""
    open_old, open_new, found = list(old), list(new), list[_Found]()
    costs = sorted(
        (
            (len(news), i, j, news)
            for i, one in enumerate(old)
            for j, other in enumerate(new)
            if one.is_like(other)
            for news in (_compare_one(path, one, other, seen),)
        ),
        key=lambda cost: cost[:3],
    )
    for _cost, i, j, news in costs:
        if any(old[i] is s for s in open_old) and any(new[j] is s for s in open_new):
            open_old = [s for s in open_old if s is not old[i]]
            open_new = [s for s in open_new if s is not new[j]]
            found += news
    lost = [one for one in open_old if not _covered(one, new, seen)]
    won = [other for other in open_new if not _covers_nothing_new(other, old, seen)]
    was, now = (" or ".join(s.type for s in side) for side in (lost, won))
    if lost and won:
        found.append(_Found(path, Change.REPLACED, f"changed its type from {was} to {now}"))
    elif lost:
        found.append(_Found(path, Change.NARROWED, f"may no longer be {was}"))
    elif won:
        found.append(_Found(path, Change.WIDENED, f"may now also be {now}"))
    return found


def _covered(one: Shape, by: list[Shape], seen: frozenset[tuple[str, str]]) -> bool:
    harmless = {Change.WIDENED, Change.ADDED}
    return any(
        one.fits_into(other)
        and all(f.change in harmless for f in _compare_one("", one, other, seen))
        for other in by
    )


def _covers_nothing_new(other: Shape, old: list[Shape], seen: frozenset[tuple[str, str]]) -> bool:
    harmless = {Change.NARROWED, Change.ADDED, Change.ADDED_REQUIRED}
    return any(
        other.fits_into(one)
        and all(f.change in harmless for f in _compare_one("", one, other, seen))
        for one in old
    )


def _compare_one(
    path: str, old: Shape, new: Shape, seen: frozenset[tuple[str, str]]
) -> list[_Found]:
    """Compare two shapes of like types: every keyword of either is looked at."""
    found = [
        *_compare_values(path, old.values, new.values),
        *_compare_constraints(path, old, new),
        *_compare_fields(path, old, new, seen),
    ]
    if old.type != new.type and not (old.values or new.values):
        change = Change.WIDENED if old.fits_into(new) else Change.NARROWED
        found.append(_Found(path, change, f"was {old.type}, and is {new.type}"))
    for key, mark in (("items", "[]"), ("additionalProperties", "{}"), ("propertyNames", "{name}")):
        if key in old.schema or key in new.schema:
            found += _compare_inner(f"{path}{mark}", old.inner(key), new.inner(key), seen)
    places = (old.places(), new.places())
    if len(places[0]) != len(places[1]):
        what = f"has {len(places[1])} places, and had {len(places[0])}"
        found.append(_Found(path, Change.REPLACED, what))
    else:
        for number, (was, now) in enumerate(zip(*places, strict=True)):
            found += _compare(f"{path}[{number}]", was, now, seen)
    return found


def _compare_inner(
    path: str, old: Shape | None, new: Shape | None, seen: frozenset[tuple[str, str]]
) -> list[_Found]:
    """Compare what may be inside; None is a door that is shut (`false`)."""
    if old is None or new is None:
        if old is new:
            return []
        shut = new is None
        change = Change.NARROWED if shut else Change.WIDENED
        return [_Found(path, change, "is now refused" if shut else "was refused, and is now taken")]
    return _compare(path, old, new, seen)


def _compare_values(path: str, old: list[str] | None, new: list[str] | None) -> Iterator[_Found]:
    """Compare `enum` and `const`; None takes every value."""
    if old is None and new is not None:
        yield _Found(path, Change.NARROWED, f"may only be {', '.join(new)} now")
    elif old is not None and new is None:
        yield _Found(path, Change.WIDENED, f"may be more than {', '.join(old)} now")
    elif old is not None and new is not None:
        if gone := [value for value in old if value not in new]:
            yield _Found(path, Change.NARROWED, f"may no longer be {', '.join(gone)}")
        if come := [value for value in new if value not in old]:
            yield _Found(path, Change.WIDENED, f"may now also be {', '.join(come)}")


_LOWER = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_UPPER = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
_NO_CONSTRAINT: dict[str, object] = {
    "minLength": 0, "minItems": 0, "minProperties": 0, "uniqueItems": False,
}  # fmt: skip
_JUDGED_ELSEWHERE = {
    *("type", "enum", "const", "properties", "required", "items", "prefixItems"),
    *("additionalProperties", "propertyNames"),
}


def _compare_constraints(path: str, old: Shape, new: Shape) -> Iterator[_Found]:
    """Compare bounds and patterns, and whatever else is there that nobody taught us to judge."""
    for key in sorted((old.schema.keys() | new.schema.keys()) - ANNOTATIONS - _JUDGED_ELSEWHERE):
        was, now = (side.schema.get(key, _NO_CONSTRAINT.get(key)) for side in (old, new))
        if "$ref" in _text([was, now]) and old.definitions != new.definitions:
            what = f"{key} refers to what may have changed: write it in place to have it judged"
            yield _Found(path, Change.REPLACED, what)
        elif _text(was) != _text(now):
            what = f"{key} was {_text(was)}, and is {_text(now)}"
            yield _Found(path, _direction(key, was, now), what)


def _direction(key: str, was: Any, now: Any) -> Change:
    if was is None or (key == "uniqueItems" and now):
        return Change.NARROWED
    if now is None or key == "uniqueItems":
        return Change.WIDENED
    if key in _LOWER:
        return Change.NARROWED if now > was else Change.WIDENED
    if key in _UPPER:
        return Change.NARROWED if now < was else Change.WIDENED
    return Change.REPLACED


def _compare_fields(
    path: str, old: Shape, new: Shape, seen: frozenset[tuple[str, str]]
) -> Iterator[_Found]:
    was, now = old.fields(), new.fields()
    for name in sorted(was.keys() | now.keys()):
        where = f"{path}.{name}" if path else name
        required_before, required = name in old.required, name in new.required
        if name not in now:
            what = "the field is gone (or was renamed, which is the same)"
            yield _Found(where, Change.REMOVED, what)
        elif name not in was:
            change = Change.ADDED_REQUIRED if required else Change.ADDED
            yield _Found(where, change, f"a new field, {'required' if required else 'optional'}")
        else:
            if required and not required_before:
                yield _Found(where, Change.NARROWED, "was optional, and is required")
            if required_before and not required:
                yield _Found(where, Change.WIDENED, "was required, and is optional")
            if not (required or required_before):
                yield from _compare_defaults(where, was[name].schema, now[name].schema)
            yield from _compare(where, was[name], now[name], seen)


def _compare_defaults(path: str, old: Schema, new: Schema) -> Iterator[_Found]:
    was, now = (_text(side.get("default")) for side in (old, new))
    if was != now:
        yield _Found(path, Change.REDEFINED, f"means {now} when left out, and meant {was}")


def _text(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
