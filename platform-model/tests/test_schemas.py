"""The JSON Schemas: fresh, right for every shipped file, and as strict as the reader."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from flotilla_platform.model import KINDS, KindName
from flotilla_platform.reading import find_model
from flotilla_platform.schemas import schema_of, stale_schemas

GOOD = Path(__file__).parent / "models" / "good"
SHIPPED = [
    (kind, file)
    for kind, one in KINDS.items()
    for file in sorted((find_model() / one.folder).glob("*.yaml"))
]


def content_of(file: Path) -> Any:
    return YAML(typ="safe", pure=True).load(file.read_text())


def test_they_are_fresh() -> None:
    assert stale_schemas(find_model()) == []


@pytest.mark.parametrize(("kind", "file"), SHIPPED, ids=lambda one: getattr(one, "stem", one))
def test_a_shipped_file_names_its_schema_and_fits_it(kind: KindName, file: Path) -> None:
    first = file.read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema=../schemas/{kind}.json"
    schema = json.loads((file.parent / first.partition("=")[2]).read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(content_of(file))


@pytest.mark.parametrize("file", sorted(GOOD.glob("*/*.yaml")), ids=lambda file: file.stem)
def test_the_models_of_the_tests_fit_too(file: Path) -> None:
    [kind] = [name for name, kind in KINDS.items() if kind.folder == file.parent.name]
    Draft202012Validator(schema_of(kind)).validate(content_of(file))


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_key_is_explained_or_shown(kind: KindName) -> None:
    schema = schema_of(kind)
    for part in (schema, *schema.get("$defs", {}).values()):
        assert part["description"]
        assert part["additionalProperties"] is False
        for name, key in part["properties"].items():
            said = "description" in key or "examples" in key or "$ref" in key
            assert said, f"{kind}: {part['title']}.{name} says neither what it is nor how it looks"


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_example_fits_its_key(kind: KindName) -> None:
    schema = schema_of(kind)
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, key in part["properties"].items():
            for example in key.get("examples", ()):
                validator = Draft202012Validator(key | {"$defs": schema.get("$defs", {})})
                errors = [error.message for error in validator.iter_errors(example)]
                assert errors == [], f"{kind}: {part['title']}.{name}: {example!r}"


@given(st.sampled_from(SHIPPED), st.text(min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_a_key_that_nobody_knows_fits_no_schema(one: tuple[KindName, Path], key: str) -> None:
    kind, file = one
    content = content_of(file)
    unknown = key not in KINDS[kind].type.model_fields
    fits = Draft202012Validator(schema_of(kind)).is_valid({**content, key: 1})
    assert not (unknown and fits)
