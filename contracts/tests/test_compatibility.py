"""Every rule of docs/compatibility.md: what breaks, what does not, and that the command tells."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from flotilla_contracts import compatibility, release
from flotilla_contracts.catalog import EVENTS
from flotilla_contracts.comparison import Kind, differences
from flotilla_contracts.compatibility import current, findings, kind_of, released

Schema = dict[str, Any]

OURS_TO_READ = {Kind.EVENT, Kind.COMMAND, Kind.QUERY, Kind.ENVELOPE}
OURS_TO_WRITE = {Kind.REPLY, Kind.PROBLEM, Kind.ENVELOPE}
TEXT, WHOLE, NULL = ({"type": kind} for kind in ("string", "integer", "null"))
ANY_PACE = settings(deadline=None)  # a busy machine is no failure
MODELS = {event.type: event for group in EVENTS.values() for event in group}


def an_object(*required: str, **properties: object) -> Schema:
    return {
        "$id": "urn:flotilla:schema:counter.incremented.v1",
        "type": "object",
        "properties": properties,
        "required": list(required),
    }


def broken(kind: Kind, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [d.path for d in differences(kind, old, new) if d.is_breaking]


# Fields.


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("required", [["by"], []])
def test_a_removed_field_breaks_everybody_and_its_cure_is_named(
    kind: Kind, required: list[str]
) -> None:
    old, new = an_object(*required, by=WHOLE, value=WHOLE), an_object(value=WHOLE)
    [found] = differences(kind, old, new)
    assert (found.path, found.is_breaking) == ("by", True)
    assert "gone" in found.what
    if kind is Kind.EVENT:
        assert found.cure == "put it back, and add counter.incremented.v2 and an upcaster"


@pytest.mark.parametrize("kind", Kind)
def test_a_renamed_field_breaks_everybody(kind: Kind) -> None:
    old, new = an_object("by", by=WHOLE), an_object("step", step=WHOLE)
    assert "by" in broken(kind, old, new)


@pytest.mark.parametrize("kind", Kind)
def test_a_new_field_breaks_those_whose_old_messages_lack_it(kind: Kind) -> None:
    old = an_object("by", by=WHOLE)
    required, optional = (
        an_object("by", "why", by=WHOLE, why=TEXT),
        an_object("by", by=WHOLE, why=TEXT),
    )
    assert broken(kind, old, required) == (["why"] if kind in OURS_TO_READ else [])
    assert broken(kind, old, optional) == []
    assert [d.path for d in differences(kind, old, optional)] == ["why"]


@pytest.mark.parametrize("kind", Kind)
def test_optional_and_required_break_one_side_each(kind: Kind) -> None:
    optional, required = an_object(by=WHOLE), an_object("by", by=WHOLE)
    assert broken(kind, optional, required) == (["by"] if kind in OURS_TO_READ else [])
    assert broken(kind, required, optional) == (["by"] if kind in OURS_TO_WRITE else [])


def test_another_default_rewrites_the_past_but_not_a_question() -> None:
    old, new = (an_object(limit={"type": "integer", "default": n}) for n in (50, 20))
    assert broken(Kind.EVENT, old, new) == ["limit"]
    assert broken(Kind.QUERY, old, new) == []
    assert [d.path for d in differences(Kind.QUERY, old, new)] == ["limit"]
    assert broken(Kind.EVENT, old, old) == []


# What a field may be: each pair lets less through on its right side.

NARROWER: list[tuple[Schema, Schema]] = [
    ({"enum": ["a", "b"]}, {"enum": ["a"]}),
    ({"enum": ["a", "b"], "type": "string"}, {"const": "a", "type": "string"}),
    (TEXT, {"type": "string", "enum": ["a"]}),
    (TEXT, {"type": "string", "pattern": "^a$"}),
    (TEXT, {"type": "string", "format": "date-time"}),
    (TEXT, {"type": "string", "minLength": 1}),
    ({"type": "string", "maxLength": 9}, {"type": "string", "maxLength": 8}),
    (TEXT, {"type": "string", "maxLength": 8}),
    (WHOLE, {"type": "integer", "minimum": 1}),
    ({"type": "integer", "minimum": 1}, {"type": "integer", "minimum": 2}),
    ({"type": "integer", "maximum": 9}, {"type": "integer", "maximum": 8}),
    ({"type": "number", "exclusiveMinimum": 1}, {"type": "number", "exclusiveMinimum": 2}),
    ({"type": "number", "exclusiveMaximum": 2}, {"type": "number", "exclusiveMaximum": 1}),
    (WHOLE, {"type": "integer", "multipleOf": 2}),
    ({"type": "array", "items": TEXT}, {"type": "array", "items": TEXT, "minItems": 1}),
    ({"type": "array", "items": TEXT}, {"type": "array", "items": TEXT, "uniqueItems": True}),
    ({"anyOf": [TEXT, NULL]}, TEXT),
    ({"anyOf": [TEXT, NULL]}, {"anyOf": [{"type": "string", "minLength": 1}, NULL]}),
    ({"anyOf": [TEXT, WHOLE, NULL]}, {"anyOf": [WHOLE, NULL]}),
    ({"oneOf": [TEXT, NULL]}, NULL),
    ({"type": ["string", "null"]}, TEXT),
    ({"type": "number"}, WHOLE),
    ({}, TEXT),
    ({"type": "object"}, {"type": "object", "additionalProperties": False}),
    ({"type": "object"}, {"type": "object", "additionalProperties": TEXT}),
    ({"type": "object"}, {"type": "object", "propertyNames": {"pattern": "^a"}}),
]


@pytest.mark.parametrize(("wide", "narrow"), NARROWER)
@pytest.mark.parametrize("kind", Kind)
def test_narrowing_breaks_what_we_read_and_widening_what_we_write(
    kind: Kind, wide: Schema, narrow: Schema
) -> None:
    old, new = an_object("x", x=wide), an_object("x", x=narrow)
    for path in broken(kind, old, new) + broken(kind, new, old):
        assert path.startswith("x")
    assert bool(broken(kind, old, new)) == (kind in OURS_TO_READ)
    assert bool(broken(kind, new, old)) == (kind in OURS_TO_WRITE)


@pytest.mark.parametrize(("wide", "narrow"), NARROWER)
@pytest.mark.parametrize("place", ["items", "reference", "nullable", "tuple", "values"])
def test_it_is_found_wherever_it_is(wide: Schema, narrow: Schema, place: str) -> None:
    def within(schema: Schema) -> Schema:
        match place:
            case "items":
                return an_object(x={"type": "array", "items": an_object("y", y=schema)})
            case "reference":
                document = an_object(x={"$ref": "#/$defs/Inner", "description": "It."})
                return document | {"$defs": {"Inner": an_object("y", y=schema)}}
            case "tuple":
                return an_object(x={"type": "array", "prefixItems": [TEXT, schema]})
            case "values":
                return an_object(x={"type": "object", "additionalProperties": schema})
        return an_object(x={"anyOf": [an_object("y", y=schema), NULL], "default": None})

    assert broken(Kind.EVENT, within(wide), within(narrow))
    assert not broken(Kind.EVENT, within(narrow), within(wide))
    assert broken(Kind.REPLY, within(narrow), within(wide))
    assert not broken(Kind.REPLY, within(wide), within(narrow))


REPLACED: list[tuple[Schema, Schema]] = [
    (WHOLE, TEXT),
    (WHOLE, {"anyOf": [TEXT, NULL]}),
    ({"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "^b"}),
    ({"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}),
    ({"type": "integer", "multipleOf": 2}, {"type": "integer", "multipleOf": 3}),
    ({"type": "array", "prefixItems": [TEXT]}, {"type": "array", "prefixItems": [TEXT, TEXT]}),
    ({"not": TEXT}, {"not": WHOLE}),
    ({"enum": ["a"]}, {"enum": ["b"]}),
]


@pytest.mark.parametrize(("one", "other"), REPLACED)
@pytest.mark.parametrize("kind", Kind)
def test_what_is_something_else_breaks_everybody(kind: Kind, one: Schema, other: Schema) -> None:
    assert {"x"} == set(broken(kind, an_object("x", x=one), an_object("x", x=other)))
    assert {"x"} == set(broken(kind, an_object("x", x=other), an_object("x", x=one)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TEXT, TEXT | {"title": "A Text", "description": "It.", "examples": ["a"]}),
        ({"anyOf": [TEXT, NULL]}, {"type": ["null", "string"]}),
        ({"anyOf": [TEXT, NULL]}, {"oneOf": [NULL, TEXT]}),
        ({"const": "a"}, {"enum": ["a"]}),
        ({"enum": ["a", "b"]}, {"enum": ["b", "a"]}),
        ({"allOf": [TEXT], "description": "It."}, TEXT),
        (TEXT, {"type": "string", "minLength": 0}),
    ],
)
def test_the_same_in_other_words_is_no_difference(one: Schema, other: Schema) -> None:
    for kind in Kind:
        assert differences(kind, an_object(x=one), an_object(x=other)) == []


def test_a_definition_in_place_is_the_same_as_by_reference() -> None:
    inner = an_object("y", y=WHOLE)
    by_reference = an_object(x={"$ref": "#/$defs/Inner"}) | {"$defs": {"Inner": inner}}
    assert differences(Kind.EVENT, by_reference, an_object(x=inner)) == []


def test_a_definition_that_contains_itself_comes_to_an_end() -> None:
    def tree(leaf: Schema) -> Schema:
        again = {"type": "array", "items": {"$ref": "#/$defs/Tree"}}
        node = an_object("leaf", leaf=leaf, branches=again)
        return an_object(root={"$ref": "#/$defs/Tree"}) | {"$defs": {"Tree": node}}

    assert differences(Kind.EVENT, tree(TEXT), tree(TEXT)) == []
    assert broken(Kind.EVENT, tree(TEXT), tree(WHOLE)) == ["root.leaf"]


def test_a_change_behind_a_keyword_that_cannot_be_judged_is_not_passed_over() -> None:
    old, new = (
        an_object(x={"not": {"$ref": "#/$defs/No"}}) | {"$defs": {"No": no}} for no in (TEXT, WHOLE)
    )
    assert broken(Kind.REPLY, old, new) == ["x"]


def test_a_reference_that_leads_nowhere_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="leads nowhere"):
        differences(Kind.EVENT, {"$ref": "https://example.com"}, {"$ref": "#/$defs/No"})


# Any schema.

_LEAVES: st.SearchStrategy[Schema] = st.one_of(
    st.sampled_from([TEXT, WHOLE, NULL, {}, {"type": "boolean"}, {"type": "number"}]),
    st.builds(lambda low: {"type": "integer", "minimum": low}, st.integers(-9, 9)),
    st.builds(lambda most: {"type": "string", "maxLength": most}, st.integers(0, 9)),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.text(max_size=2) | st.booleans() | st.none(), min_size=1, max_size=3),
    ),
)


def _objects(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    fields = st.dictionaries(st.sampled_from("abcd"), inner, max_size=4)
    return fields.flatmap(
        lambda found: st.builds(
            lambda required: an_object(*sorted(required), **found),
            st.sets(st.sampled_from(sorted(found))) if found else st.just(set[str]()),
        )
    )


SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        _objects(inner),
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


@ANY_PACE
@given(SCHEMAS, st.sampled_from(Kind))
def test_a_schema_does_not_differ_from_itself(schema: Schema, kind: Kind) -> None:
    assert differences(kind, schema, json.loads(json.dumps(schema))) == []


@ANY_PACE
@given(_objects(SCHEMAS), SCHEMAS, st.sampled_from(Kind))
def test_an_optional_field_more_breaks_nobody(old: Schema, field: Schema, kind: Kind) -> None:
    new = old | {"properties": old["properties"] | {"more": field}}
    assert [(d.path, d.is_breaking) for d in differences(kind, old, new)] == [("more", False)]


@ANY_PACE
@given(_objects(SCHEMAS), st.sampled_from(Kind), st.data())
def test_any_field_less_breaks_everybody(old: Schema, kind: Kind, data: st.DataObject) -> None:
    if names := sorted(old["properties"]):
        gone = data.draw(st.sampled_from(names))
        left = {name: field for name, field in old["properties"].items() if name != gone}
        new = old | {"properties": left, "required": [n for n in old["required"] if n != gone]}
        assert broken(kind, old, new) == [gone]


@ANY_PACE
@given(SCHEMAS, SCHEMAS, st.data())
def test_what_is_compatible_for_a_reader_is_read(
    old: Schema, new: Schema, data: st.DataObject
) -> None:
    """The verdict holds: no breaking difference, so every old event passes the new schema."""
    if not broken(Kind.EVENT, old, new):
        instance = data.draw(instances(old, old))
        assert Draft202012Validator(new).is_valid(instance) or adds_fields(old, new)


def adds_fields(old: Schema, new: Schema) -> bool:
    """An old message could have had any value under a name that was nobody's: we never wrote one."""
    return any(d.what.startswith("a new field") for d in differences(Kind.EVENT, old, new))


# What is stored.


WORDS = {"$schema", "$id", "$defs", "title", "description", "default", "x-personal"}
MOMENT: TypeAdapter[datetime] = TypeAdapter(datetime)


def instances(schema: Schema, document: Schema) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one a keyword
    """Return messages that are valid under `schema`; refuse one that this cannot make."""
    match bare := {key: value for key, value in schema.items() if key not in WORDS}:
        case {"$ref": reference}:
            return instances(document["$defs"][reference.rsplit("/", 1)[1]], document)
        case {"anyOf": options}:
            return st.one_of([instances(option, document) for option in options])
        case {"type": "array", "items": items}:
            return st.lists(instances(items, document), max_size=3)
        case {"type": "string", "format": "date-time"}:
            assert bare.keys() == {"type", "format"}, f"teach this test {schema}"
            moments = st.datetimes(timezones=st.just(UTC))
            return moments.map(lambda at: MOMENT.dump_python(at, mode="json"))
        case {"type": "object", "properties": fields} if "required" not in bare:
            return instances({**schema, "required": []}, document)
        case {"type": "object", "additionalProperties": True}:
            assert bare.keys() == {"type", "additionalProperties"}, f"teach this test {schema}"
            return st.dictionaries(st.text(max_size=5), st.integers() | st.booleans(), max_size=3)
        case {"type": "object", "patternProperties": patterns}:
            [(pattern, value)] = patterns.items()
            names = st.from_regex(str(pattern).removesuffix("$") + r"\Z").filter(
                lambda name: len(name) <= 64
            )
            return st.dictionaries(names, instances(value, document), max_size=3)
        case {"type": "object", "properties": fields, "required": required}:
            assert bare.keys() == {"type", "properties", "required"}, f"teach this test {schema}"
            made = {name: instances(field, document) for name, field in fields.items()}
            optional = {name: made[name] for name in made if name not in required}
            return st.fixed_dictionaries({name: made[name] for name in required}, optional=optional)
    return leaves(bare)


def leaves(bare: Schema) -> st.SearchStrategy[Any]:
    """Return what has nothing inside; every keyword has to be understood."""
    text = st.text(
        st.characters(codec="utf-8"),
        min_size=bare.get("minLength", 0),
        max_size=bare.get("maxLength"),
    )
    if pattern := bare.get("pattern"):
        whole = str(pattern).removesuffix("$") + r"\Z"  # `$` as ECMA 262 means it: the end
        most = bare.get("maxLength", 1000)
        text = st.from_regex(whole).filter(lambda s: bare.get("minLength", 0) <= len(s) <= most)
    makers: dict[str | None, tuple[set[str], st.SearchStrategy[Any]]] = {
        "string": ({"minLength", "maxLength", "pattern", "enum"}, text),
        "integer": ({"minimum", "maximum"}, st.integers(bare.get("minimum"), bare.get("maximum"))),
        "number": (set(), st.floats(allow_nan=False, allow_infinity=False)),
        "boolean": (set(), st.booleans()),
        "null": (set(), st.none()),
        None: ({"enum"}, st.none() | st.booleans() | st.integers() | text),
    }
    understood, made = makers[bare.get("type")]
    assert not bare.keys() - understood - {"type"}, f"teach this test to make {bare}"
    return st.sampled_from(bare["enum"]) if "enum" in bare else made


STORED = [
    pytest.param(schema, id=f"{version}-{file.removeprefix('events/')}")
    for version, files in released().items()
    for file, schema in files.items()
    if file.startswith("events/")
]


@pytest.mark.parametrize("schema", STORED)
def test_whatever_was_stored_under_a_released_schema_is_read_today(schema: Schema) -> None:
    model = MODELS[schema["$id"].rsplit(":", 1)[1]]
    validator = Draft202012Validator(schema)
    later = st.dictionaries(st.just("from_a_newer_version"), st.integers())

    @ANY_PACE
    @given(instances(schema, schema), later)
    def read(instance: dict[str, Any], more: dict[str, int]) -> None:
        validator.validate(instance | more)
        event = model.model_validate_json(json.dumps(instance | more))
        kept = json.loads(event.model_dump_json())
        assert instance == {name: kept[name] for name in instance}

    read()


# Files, and the commands.


def test_what_is_here_is_compatible_with_the_last_release() -> None:
    *_older, newest = released().values()
    breaking = [str(f) for f in findings(newest, current()) if f.difference.is_breaking]
    assert [] == breaking, "see docs/compatibility.md"
    assert compatibility.main([]) == 0


@pytest.mark.parametrize("file", sorted(current()))
def test_a_message_that_is_gone_breaks_and_a_new_one_does_not(file: str) -> None:
    everything = current()
    without = {name: schema for name, schema in everything.items() if name != file}
    [gone] = findings(everything, without)
    [come] = findings(without, everything)
    assert (gone.file, gone.difference.is_breaking, come.difference.is_breaking) == (
        file,
        True,
        False,
    )


def test_a_folder_without_rules_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no rules say"):
        kind_of("rumours/heard.json")


def rewrite(root: Path, version: str, file: str, change: Schema) -> None:
    """Pretend that `file` was released with other properties than it has now."""
    path = root / "released" / version / file
    schema = json.loads(path.read_text())
    path.write_text(json.dumps(schema | {"properties": schema["properties"] | change}))


def test_a_release_is_a_copy_and_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "contracts"
    assert release.main(["0.1.0"], root) == 0
    assert released(root) == {"0.1.0": current()}
    assert compatibility.main([], root) == 0
    assert release.main(["0.1.0"], root) == 1
    assert "released already" in capsys.readouterr().err


def test_the_newest_release_is_by_number_and_versions_only_go_up(tmp_path: Path) -> None:
    for version in ("0.2.0", "0.10.0", "0.10.1"):
        release.release(version, tmp_path)
    assert list(released(tmp_path)) == ["0.2.0", "0.10.0", "0.10.1"]
    with pytest.raises(ValueError, match=r"older than 0\.10\.1"):
        release.release("0.9.0", tmp_path)
    for wrong in ("1", "1.0", "1.0.x", "v1.0.0", "1.0.²"):
        with pytest.raises(ValueError, match="three numbers"):
            release.release(wrong, tmp_path)


def test_what_breaks_is_told_with_file_field_and_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release.release("0.1.0", tmp_path)
    rewrite(tmp_path, "0.1.0", "events/counter.incremented.v1.json", {"why": TEXT})
    assert compatibility.main([], tmp_path) == 1
    assert capsys.readouterr().err.splitlines() == [
        (
            "breaking: events/counter.incremented.v1.json: why: the field is gone (or was renamed, "
            "which is the same); put it back, and add counter.incremented.v2 and an upcaster"
        ),
        "The contracts break 0.1.0. See docs/compatibility.md",
    ]
    for version in ("0.1.1", "0.2.0", "1.0.0"):
        with pytest.raises(ValueError, match="break what is stored"):
            release.release(version, tmp_path)


def test_what_breaks_callers_needs_a_version_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release.release("0.1.0", tmp_path)
    rewrite(tmp_path, "0.1.0", "commands/ResetCounter.json", {"why": TEXT})
    with pytest.raises(ValueError, match="promises to break nobody"):
        release.release("0.1.1", tmp_path)
    release.release("0.2.0", tmp_path)
    assert compatibility.main(["--all"], tmp_path) == 0
    assert capsys.readouterr() == ("", "")


def test_compatible_changes_are_told_to_those_who_ask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release.release("0.1.0", tmp_path)
    (tmp_path / "released/0.1.0/events/counter.opened.v1.json").unlink()
    assert compatibility.main(["--all"], tmp_path) == 0
    assert capsys.readouterr().out == (
        "compatible: events/counter.opened.v1.json: a new event; nothing: it is compatible\n"
    )


def test_without_a_release_it_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compatibility.main([], tmp_path) == 1
    assert "python -m flotilla_contracts.release" in capsys.readouterr().err
