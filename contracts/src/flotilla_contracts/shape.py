"""A JSON Schema as what it lets through: references followed, alternatives side by side."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

type Schema = Mapping[str, Any]

ANY = "anything"
ANNOTATIONS = {
    *("$id", "$schema", "$defs", "$comment", "title", "description", "examples", "deprecated"),
    *("readOnly", "writeOnly", "discriminator", "default"),
}
"""Keywords that let nothing through and hold nothing back."""
_TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    list: "array",
    dict: "object",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A schema with its definitions at hand. `reference` is the definition that it came from."""

    schema: Schema
    definitions: Schema
    reference: str = ""

    @classmethod
    def of(cls, document: Schema) -> "Shape":
        """Return the shape of a whole document."""
        return cls(document, document.get("$defs", {})).resolved()

    def at(self, schema: Schema | bool) -> "Shape":
        """Return the shape of a schema inside this one; `true` and `false` are schemas too."""
        inside = schema if isinstance(schema, Mapping) else {} if schema else {"not": {}}
        return Shape(inside, self.definitions).resolved()

    def resolved(self) -> "Shape":
        """Follow `$ref`, and an `allOf` whose parts do not contradict each other.

        Raises:
            ValueError: a reference leaves the document, or leads nowhere.

        """
        schema, reference, passed = dict(self.schema), self.reference, set[str]()
        while "$ref" in schema or _merged(schema) is not None:
            if (merged := _merged(schema)) is not None:
                schema = merged
                continue
            reference = str(schema.pop("$ref"))
            name = reference.removeprefix("#/$defs/")
            if name not in self.definitions or reference in passed:
                raise ValueError(f"{reference} leads nowhere: references go to #/$defs/<name>")
            passed.add(reference)
            schema = {**self.definitions[name], **schema}
        return Shape(schema, self.definitions, reference)

    @property
    def type(self) -> str:
        """What JSON calls it; `anything` when it does not say."""
        if kind := self.schema.get("type"):
            return str(kind)
        if self.values is not None:
            kinds = {_TYPES[type(json.loads(value))] for value in self.values}
            return " or ".join(sorted(kinds))
        return ANY

    @property
    def values(self) -> list[str] | None:
        """The values of `enum` or `const`, as JSON; None when any will do."""
        if "const" in self.schema:
            return [_json(self.schema["const"])]
        return [_json(value) for value in self.schema["enum"]] if "enum" in self.schema else None

    @property
    def required(self) -> frozenset[str]:
        """The fields that must be there."""
        return frozenset(self.schema.get("required", ()))

    def fields(self) -> dict[str, "Shape"]:
        """Return the fields by name, those that are required without being described included."""
        described = self.schema.get("properties", {})
        return {name: self.at(described.get(name, True)) for name in {*described, *self.required}}

    def inner(self, key: str) -> "Shape | None":
        """Return what a keyword that holds a schema lets through; None for `false`."""
        schema = self.schema.get(key, True)
        return None if schema is False else self.at(schema)

    def places(self) -> list["Shape"]:
        """Return the shapes of a tuple's places."""
        return [self.at(schema) for schema in self.schema.get("prefixItems", ())]

    def is_like(self, other: "Shape") -> bool:
        """Tell whether comparing the two keyword by keyword makes sense."""
        return self.type == other.type or self.fits_into(other) or other.fits_into(self)

    def fits_into(self, other: "Shape") -> bool:
        """Tell whether every value of this type is one of the other's type."""
        return other.type in {self.type, ANY} or (self.type, other.type) == ("integer", "number")


def alternatives(shape: Shape) -> list[Shape]:
    """Return the shapes of which a value has to have one: `anyOf`, `oneOf`, or a list of types."""
    for key in ("anyOf", "oneOf"):
        if key in shape.schema:
            rest = {name: value for name, value in shape.schema.items() if name != key}
            options = [shape.at(option) for option in shape.schema[key]]
            if any(_contradict(rest, option.schema) for option in options):
                break  # compared as it is written
            parts = [shape.at({**rest, **option.schema}) for option in options]
            named = [replace(p, reference=o.reference) for p, o in zip(parts, options, strict=True)]
            return [found for part in named for found in alternatives(part)]
    if isinstance(kinds := shape.schema.get("type"), list):
        return [replace(shape, schema={**shape.schema, "type": kind}) for kind in kinds]
    return [shape]


def _contradict(one: Schema, other: Schema) -> bool:
    return any(one[key] != other[key] for key in (one.keys() & other.keys()) - ANNOTATIONS)


def _merged(schema: Schema) -> dict[str, Any] | None:
    """Return a schema with its `allOf` folded in; None without one, or when parts contradict."""
    parts = schema.get("allOf")
    if not parts:
        return None
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in parts:
        if _contradict(merged, part):
            return None
        merged |= part
    return merged


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
