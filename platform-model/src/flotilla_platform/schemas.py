"""The JSON Schema of every kind of part: what editors complete and check while a model is written."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML

from flotilla_platform.harness.reading import KINDS as HARNESS
from flotilla_platform.model import KINDS, KindName

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = "schemas"


def schema_of(kind: KindName) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a kind of part."""
    return _described(KINDS[kind].type, f"urn:flotilla:model:{kind}")


def _described(kind: type[BaseModel], name: str) -> dict[str, Any]:
    schema = kind.model_json_schema()
    identity = {"$schema": DIALECT, "$id": name}
    filled: dict[str, Any] = _with_examples(identity | schema)
    return filled


def schema_files() -> dict[str, str]:
    """Return every generated file: its path below the model, and its text."""
    schemas = {kind: schema_of(kind) for kind in KINDS} | {
        name: _described(kind, f"urn:flotilla:harness:{name}") for name, kind in HARNESS.items()
    }
    return {
        f"{FOLDER}/{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in schemas.items()
    }


def stale_schemas(root: Path) -> list[str]:
    """Return the files below `root` that are not what `schema_files` says, or not in it."""
    fresh = schema_files()
    found = {
        f"{FOLDER}/{file.name}": file.read_text(encoding="utf-8")
        for file in (root / FOLDER).glob("*.json")
    }
    return sorted(n for n in fresh.keys() | found.keys() if fresh.get(n) != found.get(n))


def write_schemas(root: Path) -> list[str]:
    """Write every schema, delete those that are no more; return what changed."""
    fresh, changed = schema_files(), stale_schemas(root)
    (root / FOLDER).mkdir(exist_ok=True)
    for name in changed:
        if name in fresh:
            (root / name).write_text(fresh[name], encoding="utf-8")
        else:
            (root / name).unlink()
    return changed


def _with_examples(schema: Any) -> Any:
    """Return a schema whose examples are values: in the model they are the YAML of these."""
    if isinstance(schema, list):
        return [_with_examples(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    yaml = YAML(typ="safe", pure=True)
    return {
        key: [yaml.load(e) if isinstance(e, str) else e for e in value]
        if key == "examples" and isinstance(value, list)
        else _with_examples(value)
        for key, value in schema.items()
    }
