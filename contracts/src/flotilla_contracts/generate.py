"""Writes what others read of the contracts: JSON Schemas and an AsyncAPI document.

    python -m flotilla_contracts.generate           write contracts/schemas/ and contracts/asyncapi.json
    python -m flotilla_contracts.generate --check   fail, with a diff, when they are not fresh

Both are a function of the models alone, to the byte.
"""

import argparse
import difflib
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flotilla_contracts.asyncapi import asyncapi_document
from flotilla_contracts.catalog import ASKS, COMMANDS, EVENTS, QUERIES
from flotilla_contracts.envelope import Envelope
from flotilla_contracts.errors import Problem
from flotilla_contracts.health import HealthReply

ROOT = Path(__file__).parents[2]
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def documents() -> dict[str, str]:
    """Return every generated file: its path below `contracts/`, and its text."""
    schemas: dict[str, type[BaseModel]] = {
        "envelope": Envelope,
        "problem": Problem,
        "replies/HealthReply": HealthReply,
    }
    for events in EVENTS.values():
        schemas |= {f"events/{event.type}": event for event in events}
    schemas |= {f"commands/{command.__name__}": command for command in COMMANDS}
    schemas |= {f"queries/{query.__name__}": query for query in QUERIES}
    schemas |= {f"replies/{m.reply.__name__}": m.reply for m in ASKS}
    found = {f"schemas/{name}.json": _text(_schema(name, m)) for name, m in schemas.items()}
    return {"asyncapi.json": _text(asyncapi_document()), **dict(sorted(found.items()))}


def stale(root: Path = ROOT) -> list[str]:
    """Return a diff for each file below `root` that is not what `documents` says, or not in it."""
    fresh = documents()
    on_disk = {
        str(path.relative_to(root)): path.read_text(encoding="utf-8")
        for path in (*root.glob("schemas/**/*.json"), root / "asyncapi.json")
        if path.exists()
    }
    return [
        "".join(
            difflib.unified_diff(
                on_disk.get(name, "").splitlines(keepends=True),
                fresh.get(name, "").splitlines(keepends=True),
                f"contracts/{name} (committed)",
                f"contracts/{name} (generated)",
            )
        )
        for name in sorted(fresh.keys() | on_disk.keys())
        if fresh.get(name) != on_disk.get(name)
    ]


def write(root: Path = ROOT) -> None:
    """Write every document, and delete those that are no more."""
    fresh = documents()
    for path in root.glob("schemas/**/*.json"):
        if str(path.relative_to(root)) not in fresh:
            path.unlink()
    for name, text in fresh.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m flotilla_contracts.generate")
    parser.add_argument("--check", action="store_true", help="fail when a file is not fresh")
    if not parser.parse_args().check:
        write()
        return 0
    diffs = stale()
    if diffs:
        sys.stderr.write("\n".join(diffs))
        sys.stderr.write("\nGenerated contract files are stale. Run: make generate\n")
    return 1 if diffs else 0


def _schema(name: str, model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    return {"$schema": DIALECT, "$id": f"urn:flotilla:schema:{name.rsplit('/', 1)[-1]}", **schema}


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
