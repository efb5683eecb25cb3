"""Whatever is done to a shipped file, it is read, or its mistakes are told with their places."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from flotilla_platform.loading import ModelInvalid
from flotilla_platform.model import KINDS
from flotilla_platform.reading import find_model, read_platform

EXAMPLES = 120
FILES = sorted(
    str(file.relative_to(find_model()))
    for kind in KINDS.values()
    for file in (find_model() / kind.folder).glob("*.yaml")
)
ODD: list[Any] = [None, True, -1, 0, 2.5, "", "nobody", "a b", [], ["x"], {}, {"x": 1}, 10**30]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shipped")
    for kind in KINDS.values():
        if (find_model() / kind.folder).is_dir():
            shutil.copytree(find_model() / kind.folder, root / kind.folder)
    return root


def places(content: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything that stands in a mapping or a list."""
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in items:
        yield (*above, key)
        yield from places(value, (*above, key))


def mutate(content: Any, way: tuple[Any, ...], how: str, odd: Any) -> None:
    *above, key = way
    holder = content
    for step in above:
        holder = holder[step]
    match how:
        case "delete":
            del holder[key]
        case "rename" if isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)
        case "refer" if isinstance(holder[key], str):
            holder[key] = f"{holder[key][:-1]}"
        case _:
            holder[key] = odd


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_one_change_of_a_shipped_file_is_valid_or_told(shipped: Path, data: st.DataObject) -> None:
    file = shipped / data.draw(st.sampled_from(FILES), label="file")
    text = file.read_text()
    yaml = YAML(typ="safe", pure=True)
    content = yaml.load(text)
    way = data.draw(st.sampled_from(list(places(content))), label="place")
    how = data.draw(st.sampled_from(["delete", "rename", "refer", "type"]), label="change")
    mutate(content, way, how, data.draw(st.sampled_from(ODD), label="odd value"))
    try:
        with file.open("w") as out:
            yaml.dump(content, out)
        lines = len(file.read_text().splitlines())
        try:
            read_platform(shipped)
        except ModelInvalid as invalid:
            for mistake in invalid.mistakes:
                assert mistake.position.file.is_relative_to(shipped)
                assert mistake.position.line >= 1
                assert mistake.position.file != file or mistake.position.line <= lines
                assert mistake.wrong
                assert mistake.instead
    finally:
        file.write_text(text)


@given(st.sampled_from(FILES), st.integers(0, 1000), st.text(max_size=3))
@settings(max_examples=40, deadline=None)
def test_any_text_in_a_shipped_file_is_valid_or_told(
    shipped: Path, name: str, at: int, text: str
) -> None:
    file = shipped / name
    before = file.read_text()
    where = at % (len(before) + 1)
    try:
        file.write_text(before[:where] + text + before[where:], encoding="utf-8", errors="ignore")
        read_platform(shipped)
    except ModelInvalid as invalid:
        assert invalid.mistakes
    finally:
        file.write_text(before)
