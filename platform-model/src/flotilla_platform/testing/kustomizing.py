"""Renders a kustomization, as far as the generated ones go; anything else is an error.

`resources`, `namespace`, `replicas`, `images` and `configMapGenerator` (with hashes), in the order of
Kustomize. `make check-kustomize` compares it with the real one, for whoever has `kubectl`.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

type Object = dict[str, Any]

KNOWN = {"apiVersion", "kind", "namespace", "resources", "replicas", "images", "configMapGenerator"}
CLUSTER_WIDE = {"Namespace"}
_YAML = YAML(typ="safe", pure=True)
HASH_CHARACTERS = str.maketrans("013ae", "ghkmt")


def render(folder: Path) -> list[Object]:
    """Return the objects of a kustomization, with the namespaces and names they have in a cluster."""
    found = _collect(folder)
    renamed = {name: _hashed(one) for name, one in _config_maps(found).items()}
    for one in found:
        for reference in _config_map_references(one):
            reference["name"] = renamed.get(reference["name"], reference["name"])
    for name, one in _config_maps(found).items():
        one["metadata"]["name"] = renamed[name]
    return found


def _collect(folder: Path) -> list[Object]:
    asked = _YAML.load(folder / "kustomization.yaml")
    if unknown := asked.keys() - KNOWN:
        raise AssertionError(f"{folder}: {sorted(unknown)} is not rendered here")
    found: list[Object] = []
    for name in asked["resources"]:
        path = (folder / name).resolve()
        found += _collect(path) if path.is_dir() else [_YAML.load(path)]
    found += [_generated(folder, one) for one in asked.get("configMapGenerator", ())]
    counts = {one["name"]: one["count"] for one in asked.get("replicas", ())}
    images = {one["name"]: one for one in asked.get("images", ())}
    for one in found:
        if one["metadata"]["name"] in counts and "replicas" in one.get("spec", {}):
            one["spec"]["replicas"] = counts[one["metadata"]["name"]]
        for container in containers(one):
            if change := images.get(container["image"]):
                container["image"] = _image(change)
        if asked.get("namespace") and one["kind"] not in CLUSTER_WIDE:
            one["metadata"]["namespace"] = asked["namespace"]
    return found


def pod_of(one: Object) -> Object | None:
    """Return the specification of the pods that an object makes."""
    pod: Object | None = one.get("spec", {}).get("template", {}).get("spec")
    return pod


def containers(one: Object) -> list[Object]:
    """Return the containers of the pods that an object makes."""
    pod = pod_of(one)
    return list(pod["containers"]) if pod else []


def _generated(folder: Path, asked: Object) -> Object:
    data = dict(one.split("=", 1) for one in asked.get("literals", ()))
    for name in asked.get("files", ()):
        if "/" in name:
            raise AssertionError(f"{folder}: {name} is outside of it")
        data[name] = (folder / name).read_text(encoding="utf-8")
    metadata = {"name": asked["name"], "labels": dict(asked["options"]["labels"])}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _hashed(one: Object) -> str:
    content = {"data": one["data"], "kind": "ConfigMap", "name": ""}  # as Kustomize does
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    digest = hashlib.sha256(text.encode()).hexdigest()[:10].translate(HASH_CHARACTERS)
    return f"{one['metadata']['name']}-{digest}"


def _config_maps(found: list[Object]) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in found if one["kind"] == "ConfigMap"}


def _config_map_references(one: Object) -> Iterator[Object]:
    for container in containers(one):
        yield from (source["configMapRef"] for source in container.get("envFrom", ()))
    pod = pod_of(one)
    yield from (
        volume["configMap"] for volume in (pod or {}).get("volumes", ()) if "configMap" in volume
    )


def _image(change: Object) -> str:
    name = change.get("newName", change["name"])
    return f"{name}@{change['digest']}" if "digest" in change else f"{name}:{change['newTag']}"


def _identity(one: Object) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]


if __name__ == "__main__":  # standard input: what Kustomize made of the folder
    real = sorted(_YAML.load_all(sys.stdin), key=_identity)
    if sorted(render(Path(sys.argv[1])), key=_identity) != real:
        sys.exit(f"{sys.argv[1]}: Kustomize renders something else")
