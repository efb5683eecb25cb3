"""The fleet on Kubernetes: a Kustomize base, and an overlay an environment.

    k3s/base/<component>/                    what is the same everywhere
    k3s/overlays/<environment>/<component>/  replicas, image, settings, host; `platform`: the namespace
    k3s/overlays/<environment>/              all of it, for `kubectl apply --kustomize`

A component is a deployable, a server, or `platform`. Every overlay of a component can be applied alone.
ConfigMaps are named by what is in them, so that a change of settings is a roll-out. Secrets are not
here: they are encrypted in deploy/secrets/<environment>/.
"""

from collections.abc import Iterator, Mapping

from flotilla_platform.generating import nats, postgres
from flotilla_platform.generating.artifact import Artifacts, Generator
from flotilla_platform.generating.kubernetes import (
    HTTP,
    PLATFORM,
    Spec,
    kind,
    labels,
    objects,
    settings,
    settings_name,
)
from flotilla_platform.generating.kubernetes_network import (
    client_policy,
    deployable_policy,
    platform_policies,
    server_policy,
)
from flotilla_platform.generating.kubernetes_servers import SQL_FILES, roles_job
from flotilla_platform.generating.kubernetes_servers import objects as server_objects
from flotilla_platform.generating.running import Runs, runs
from flotilla_platform.generating.writing import yaml_text
from flotilla_platform.model import Environment, Layout, Platform, Resource

COMPONENT_PLATFORM = "platform"
NOT_RELEASED = "sha256:" + 64 * "0"
"""The digest of an image that was not released: nothing can be pulled by it, nothing unpinned runs."""

type Files = Iterator[tuple[str, str]]


def generate(platform: Platform) -> Artifacts:
    """Return the bases, and the overlays of all environments that are on Kubernetes."""
    found: dict[str, str] = {}
    for layout in platform.layouts.values():
        if layout.kind == "kubernetes":
            found |= dict(_base(platform, layout))
    for environment, layout in deployments(platform):
        found |= dict(_overlay(platform, environment, layout))
    return found


def deployments(platform: Platform) -> Iterator[tuple[Environment, Layout]]:
    """Yield the environments that are on Kubernetes, and what runs there."""
    for environment, layout in platform.deployments():
        if layout.kind == "kubernetes":
            yield environment, layout


def servers(layout: Layout) -> list[Resource]:
    """Return the servers that the cluster runs."""
    return [one for one in layout.resources if one.server == "container"]


def components(layout: Layout) -> list[str]:
    """Return what is applied, in this order."""
    names = [one.name for one in servers(layout)]
    return [COMPONENT_PLATFORM, *names, *(placed.name for placed in layout.deployables)]


def placed_runs(platform: Platform, layout: Layout) -> list[Runs]:
    """Return the deployables of a layout with their services, in the order of the layout."""
    return [runs(platform, placed.deployable, placed.replicas) for placed in layout.deployables]


def image_of(environment: Environment, one: Runs) -> Spec:
    """Return how an environment names the image of a deployable, for Kustomize."""
    name = one.deployable.image_name
    found: Spec = {"name": name}
    if environment.registry:
        found["newName"] = f"{environment.registry}/{name}"
    if environment.image_tag == "digest":
        digests = {image.deployable: image.digest for image in environment.images}
        return found | {"digest": digests.get(one.name, NOT_RELEASED)}
    return found | {"newTag": environment.release}


def _base(platform: Platform, layout: Layout) -> Files:
    placed = placed_runs(platform, layout)
    yield from _folder(f"base/{COMPONENT_PLATFORM}", platform_policies())
    for server in servers(layout):
        uses = [one.name for one in placed if one.uses_store or server.engine == "nats"]
        parts = server_objects(platform, server)
        if server.engine == "postgres":
            uses.append(roles_job(server))
            parts["roles-network-policy"] = client_policy(roles_job(server), server)
        parts["network-policy"] = server_policy(server, uses)
        files = _server_files(platform, server)
        for name, text in files.items():
            yield f"k3s/base/{server.name}/{name}", text
        generated = {"configMapGenerator": [_from_files(server, files)]}
        yield from _folder(f"base/{server.name}", parts, generated)
    for one in placed:
        parts = objects(one) | {"network-policy": deployable_policy(layout, one)}
        yield from _folder(f"base/{one.name}", parts)


def _overlay(platform: Platform, environment: Environment, layout: Layout) -> Files:
    folder, space = f"overlays/{environment.name}", environment.namespace_name
    everything = _kustomization(space, components(layout))
    yield f"k3s/{folder}/kustomization.yaml", yaml_text(everything)
    enforced = {
        f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")
    }
    namespace: Spec = {"apiVersion": "v1", "kind": "Namespace"}
    namespace["metadata"] = {"name": space, "labels": labels(PLATFORM) | enforced}
    path = f"{folder}/{COMPONENT_PLATFORM}"
    yield f"k3s/{path}/namespace.yaml", yaml_text(namespace)
    base = f"../../../base/{COMPONENT_PLATFORM}"
    yield (
        f"k3s/{path}/kustomization.yaml",
        yaml_text(_kustomization(space, [base, "namespace.yaml"])),
    )
    for server in servers(layout):
        document = _kustomization(space, [f"../../../base/{server.name}"])
        yield f"k3s/{folder}/{server.name}/kustomization.yaml", yaml_text(document)
    for one in placed_runs(platform, layout):
        included = [f"../../../base/{one.name}"]
        if one.deployable.http_port:
            included.append("ingress.yaml")
            ingress = _ingress(environment, layout, one)
            yield f"k3s/{folder}/{one.name}/ingress.yaml", yaml_text(ingress)
        document = _kustomization(space, included) | {
            "replicas": [{"name": one.name, "count": one.replicas_max}],
            "images": [image_of(environment, one)],
            "configMapGenerator": [
                {
                    "name": settings_name(one.name),
                    "literals": [
                        f"{key}={value}"
                        for key, value in _settings(environment, layout, one).items()
                    ],
                    "options": {"labels": labels(one.name)},
                }
            ],
        }
        yield f"k3s/{folder}/{one.name}/kustomization.yaml", yaml_text(document)


def _settings(environment: Environment, layout: Layout, one: Runs) -> Mapping[str, str]:
    found = settings(layout, one) | {"FLOTILLA_LOG_LEVEL": environment.log_level}
    for service in one.services:
        if "http" in service.needs:
            found[f"{service.settings_prefix}PROFILE"] = environment.profile
    return found


def _ingress(environment: Environment, layout: Layout, one: Runs) -> Spec:
    backend = {"service": {"name": one.name, "port": {"name": HTTP}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    spec = {
        "ingressClassName": layout.topology.cluster.ingress_class,
        # Without the name of a secret the certificate is the controller's.
        "tls": [{"hosts": [environment.host]}],
        "rules": [{"host": environment.host, "http": {"paths": [path]}}],
    }
    return kind("networking.k8s.io/v1", "Ingress", one.name, spec=spec)


def _server_files(platform: Platform, server: Resource) -> dict[str, str]:
    if server.engine == "nats":
        text = nats.generate(platform)[nats.CONFIG]
        return {nats.CONFIG.rpartition("/")[2]: text}
    sql = postgres.generate(platform)
    return {name: sql[f"postgres/{name}"] for name in SQL_FILES}


def _from_files(server: Resource, files: Mapping[str, str]) -> Spec:
    return {
        "name": settings_name(server.name),
        "files": sorted(files),
        "options": {"labels": labels(server.name)},
    }


def _kustomization(namespace: str | None, included: list[str]) -> Spec:
    document: Spec = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    if namespace:
        document["namespace"] = namespace
    return document | {"resources": included}


def _folder(folder: str, parts: Mapping[str, Spec], more: Spec | None = None) -> Files:
    names = [f"{name}.yaml" for name in sorted(parts)]
    for name, part in parts.items():
        yield f"k3s/{folder}/{name}.yaml", yaml_text(part)
    yield f"k3s/{folder}/kustomization.yaml", yaml_text(_kustomization(None, names) | (more or {}))


KUSTOMIZE = Generator("kustomize", "base and overlays for Kubernetes", ("k3s",), generate)
