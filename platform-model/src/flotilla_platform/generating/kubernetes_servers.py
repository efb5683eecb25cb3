"""Servers that run in the cluster: one pod each, with a volume that outlives it.

Their passwords are in a Secret named after the server. PostgreSQL is given its roles and schemas by a
job that may run again at any time; it runs again whenever what it has to say changes.
"""

from typing import Any

from flotilla_platform.generating.kubernetes import (
    NAME,
    USER_ID,
    Spec,
    container_security,
    kind,
    labels,
    pod_security,
    resources,
    scratch,
    secret_name,
    service_account,
    settings_name,
)
from flotilla_platform.generating.kubernetes_network import port_of
from flotilla_platform.generating.nats import MONITORING, PASSWORDS, STORE_DIRECTORY
from flotilla_platform.generating.postgres import roles
from flotilla_platform.generating.running import DATABASE
from flotilla_platform.model import OPERATOR, Platform, Requests, Resource

POSTGRES_USER_ID = 999
"""Who PostgreSQL is in its official image."""
SUPERUSER_PASSWORD = "postgres-superuser"  # noqa: S105 - the name of a file
SECRETS = "/run/secrets"
CONFIG = "/etc/nats"
SQL_FILES = ("10-roles.sql", "20-schemas.sql", "30-grants.sql", "40-passwords.sql")


def roles_job(store: Resource) -> str:
    """Return the name of the job that makes roles and schemas."""
    return f"{store.name}-roles"


def secret_files(platform: Platform, resource: Resource) -> dict[str, str]:
    """Return the files that a server has secrets in, by their keys in its Secret."""
    if resource.engine == "nats":
        return {"NATS_PASSWORDS_CONF": PASSWORDS}
    names = [f"postgres-{one.name}" for one in roles(platform)]
    files = [SUPERUSER_PASSWORD, *names, f"postgres-{OPERATOR}"]
    return {f"{name.upper().replace('-', '_')}_PASSWORD": name for name in files}


def objects(platform: Platform, resource: Resource) -> dict[str, Spec]:
    """Return the objects of a server, by the names of their files."""
    name, port = resource.name, port_of(resource)
    service = {
        "clusterIP": "None",
        "selector": {NAME: name},
        "ports": [{"name": resource.engine, "port": port, "targetPort": resource.engine}],
    }
    make = _nats if resource.engine == "nats" else _postgres
    pod, path = make(platform, resource)
    claim = {
        "metadata": {"name": "data", "labels": labels(name)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{resource.limits.storage_mib or 1024}Mi"}},
        },
    }
    pod["containers"][0]["volumeMounts"].append({"name": "data", "mountPath": path})
    spec = {
        "serviceName": name,
        "replicas": 1,
        "selector": {"matchLabels": {NAME: name}},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "template": {"metadata": {"labels": labels(name)}, "spec": pod},
        "volumeClaimTemplates": [claim],
    }
    found = {
        "service-account": service_account(name),
        "service": kind("v1", "Service", name, spec=service),
        "stateful-set": kind("apps/v1", "StatefulSet", name, spec=spec),
    }
    if resource.engine == "postgres":
        found["roles-service-account"] = service_account(roles_job(resource))
        found["roles-job"] = _roles_job(platform, resource)
    return found


def _pod(platform: Platform, resource: Resource, user: int, container: Spec) -> Spec:
    files = secret_files(platform, resource)
    return {
        "serviceAccountName": resource.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(user),
        "terminationGracePeriodSeconds": resource.stop_timeout_s,
        "containers": [
            {
                "name": resource.name,
                "image": resource.image,
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": resource.engine, "containerPort": port_of(resource)}],
                "resources": resources(resource.requests),
                "securityContext": container_security(),
            }
            | container
        ],
        "volumes": [scratch(), _secret(resource, files)],
    }


def _secret(resource: Resource, files: dict[str, str]) -> Spec:
    items = [{"key": key, "path": path} for key, path in files.items()]
    secret = {"secretName": secret_name(resource.name), "defaultMode": 0o440, "items": items}
    return {"name": "secrets", "secret": secret}


def _mount(name: str, path: str, **rest: Any) -> Spec:
    return {"name": name, "mountPath": path, "readOnly": True, **rest}


def _probe(command: list[str], *, period_s: int, failures: int) -> Spec:
    return {
        "exec": {"command": command},
        "periodSeconds": period_s,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _probes(command: list[str]) -> Spec:
    return {
        "startupProbe": _probe(command, period_s=2, failures=60),
        "livenessProbe": _probe(command, period_s=10, failures=6),
        "readinessProbe": _probe(command, period_s=5, failures=2),
    }


def _nats(platform: Platform, bus: Resource) -> tuple[Spec, str]:
    container = {
        "args": ["--config", f"{CONFIG}/nats-server.conf"],
        **_probes(["wget", "-q", "-O", "-", f"http://{MONITORING}/healthz"]),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
            _mount("config", f"{CONFIG}/nats-server.conf", subPath="nats-server.conf"),
            _mount("secrets", f"{CONFIG}/{PASSWORDS}", subPath=PASSWORDS),
        ],
    }
    pod = _pod(platform, bus, USER_ID, container)
    pod["volumes"].append({"name": "config", "configMap": {"name": settings_name(bus.name)}})
    return pod, STORE_DIRECTORY


def _postgres(platform: Platform, store: Resource) -> tuple[Spec, str]:
    ready = ["pg_isready", "--quiet", "--host=127.0.0.1", "--username=postgres"]
    container = {
        "args": ["postgres", "-c", f"max_connections={store.limits.max_connections or 100}"],
        "env": [
            {"name": "POSTGRES_DB", "value": DATABASE},
            {"name": "POSTGRES_PASSWORD_FILE", "value": f"{SECRETS}/{SUPERUSER_PASSWORD}"},
        ],
        **_probes(ready),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
            {"name": "tmp", "mountPath": "/var/run/postgresql", "subPath": "socket"},
            _mount("secrets", SECRETS),
        ],
    }
    return _pod(platform, store, POSTGRES_USER_ID, container), "/var/lib/postgresql"


def _roles_job(platform: Platform, store: Resource) -> Spec:
    name = roles_job(store)
    psql = " ".join(
        ["exec psql -X -q -v ON_ERROR_STOP=1", *(f"-f /sql/{file}" for file in SQL_FILES)]
    )
    container: Spec = {
        "name": name,
        "command": ["sh", "-euc", f'PGPASSWORD="$(cat {SECRETS}/{SUPERUSER_PASSWORD})" {psql}'],
        "ports": [],
        "env": [
            {"name": "PGHOST", "value": store.name},
            {"name": "PGPORT", "value": str(port_of(store))},
            {"name": "PGUSER", "value": "postgres"},
            {"name": "PGDATABASE", "value": DATABASE},
            {"name": "PGCONNECT_TIMEOUT", "value": "5"},
        ],
        "resources": resources(Requests(memory_limit_mib=128)),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
            _mount("secrets", SECRETS),
            _mount("sql", "/sql"),
        ],
    }
    pod = _pod(platform, store, POSTGRES_USER_ID, container)
    pod["serviceAccountName"] = name
    pod["restartPolicy"] = "OnFailure"
    pod["volumes"].append({"name": "sql", "configMap": {"name": settings_name(store.name)}})
    job = kind(
        "batch/v1",
        "Job",
        name,
        spec={
            "backoffLimit": 10,
            "activeDeadlineSeconds": 600,
            "template": {"metadata": {"labels": labels(name)}, "spec": pod},
        },
    )
    # A job cannot be changed: Flux makes it anew when the files that it is given have changed.
    job["metadata"]["annotations"] = {"kustomize.toolkit.fluxcd.io/force": "enabled"}
    return job
