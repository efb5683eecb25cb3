"""How a cluster keeps itself as Git says: a Flux Kustomization a component, in an order.

    flotilla (GitRepository) ─▶ platform ─▶ secrets ─▶ servers ─▶ deployables, after whom they ask

One file of an environment's `flux/<environment>/` is applied by hand, once; Flux does the rest. What is
no longer in Git is deleted, except servers with data. A component is ready when its objects are.
"""

from flotilla_platform.generating.artifact import Artifacts, Generator
from flotilla_platform.generating.kubernetes import Spec, labels
from flotilla_platform.generating.kubernetes_servers import roles_job
from flotilla_platform.generating.kustomize import (
    COMPONENT_PLATFORM,
    deployments,
    placed_runs,
    servers,
)
from flotilla_platform.generating.running import Runs, asked_by
from flotilla_platform.generating.writing import yaml_text
from flotilla_platform.model import Environment, GitSource, Layout, Platform, Resource

NAMESPACE = "flux-system"
SECRETS, AGE_KEY = "secrets", "sops-age"
INTERVAL, RETRY_INTERVAL, TIMEOUT = "10m", "1m", "5m"


def generate(platform: Platform) -> Artifacts:
    """Return the source and the Kustomizations of every environment on Kubernetes."""
    found: dict[str, str] = {}
    for environment, layout in deployments(platform):
        if environment.source is None:
            continue
        documents = {"source": _source(environment, environment.source)}
        documents |= _kustomizations(platform, environment, layout)
        for name, document in documents.items():
            found[f"flux/{environment.name}/{name}.yaml"] = yaml_text(document)
    return found


def _source(environment: Environment, source: GitSource) -> Spec:
    return {
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "GitRepository",
        "metadata": _metadata(environment.namespace_name, "source"),
        "spec": {
            "interval": "1m",
            "timeout": "60s",
            "url": source.url,
            "ref": {"branch": source.branch},
        },
    }


def _kustomizations(
    platform: Platform, environment: Environment, layout: Layout
) -> dict[str, Spec]:
    running = servers(layout)
    placed = placed_runs(platform, layout)
    first = _kustomization(environment, COMPONENT_PLATFORM, [])
    secrets = _kustomization(environment, SECRETS, [COMPONENT_PLATFORM])
    secrets["spec"] |= {
        "path": f"./deploy/secrets/{environment.name}",
        "targetNamespace": environment.namespace_name,
        "decryption": {"provider": "sops", "secretRef": {"name": AGE_KEY}},
    }
    found = {COMPONENT_PLATFORM: first, SECRETS: secrets}
    for server in running:
        one = _kustomization(environment, server.name, [COMPONENT_PLATFORM, SECRETS])
        # Never deleted with its data because a file has moved.
        one["spec"] |= {"prune": False, "healthChecks": _server_checks(environment, server)}
        found[server.name] = one
    for run in placed:
        needs = [one.name for one in running if run.uses_store or one.engine == "nats"]
        one = _kustomization(
            environment, run.name, [SECRETS, *needs, *_asked(platform, layout, run)]
        )
        one["spec"]["healthChecks"] = [_check(environment, "apps/v1", "Deployment", run.name)]
        found[run.name] = one
    return found


def _kustomization(environment: Environment, component: str, after: list[str]) -> Spec:
    space = environment.namespace_name
    spec: Spec = {
        "interval": INTERVAL,
        "retryInterval": RETRY_INTERVAL,
        "timeout": TIMEOUT,
        "sourceRef": {"kind": "GitRepository", "name": space},
        "path": f"./deploy/k3s/overlays/{environment.name}/{component}",
        "prune": True,
        "wait": False,
    }
    if component in (COMPONENT_PLATFORM, SECRETS):
        spec["wait"] = True  # without health checks: everything it has applied
    if after:
        spec["dependsOn"] = [{"name": f"{space}-{name}"} for name in after]
    return {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": _metadata(f"{space}-{component}", component),
        "spec": spec,
    }


def _server_checks(environment: Environment, server: Resource) -> list[Spec]:
    found = [_check(environment, "apps/v1", "StatefulSet", server.name)]
    if server.engine == "postgres":
        found.append(_check(environment, "batch/v1", "Job", roles_job(server)))
    return found


def _check(environment: Environment, api: str, kind: str, name: str) -> Spec:
    return {
        "apiVersion": api,
        "kind": kind,
        "name": name,
        "namespace": environment.namespace_name,
    }


def _asked(platform: Platform, layout: Layout, one: Runs) -> list[str]:
    """Return the deployables that a deployable may ask: they are there first."""
    asked = set(asked_by(platform, one))
    return [placed.name for placed in layout.deployables if asked & set(placed.services)]


def _metadata(name: str, component: str) -> Spec:
    return {"name": name, "namespace": NAMESPACE, "labels": labels(component)}


FLUX = Generator("flux", "what a cluster takes from Git, and in which order", ("flux",), generate)
