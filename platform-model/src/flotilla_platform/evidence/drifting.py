"""contract-drift: what is written down of the contracts, and what is really sent, is what they say.

Schemas, AsyncAPI and OpenAPI are those that the models give today; schemas break nobody who has the
newest release. `contracts/emitted/` is what services really sent when they were asked everything
(`tests/emitted.py` writes it, and a test that runs them holds it): every message in it has a schema, has
no field that its schema does not know, and every schema has a message.
"""

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flotilla_contracts.compatibility import current, findings, released
from flotilla_contracts.generate import documents
from flotilla_platform.evidence.graph import package_of
from flotilla_platform.loading import Mistake, Position
from flotilla_platform.model import Platform

CONTRACTS = "contracts"
EMITTED = "emitted"
OPENAPI = "openapi.json"

_GENERATE = "run `make generate`"
_EMIT = "run `.venv/bin/python tests/emitted.py`, and read what has changed"


def check_contracts(platform: Platform) -> list[Mistake]:
    """Return where `contracts/`, beside the model, is not what the contracts say; none: no mistake."""
    root = platform.root.parent / CONTRACTS
    if not root.is_dir():
        return []
    return [
        *_check_fresh(root),
        *_check_openapi(platform, root),
        *_check_compatible(root),
        *_check_emitted(root),
    ]


def _check_fresh(root: Path) -> Iterator[Mistake]:
    fresh = documents()
    there = {
        file.relative_to(root).as_posix(): file
        for file in (*root.glob("schemas/**/*.json"), root / "asyncapi.json")
        if file.is_file()
    }
    for name in sorted(fresh.keys() | there.keys()):
        if name not in there:
            yield Mistake(Position(root / name), "it is missing", _GENERATE)
        elif name not in fresh:
            yield Mistake(Position(root / name), "no contract has this schema", _GENERATE)
        else:
            yield from _check_same(there[name], fresh[name])


def _check_same(file: Path, fresh: str) -> Iterator[Mistake]:
    lines, wanted = file.read_text(encoding="utf-8").split("\n"), fresh.split("\n")
    if lines == wanted:
        return
    same = 0
    while same < min(len(lines), len(wanted)) and lines[same] == wanted[same]:
        same += 1
    told = wanted[same].strip() if same < len(wanted) else "nothing more"
    yield Mistake(Position(file, same + 1), f"this is stale: it would say {told}", _GENERATE)


def _check_openapi(platform: Platform, root: Path) -> Iterator[Mistake]:
    """Compare the document with that of the service that listens."""
    for name, service in platform.services.items():
        if "http" not in service.needs:
            continue
        try:
            module = importlib.import_module(f"{package_of(service)}.openapi")
        except ImportError:
            yield Mistake(
                platform.at("service", name, "entrypoint"),
                f"it listens for HTTP, and {package_of(service)}.openapi does not describe that",
                "write `document_bytes()` there",
            )
            continue
        file = root / OPENAPI
        if not file.is_file():
            yield Mistake(Position(file), "it is missing", _GENERATE)
        elif json.loads(file.read_bytes()) != json.loads(module.document_bytes()):
            yield Mistake(Position(file), f"it is not what {name!r} serves", _GENERATE)


def _check_compatible(root: Path) -> Iterator[Mistake]:
    releases = released(root)
    if not releases:
        return
    version, old = list(releases.items())[-1]
    for finding in findings(old, current()):
        if finding.difference.is_breaking:
            where = Position(root / "released" / version / finding.file)
            if not where.file.is_file():
                where = Position(root / "schemas" / finding.file)
            wrong = f"{finding.difference.path or 'it'}: {finding.difference.what}"
            yield Mistake(where, f"this breaks {version}: {wrong}", finding.difference.cure)


def _check_emitted(root: Path) -> Iterator[Mistake]:
    schemas = current()
    corpus = root / EMITTED
    there = {file.relative_to(corpus).as_posix(): file for file in corpus.rglob("*.json")}
    for name in sorted(schemas.keys() - there.keys()):
        yield Mistake(
            Position(root / "schemas" / name),
            "nobody ever sent a message of this contract",
            f"let tests/emitted.py use it, or remove it; then {_EMIT}",
        )
    for name, file in sorted(there.items()):
        if name not in schemas:
            yield Mistake(
                Position(file),
                "this was sent, and no contract describes it",
                "add its model to the catalog of the contracts",
            )
        else:
            yield from _check_messages(file, schemas[name], is_envelope=name == "envelope.json")


def _check_messages(
    file: Path, schema: Mapping[str, Any], *, is_envelope: bool
) -> Iterator[Mistake]:
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - only where it is needed

    try:
        messages = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        yield Mistake(Position(file), f"this is no JSON: {error}", _EMIT)
        return
    validator = Draft202012Validator(strict(schema))
    for message in messages:
        said = _attributes(message) if is_envelope else message
        for refused in validator.iter_errors(said):
            steps = "/".join(map(str, refused.absolute_path)) or "the message"
            yield Mistake(
                _place(file, refused),
                f"{steps} was sent, and the contract refuses it: {refused.message}",
                f"correct the producer, or the contract; then {_EMIT}",
            )


def _place(file: Path, error: Any) -> Position:
    """Return the line of the field that is refused, as the corpus is written."""
    names = [step for step in error.absolute_path if isinstance(step, str)]
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        names += [name for name in error.instance if name not in known]
    text = file.read_text(encoding="utf-8")
    at = text.find(f'"{names[-1]}":') if names else -1
    if at < 0:
        return Position(file)
    return Position(file, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))


def _attributes(headers: Mapping[str, str]) -> dict[str, object]:
    """Return the headers of a CloudEvent as its envelope's schema has them."""
    numbers = {"streamversion", "schemaversion"}
    found: dict[str, object] = {
        name.removeprefix("ce-"): int(value) if name.removeprefix("ce-") in numbers else value
        for name, value in headers.items()
    }
    for derived in ("specversion", "subject", "dataschema", "content-type"):
        found.pop(derived, None)
    return found


def strict(schema: Any) -> Any:
    """Return a schema that refuses fields it does not name: who sends them promised them to nobody."""
    if isinstance(schema, list):
        return [strict(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(inner) for key, inner in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found
