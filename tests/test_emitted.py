"""What services really send is what is committed, and what the contracts say."""

import json
from pathlib import Path

from emitted import FOLDER, emit

from flotilla.testing.emitted import distinct, steady


async def test_what_services_send_is_what_is_committed(tmp_path: Path) -> None:
    fresh = await emit(tmp_path)
    committed = {
        file.relative_to(FOLDER).as_posix(): file.read_text(encoding="utf-8")
        for file in FOLDER.rglob("*.json")
    }
    assert fresh == committed, "read what has changed; then: .venv/bin/python tests/emitted.py"


def test_chance_and_time_are_always_the_same_in_the_corpus() -> None:
    one = b'{"b":"2026-02-03T04:05:06.7Z","a":"01a205da-b085-7df2-a9a8-852232d1ce9e"}'
    other = b'{"a":"01a205da-b0a2-729c-a3b2-302ab1f409c1","b":"2027-02-03T04:05:06+00:00"}'
    assert steady(one) == steady(other)


def test_one_message_of_every_shape_is_kept_whatever_the_order() -> None:
    texts = [
        json.dumps(value) for value in ({"a": 10}, {"a": 1}, {"a": None}, {"a": [1, 2]}, {"a": [3]})
    ]
    assert distinct(texts) == distinct(texts[::-1])
    assert sorted(map(str, distinct(texts))) == ["{'a': 1}", "{'a': None}", "{'a': [3]}"]
