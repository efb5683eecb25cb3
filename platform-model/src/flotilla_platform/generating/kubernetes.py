"""A deployable on Kubernetes: its objects, as hardened as the pod security standard `restricted` asks.

    Deployment ── Service, PodDisruptionBudget, ServiceAccount; its ConfigMap, its Secret

Files of secrets are mounted, so that no environment variable holds one. A pod is ready when `/readyz`
says so; it has a minute to start. Until a pod that stops is out of every load balancer it still serves:
that is what `DRAIN_S` is for.
"""

from typing import Any

from flotilla_platform.generating.running import Runs
from flotilla_platform.model import Layout, Requests

USER_ID = 65532
"""Who the processes of our images are (`USER` in deploy/docker/Dockerfile)."""
DRAIN_S = 5
KILL_MARGIN_S = 5
NAME, PART_OF, COMPONENT = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/component",
)
PLATFORM = "flotilla"
SECRETS_PATH = "/run/secrets/flotilla"
ADMIN, HTTP = "admin", "http"

type Spec = dict[str, Any]


def labels(name: str) -> Spec:
    """Return what everything of a component is labelled with."""
    return {NAME: name, PART_OF: PLATFORM}


def kind(api: str, kind: str, name: str, **rest: Any) -> Spec:
    """Return an object with its labels."""
    head: Spec = {"apiVersion": api, "kind": kind}
    return head | {"metadata": {"name": name, "labels": labels(name)}} | rest


def secret_name(component: str) -> str:
    """Return the name of the Secret of a component, as `flotilla secrets` writes it."""
    return f"flotilla-{component}"


def settings_name(component: str) -> str:
    """Return the name of the ConfigMap with a component's settings, before its hash."""
    return f"{component}-settings"


def pod_security(user: int) -> Spec:
    """Return the security context of a pod whose processes are `user`."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Spec:
    """Return the security context of every container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def resources(given: Requests | None) -> Spec:
    """Return what a container is given."""
    given = given or Requests()
    limits: Spec = {"memory": f"{given.memory_limit_mib}Mi"}
    if given.cpu_limit_millis is not None:
        limits = {"cpu": f"{given.cpu_limit_millis}m", **limits}
    requests = {"cpu": f"{given.cpu_request_millis}m", "memory": f"{given.memory_request_mib}Mi"}
    return {"requests": requests, "limits": limits}


def scratch(size: str = "16Mi") -> Spec:
    """Return a volume for /tmp."""
    return {"name": "tmp", "emptyDir": {"sizeLimit": size}}


def service_account(name: str) -> Spec:
    """Return an account that may nothing: no token of it is mounted."""
    return kind("v1", "ServiceAccount", name) | {"automountServiceAccountToken": False}


def variable(secret: str) -> str:
    """Return the variable that has a secret; also its key in the Secret."""
    return f"FLOTILLA_{secret.upper().replace('-', '_')}"


def settings(layout: Layout, one: Runs) -> dict[str, str]:
    """Return the settings of a deployable that are the same in every environment."""
    found = {
        "FLOTILLA_TOPOLOGY": layout.name,
        "FLOTILLA_ADMIN_HOST": "0.0.0.0",  # noqa: S104 - in a pod of its own
        "FLOTILLA_ADMIN_PORT": str(one.deployable.admin_port),
    }
    if one.deployable.http_port:
        found["FLOTILLA_HTTP_PORT"] = str(one.deployable.http_port)
    return found | {f"{variable(name)}_FILE": f"{SECRETS_PATH}/{name}" for name in one.secrets}


def objects(one: Runs) -> dict[str, Spec]:
    """Return the objects of a deployable, by the names of their files."""
    name, selector = one.name, {"matchLabels": {NAME: one.name}}
    ports = [{"name": ADMIN, "port": one.deployable.admin_port, "targetPort": ADMIN}]
    if one.deployable.http_port:
        ports.insert(0, {"name": HTTP, "port": one.deployable.http_port, "targetPort": HTTP})
    unavailable = one.deployable.disruption.max_unavailable
    return {
        "service-account": service_account(name),
        "deployment": kind("apps/v1", "Deployment", name, spec=_deployment(one, selector)),
        "service": kind("v1", "Service", name, spec={"selector": {NAME: name}, "ports": ports}),
        "disruption-budget": kind(
            "policy/v1",
            "PodDisruptionBudget",
            name,
            spec={"maxUnavailable": unavailable, "selector": selector},
        ),
    }


def _deployment(one: Runs, selector: Spec) -> Spec:
    stop_s = one.deployable.stop_timeout_s
    mounted = [{"key": variable(name), "path": name} for name in one.secrets]
    pod: Spec = {
        "serviceAccountName": one.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(USER_ID),
        "terminationGracePeriodSeconds": DRAIN_S + stop_s + KILL_MARGIN_S,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": selector,
            }
        ],
        "containers": [_container(one)],
        "volumes": [
            scratch(),
            {
                "name": "secrets",
                "secret": {
                    "secretName": secret_name(one.name),
                    "defaultMode": 0o440,
                    "items": mounted,
                },
            },
        ],
    }
    return {
        "replicas": one.replicas_max,
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": 300,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
        "selector": selector,
        "template": {"metadata": {"labels": labels(one.name)}, "spec": pod},
    }


def _container(one: Runs) -> Spec:
    ports = [{"name": ADMIN, "containerPort": one.deployable.admin_port}]
    if one.deployable.http_port:
        ports.insert(0, {"name": HTTP, "containerPort": one.deployable.http_port})
    return {
        "name": one.name,
        "image": one.deployable.image_name,
        "imagePullPolicy": "IfNotPresent",
        "envFrom": [{"configMapRef": {"name": settings_name(one.name)}}],
        "ports": ports,
        "startupProbe": _probe("/healthz", period_s=2, failures=30),
        "livenessProbe": _probe("/healthz", period_s=10, failures=3),
        "readinessProbe": _probe("/readyz", period_s=5, failures=2),
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_S}}},
        "resources": resources(one.deployable.resources),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
            {"name": "secrets", "mountPath": SECRETS_PATH, "readOnly": True},
        ],
    }


def _probe(path: str, *, period_s: int, failures: int) -> Spec:
    return {
        "httpGet": {"path": path, "port": ADMIN},
        "periodSeconds": period_s,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }
