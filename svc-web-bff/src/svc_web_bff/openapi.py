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

from svc_web_bff.openapi_counters import counter_paths
from svc_web_bff.openapi_parts import Json, answer, bodiless, components, problems, ref, refs
from svc_web_bff.openapi_schemas import schemas
from svc_web_bff.openapi_tenants import tenant_paths

PATH = Path(*Path(__file__).parts[:-4], "contracts", "openapi.json")
"""The generated file of a checkout; an installed package may lie too high for one."""
ASSETS = files("svc_web_bff") / "assets"
CURE = "python -m svc_web_bff.openapi"


def document() -> Json:
    """Return the document."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Flotilla",
            "version": "1.0.0",
            "summary": "Tenants and their counters, event-sourced.",
            "description": (ASSETS / "api.md").read_text("utf-8").strip(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "Where this document comes from."}],
        "tags": [
            {"name": "Counters", "description": "Count, and see what was counted."},
            {
                "name": "Tenants",
                "description": "Who belongs together, and who may do what. A user is needed.",
            },
            {"name": "Operations", "description": "For those who run it. No tenant is needed."},
        ],
        "paths": counter_paths() | tenant_paths() | _operation_paths(),
        "components": components(schemas()),
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
            "parameters": refs("parameters", "CorrelationId"),
            "responses": responses | problems(),
        }
    }


def _text(description: str, *media_types: str) -> Json:
    return bodiless(description, ()) | {
        "content": {media_type: {"schema": {"type": "string"}} for media_type in media_types}
    }


_NO_LAG = {"events": 0, "seconds": 0.0}

if __name__ == "__main__":
    sys.exit(main())
