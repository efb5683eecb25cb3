"""The OpenAPI document of the REST API, written from the contracts.

`python -m svc_web_bff.openapi` writes `contracts/openapi.json`; `--check` fails when the file is
not what would be written.
"""

import argparse
import difflib
import json
import sys
from importlib.resources import files
from pathlib import Path

from flotilla_contracts import ErrorCode
from svc_web_bff.openapi_examples import (
    ACTIVITY_EXAMPLE,
    COUNTER_EXAMPLE,
    HISTORY_EXAMPLE,
    PAGE_EXAMPLE,
    TOTALS_EXAMPLE,
)
from svc_web_bff.openapi_parts import (
    COMMAND_TEXTS,
    Json,
    answer,
    bodiless,
    components,
    content,
    problems,
    ref,
)

PATH = Path(*Path(__file__).parts[:-4], "contracts", "openapi.json")
"""The generated file of a checkout; an installed package may lie too high for one."""
ASSETS = files("svc_web_bff") / "assets"
CURE = "python -m svc_web_bff.openapi"

_WHO = ("Tenant", "CorrelationId")
_TENANT_CODES = (ErrorCode.TENANT_MISSING, ErrorCode.TENANT_INVALID)
_READ_CODES = (*_TENANT_CODES, ErrorCode.INVALID_REQUEST, ErrorCode.UNAVAILABLE)
_COMMAND_CODES = (
    ErrorCode.MALFORMED_JSON,
    *_TENANT_CODES,
    ErrorCode.IDEMPOTENCY_KEY_MISSING,
    ErrorCode.IDEMPOTENCY_KEY_INVALID,
    ErrorCode.IF_MATCH_INVALID,
    ErrorCode.CONFLICT,
    ErrorCode.VERSION_MISMATCH,
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.EVENT_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.IDEMPOTENCY_KEY_REUSED,
    ErrorCode.UNAVAILABLE,
)
_REPLAY = ("ETag", "X-Consistency-Token", "Idempotency-Replayed")


def document() -> Json:
    """Return the document."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Flotilla",
            "version": "1.0.0",
            "summary": "Counters, event-sourced.",
            "description": (ASSETS / "api.md").read_text("utf-8").strip(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "Where this document comes from."}],
        "tags": [
            {"name": "Counters", "description": "Count, and see what was counted."},
            {"name": "Operations", "description": "For those who run it. No tenant is needed."},
        ],
        "paths": _counter_paths() | _operation_paths(),
        "components": components(),
    }


def document_bytes() -> bytes:
    """Return the document as it is served and committed."""
    return (json.dumps(document(), indent=2, ensure_ascii=False) + "\n").encode()


def main(arguments: list[str] | None = None) -> int:
    """Write the document, or check that the file has it."""
    parser = argparse.ArgumentParser(prog=CURE, description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=PATH)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when stale")
    options = parser.parse_args(arguments)
    path: Path = options.path
    wanted = document_bytes()
    if not options.check:
        path.write_bytes(wanted)
        return 0
    found = path.read_bytes() if path.exists() else b""
    if found == wanted:
        return 0
    difference = difflib.unified_diff(
        found.decode().splitlines(),
        wanted.decode().splitlines(),
        str(path),
        "as the code has it",
        "",
        "",
        2,
    )
    sys.stderr.write("\n".join(difference))
    sys.stderr.write(f"\n\n{path} is stale. To cure it: {CURE}\n")
    return 1


def _counter_paths() -> Json:
    up, down = ErrorCode.COUNTER_UPPER_BOUND_PASSED, ErrorCode.COUNTER_LOWER_BOUND_PASSED
    one = "/v1/counters/{counter_id}"
    return {
        f"{one}/increment": {"post": _command("increment", "Count up", {"by": 5}, up)},
        f"{one}/decrement": {"post": _command("decrement", "Count down", {"by": 5}, down)},
        f"{one}/reset": {"post": _command("reset", "Go back to 0", {})},
        one: {"get": _get()},
        "/v1/counters": {"get": _list()},
        f"{one}/history": {"get": _history()},
        "/v1/totals": {"get": _totals()},
        "/v1/activity": {"get": _activity()},
    }


def _command(verb: str, summary: str, example: Json, *codes: ErrorCode) -> Json:
    schema = ref("schemas", f"{verb.title()}Body")
    return {
        "operationId": f"{verb}Counter",
        "tags": ["Counters"],
        "summary": summary,
        "description": COMMAND_TEXTS[verb],
        "parameters": _parameters("CounterId", "IdempotencyKey", "IfMatch", *_WHO),
        "requestBody": {
            "required": bool(example),
            "content": content("application/json", schema, example),
        },
        "responses": {
            "200": answer(
                "Done, and durable: where the counter stands now.",
                ref("schemas", "CounterReply"),
                COUNTER_EXAMPLE,
                _REPLAY,
            ),
            **problems(*_COMMAND_CODES, *codes, ErrorCode.ROUTE_NOT_FOUND),
        },
    }


def _get() -> Json:
    return {
        "operationId": "getCounter",
        "tags": ["Counters"],
        "summary": "One counter",
        "description": "Where a counter stands, from the read model.",
        "parameters": _parameters("CounterId", "ConsistencyToken", "IfNoneMatch", *_WHO),
        "responses": {
            "200": answer(
                "Where it stands.", ref("schemas", "CounterReply"), COUNTER_EXAMPLE, ("ETag",)
            ),
            "304": bodiless("You have it already.", ("ETag",)),
            **problems(
                *_READ_CODES,
                ErrorCode.CONSISTENCY_TOKEN_INVALID,
                ErrorCode.COUNTER_NOT_FOUND,
                ErrorCode.ROUTE_NOT_FOUND,
                ErrorCode.VIEW_BEHIND,
            ),
        },
    }


def _list() -> Json:
    return _page(
        ("listCounters", "All counters of the tenant"),
        "The tenant's counters in order of their ids, a page at a time.",
        ("Limit", "Cursor", "ConsistencyToken"),
        answer("A page.", ref("schemas", "CounterPage"), PAGE_EXAMPLE),
        ErrorCode.CURSOR_INVALID,
        ErrorCode.CONSISTENCY_TOKEN_INVALID,
        ErrorCode.VIEW_BEHIND,
    )


def _history() -> Json:
    return _page(
        ("getCounterHistory", "What happened to a counter"),
        "Its events, oldest first, from the store itself: always current.",
        ("CounterId", "After", "Limit"),
        answer("A page.", ref("schemas", "HistoryPage"), HISTORY_EXAMPLE),
        ErrorCode.COUNTER_NOT_FOUND,
        ErrorCode.ROUTE_NOT_FOUND,
    )


def _totals() -> Json:
    return _page(
        ("getTotals", "All counters of the tenant together"),
        "How many there are and the sum of their values, from the read model.",
        (),
        answer("The totals.", ref("schemas", "TenantTotals"), TOTALS_EXAMPLE),
    )


def _activity() -> Json:
    return _page(
        ("listActivity", "What happened last"),
        "The last events of all the tenant's counters, newest first, a page at a time."
        " Old ones are forgotten here; a counter's history has them all.",
        ("Limit", "Before"),
        answer("A page.", ref("schemas", "ActivityPage"), ACTIVITY_EXAMPLE),
    )


def _page(
    name: tuple[str, str],
    description: str,
    parameters: tuple[str, ...],
    found: Json,
    *codes: ErrorCode,
) -> Json:
    """Return a read without an ETag; `name` is the operation's id and its summary."""
    return {
        "operationId": name[0],
        "tags": ["Counters"],
        "summary": name[1],
        "description": description,
        "parameters": _parameters(*parameters, *_WHO),
        "responses": {"200": found, **problems(*_READ_CODES, *codes)},
    }


def _operation_paths() -> Json:
    ready = {"ready": True, "missing": [], "lag": {"projector": {"counter": _NO_LAG}}}
    missing = {"ready": False, "missing": ["projector: nobody answers"], "lag": {}}
    readiness = ref("schemas", "Readiness")
    return {
        "/healthz": _operation(
            "getLiveness",
            "Is it alive?",
            "200 as long as the process answers at all. Says nothing about what it depends on.",
            {"200": answer("It is.", ref("schemas", "Liveness"), {"status": "ok"})},
        ),
        "/readyz": _operation(
            "getReadiness",
            "Can it work?",
            "Asks every service, and reports how far each view is behind.",
            {
                "200": answer("All services are ready.", readiness, ready),
                "503": answer("Something is missing.", readiness, missing),
            },
        ),
        "/metrics": _operation(
            "getMetrics",
            "How busy is it?",
            "Prometheus text exposition (OpenMetrics where asked for).",
            {
                "200": _text(
                    "The metrics of this process.", "text/plain", "application/openmetrics-text"
                )
            },
        ),
        "/openapi.json": _operation(
            "getOpenApi",
            "This document",
            "The same bytes as `contracts/openapi.json`.",
            {"200": answer("OpenAPI 3.1.", {"type": "object"}, {"openapi": "3.1.1"})},
        ),
        "/docs": _operation(
            "getDocs",
            "This document, for people",
            "One page that loads nothing from elsewhere.",
            {"200": _text("The page.", "text/html")},
        ),
    }


def _operation(operation_id: str, summary: str, description: str, responses: Json) -> Json:
    return {
        "get": {
            "operationId": operation_id,
            "tags": ["Operations"],
            "summary": summary,
            "description": description,
            "parameters": _parameters("CorrelationId"),
            "responses": responses | problems(),
        }
    }


def _text(description: str, *media_types: str) -> Json:
    return bodiless(description, ()) | {
        "content": {media_type: {"schema": {"type": "string"}} for media_type in media_types}
    }


def _parameters(*names: str) -> list[Json]:
    return [ref("parameters", name) for name in names]


_NO_LAG = {"events": 0, "seconds": 0.0}

if __name__ == "__main__":
    sys.exit(main())
