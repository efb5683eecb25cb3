"""The fleet in containers of one machine: a compose file, for topologies of containers.

    outside ── web-bff ─┬─ inside ── counter, outbox-relay, projector ── nats, postgres
                        └ 127.0.0.1:8080

Everything is read-only, without privileges, as a user of its own, and limited. Secrets are files, one
folder of them (`FLOTILLA_SECRETS`), and every container is given its own alone. Two jobs run before the
others, at every start: one gives the broker's volume to its user, one makes roles and schemas as
`postgres/*.sql` has them. Who answers whom is waited for: healthy means `/readyz` says yes.
"""

from collections.abc import Sequence
from typing import Any

from flotilla_platform.generating.artifact import Artifacts, Generator
from flotilla_platform.generating.nats import MONITORING, STORE_DIRECTORY
from flotilla_platform.generating.nats import PASSWORDS as NATS_PASSWORDS
from flotilla_platform.generating.postgres import roles
from flotilla_platform.generating.running import (
    DATABASE,
    Runs,
    asked_by,
    runs,
)
from flotilla_platform.generating.writing import yaml_text
from flotilla_platform.model import OPERATOR, Layout, Platform, Requests, Resource

SECRETS = "${FLOTILLA_SECRETS:-../../.flotilla/compose}"
"""Where the values are: outside of what is generated, and of what is committed."""
TAG = "${FLOTILLA_VERSION:-latest}"
USER = "65532:65532"
POSTGRES_USER = "999:999"
SUPERUSER_PASSWORD = "postgres-superuser"  # noqa: S105 - the name of a file
LOGGING = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}
HEALTHY = ["CMD", "python3", "-IS", "/usr/lib/flotilla/healthy.py"]
"""Asks `/readyz` of the admin port; in every image of ours."""
ROLES_JOB, VOLUME_JOB = "store-roles", "bus-volume"

type Spec = dict[str, Any]


def generate(platform: Platform) -> Artifacts:
    """Return a compose file for every topology of containers."""
    return {
        f"compose/{layout.name}.yaml": yaml_text(_file(platform, layout))
        for layout in platform.layouts.values()
        if layout.kind == "containers"
    }


def secret_names(platform: Platform, layout: Layout) -> tuple[str, ...]:
    """Return the files that the folder of secrets has to have."""
    found = {name for one in _placed(platform, layout) for name in _secrets_of(one)}
    if layout.resources.store.server == "container":
        found |= {SUPERUSER_PASSWORD, *_role_passwords(platform)}
    if layout.resources.bus.server == "container":
        found.add(f"nats-{NATS_PASSWORDS}")
    return tuple(sorted(found))


def _file(platform: Platform, layout: Layout) -> Spec:
    services: Spec = {}
    volumes: Spec = {}
    store, bus = layout.resources
    if store.server == "container":
        services |= _store(platform, store)
        volumes[store.name] = {}
    if bus.server == "container":
        services |= _bus(bus)
        volumes[bus.name] = {}
    for one in _placed(platform, layout):
        services[one.name] = _deployable(platform, layout, one)
    secrets = secret_names(platform, layout)
    return {
        "name": DATABASE,
        "services": services,
        "networks": {"inside": {"internal": True}, "outside": {}},
        "volumes": volumes,
        "secrets": {name: {"file": f"{SECRETS}/{name}"} for name in secrets},
    }


def _placed(platform: Platform, layout: Layout) -> list[Runs]:
    return [runs(platform, placed.deployable, placed.replicas) for placed in layout.deployables]


def _secrets_of(one: Runs) -> list[str]:
    return [f"{one.name}-{name}" for name in one.secrets]


def _role_passwords(platform: Platform) -> list[str]:
    return [*(f"postgres-{one.name}" for one in roles(platform)), f"postgres-{OPERATOR}"]


def _hardened(user: str) -> Spec:
    return {
        "user": user,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp:size=16m,mode=1777"],  # noqa: S108 - the container's own
        "logging": LOGGING,
    }


def _limits(given: Requests | None, replicas: int = 1) -> Spec:
    given = given or Requests()
    limits: Spec = {"memory": f"{given.memory_limit_mib}M", "pids": given.pids_limit}
    if given.cpu_limit_millis is not None:
        limits = {"cpus": _cpus(given.cpu_limit_millis), **limits}
    reserved = {
        "cpus": _cpus(given.cpu_request_millis),
        "memory": f"{given.memory_request_mib}M",
    }
    found: Spec = {"resources": {"limits": limits, "reservations": reserved}}
    return found if replicas == 1 else {"replicas": replicas, **found}


def _cpus(millis: int) -> str:
    return f"{millis / 1000:g}"


def _deployable(platform: Platform, layout: Layout, one: Runs) -> Spec:
    deployable = one.deployable
    environment = {"FLOTILLA_TOPOLOGY": layout.name, "FLOTILLA_ADMIN_HOST": "0.0.0.0"}  # noqa: S104 - in a container
    environment["FLOTILLA_ADMIN_PORT"] = str(deployable.admin_port)
    for name in one.secrets:
        variable = f"FLOTILLA_{name.upper().replace('-', '_')}_FILE"
        environment[variable] = f"/run/secrets/{one.name}-{name}"
    spec: Spec = {
        "image": f"{deployable.image_name}:{TAG}",
        **_hardened(USER),
        "environment": environment,
        "env_file": [{"path": f"{SECRETS}/{one.name}.env", "required": False}],
        "secrets": _secrets_of(one),
        "depends_on": _awaited(platform, layout, one),
        "healthcheck": _healthcheck(HEALTHY, interval="2s", start="60s"),
        "networks": ["inside"],
        "restart": "unless-stopped",
        "stop_grace_period": f"{deployable.stop_timeout_s}s",
        "deploy": _limits(deployable.resources, one.replicas_max),
    }
    if port := deployable.http_port:
        environment["FLOTILLA_HTTP_PORT"] = str(port)
        spec["networks"] = ["inside", "outside"]
        spec["ports"] = [f"127.0.0.1:${{FLOTILLA_PORT:-{port}}}:{port}"]
    return spec


def _awaited(platform: Platform, layout: Layout, one: Runs) -> Spec:
    """Return what has to be there first: servers, and whom it asks."""
    store, bus = layout.resources
    found: dict[str, str] = {}
    if one.uses_store and store.server == "container":
        found |= {store.name: "service_healthy", ROLES_JOB: "service_completed_successfully"}
    if bus.server == "container":
        found[bus.name] = "service_healthy"
    asked = set(asked_by(platform, one))
    found |= {
        placed.name: "service_healthy"
        for placed in layout.deployables
        if asked & set(placed.services)
    }
    return {name: {"condition": condition} for name, condition in found.items()}


def _healthcheck(test: Sequence[str], *, interval: str, start: str) -> Spec:
    return {
        "test": list(test),
        "interval": interval,
        "timeout": "3s",
        "retries": 5,
        "start_period": start,
    }


def _image(resource: Resource) -> str:
    return f"${{FLOTILLA_{resource.engine.upper()}_IMAGE:-{resource.image}}}"


def _store(platform: Platform, store: Resource) -> Spec:
    connections = store.limits.max_connections or 100
    server: Spec = {
        "image": _image(store),
        "command": ["postgres", "-c", f"max_connections={connections}"],
        **_hardened(POSTGRES_USER),
        "environment": {
            "POSTGRES_DB": DATABASE,
            "POSTGRES_PASSWORD_FILE": f"/run/secrets/{SUPERUSER_PASSWORD}",
        },
        "secrets": [SUPERUSER_PASSWORD],
        "volumes": [f"{store.name}:/var/lib/postgresql"],
        "shm_size": "128m",
        # On TCP: while initdb is at work, the server listens on its socket only.
        "healthcheck": _healthcheck(
            ["CMD", "pg_isready", "--quiet", "--host=127.0.0.1", "--username=postgres"],
            interval="2s",
            start="60s",
        ),
        "networks": ["inside"],
        "restart": "unless-stopped",
        "stop_grace_period": f"{store.stop_timeout_s}s",
        "deploy": _limits(store.requests),
    }
    server["tmpfs"] = [*server["tmpfs"], "/var/run/postgresql:size=1m,mode=1777"]
    files = ("10-roles", "20-schemas", "30-grants", "40-passwords")
    psql = " ".join(["exec psql -X -q -v ON_ERROR_STOP=1", *(f"-f /sql/{f}.sql" for f in files)])
    job: Spec = {
        "image": _image(store),
        "entrypoint": [
            "sh",
            "-euc",
            f"PGPASSWORD=$$(cat /run/secrets/{SUPERUSER_PASSWORD}) {psql}",
        ],
        **_hardened(POSTGRES_USER),
        "environment": {"PGHOST": store.name, "PGUSER": "postgres", "PGDATABASE": DATABASE},
        "secrets": [SUPERUSER_PASSWORD, *_role_passwords(platform)],
        "volumes": ["../postgres:/sql:ro"],
        "depends_on": {store.name: {"condition": "service_healthy"}},
        "networks": ["inside"],
        "restart": "on-failure:5",
        "deploy": _limits(Requests(memory_limit_mib=128)),
    }
    return {store.name: server, ROLES_JOB: job}


def _bus(bus: Resource) -> Spec:
    passwords = f"nats-{NATS_PASSWORDS}"
    server: Spec = {
        "image": _image(bus),
        "command": ["--config", "/etc/nats/nats-server.conf"],
        **_hardened(USER),
        "secrets": [{"source": passwords, "target": f"/etc/nats/{NATS_PASSWORDS}"}],
        "volumes": [
            "../nats/nats-server.conf:/etc/nats/nats-server.conf:ro",
            f"{bus.name}:{STORE_DIRECTORY}",
        ],
        "depends_on": {VOLUME_JOB: {"condition": "service_completed_successfully"}},
        "healthcheck": _healthcheck(
            ["CMD", "wget", "-q", "-O", "-", f"http://{MONITORING}/healthz"],
            interval="2s",
            start="60s",
        ),
        "networks": ["inside"],
        "restart": "unless-stopped",
        "stop_grace_period": f"{bus.stop_timeout_s}s",
        "deploy": _limits(bus.requests),
    }
    job: Spec = {
        "image": _image(bus),
        "entrypoint": ["chown", USER, STORE_DIRECTORY],
        **_hardened("0:0"),
        "cap_add": ["CHOWN"],
        "network_mode": "none",
        "volumes": [f"{bus.name}:{STORE_DIRECTORY}"],
        "restart": "no",
        "deploy": _limits(Requests(memory_limit_mib=32, memory_request_mib=16, pids_limit=8)),
    }
    return {VOLUME_JOB: job, bus.name: server}


COMPOSE = Generator("compose", "containers of one machine", ("compose",), generate)
