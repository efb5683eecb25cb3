"""The bill of materials of an image: what the lock file says, and what the base brought.

CycloneDX 1.5, JSON. Two bills of the same commit are the same bytes: the serial number follows from
the content, and the time is the commit's.
"""

import json
import platform
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.markers import Marker

from images.context import PYTHON_VERSION
from images.shell import Unable

_NAMESPACE = uuid.UUID("0f6c3c8e-5d0e-5a55-9f5e-3c1f4b1a6f00")
_CPYTHON = f"cp{PYTHON_VERSION.replace('.', '')}"
_MARKER = "uv:package:marker"
_TARGET = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "python_version": PYTHON_VERSION,
    "python_full_version": f"{PYTHON_VERSION}.0",
    "platform_machine": platform.machine(),
}

type Json = dict[str, Any]


def complete(
    locked: Json, image: str, version: str, os_packages: Mapping[str, Any], moment_s: int
) -> str:
    """Return the bill of an image as text: `locked` is uv's, `os_packages` what distil.py found.

    `moment_s` is the commit's, in seconds since 1970.

    Raises:
        Unable: what came out is not valid against CycloneDX's own schema.
    """
    root = locked["metadata"]["component"]["bom-ref"]
    kept = [_as_installed(part) for part in locked["components"] if _installed(part)]
    base = [_interpreter(os_packages["python"])]
    base += [_debian(package) for package in os_packages["packages"]]
    refs = {part["bom-ref"] for part in [*kept, *base]} | {root}
    bill: Json = {
        **{key: locked[key] for key in ("bomFormat", "specVersion", "version")},
        "metadata": {
            "timestamp": datetime.fromtimestamp(moment_s, UTC).isoformat(),
            "tools": locked["metadata"]["tools"],
            "component": {"type": "container", "bom-ref": root, "name": image, "version": version},
        },
        "components": sorted([*kept, *base], key=lambda part: str(part["bom-ref"])),
        "dependencies": [
            _depends(
                entry, refs, [part["bom-ref"] for part in base] if entry["ref"] == root else []
            )
            for entry in locked["dependencies"]
            if entry["ref"] in refs
        ],
    }
    content = json.dumps(bill, sort_keys=True)
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}"
    text = json.dumps(bill, indent=2, sort_keys=True) + "\n"
    if wrong := JsonStrictValidator(SchemaVersion.V1_5).validate_str(text):
        raise Unable(f"the bill of materials of {image} is not CycloneDX 1.5: {wrong}")
    return text


def _installed(part: Json) -> bool:
    """Whether a locked package is for the machine that the image runs on."""
    markers = [p["value"] for p in part.get("properties", []) if p["name"] == _MARKER]
    return all(Marker(marker).evaluate(_TARGET) for marker in markers)


def _as_installed(part: Json) -> Json:
    """Return a locked package with those of its files that the image may have been made from."""
    told = [
        ref for ref in part.get("externalReferences", []) if _fits(ref["url"].rsplit("/", 1)[1])
    ]
    return {**part, "externalReferences": told}


def _fits(file: str) -> bool:
    if not file.endswith(".whl"):
        return False
    interpreter, abi, machine = file.removesuffix(".whl").rsplit("-", 3)[1:]
    right = interpreter in {_CPYTHON, "py3", "py2.py3"} or abi == "abi3"
    return right and (
        machine == "any" or ("manylinux" in machine and platform.machine() in machine)
    )


def _depends(entry: Json, refs: set[str], more: list[str]) -> Json:
    return {
        "ref": entry["ref"],
        "dependsOn": sorted({ref for ref in entry.get("dependsOn", []) if ref in refs} | set(more)),
    }


def _interpreter(version: str) -> Json:
    purl = f"pkg:generic/python@{version}"
    return {
        "type": "application",
        "bom-ref": purl,
        "name": "python",
        "version": version,
        "purl": purl,
    }


def _debian(package: Mapping[str, str]) -> Json:
    name, version = package["name"], package["version"]
    where = f"?arch={package['architecture']}"
    purl = f"pkg:deb/debian/{name}@{quote(version, safe='~')}{where}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
