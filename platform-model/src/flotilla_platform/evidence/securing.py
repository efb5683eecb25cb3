"""security: nothing secret in plain, nobody may more than it does, and everything has a limit.

Of the model: resources without limits or passwords, permissions wider than what the code uses, a
production that believes its callers. Of what is deployed (`deploy/`, where it is there): plain secrets,
and what `hardening.py` looks at.
"""

from collections.abc import Iterator
from pathlib import Path

from flotilla_platform.evidence.depending import covers, unreadable
from flotilla_platform.evidence.graph import DependencyGraph, dependency_graph
from flotilla_platform.evidence.hardening import check_deployed
from flotilla_platform.evidence.messages import shape
from flotilla_platform.generating import DEPLOY
from flotilla_platform.loading import Mistake, Position
from flotilla_platform.model import Platform, Resource

FILE_BYTES_MAX = 1_000_000
"""Larger files were not written by people, and are not searched."""

_SECRETS_CURE = (
    "take it for known and make another; keep that with `flotilla secrets set`, and name it here"
)


def check_security(platform: Platform) -> list[Mistake]:
    """Return what is unsafe in a model, and in what is deployed of it."""
    deploy = platform.root.parent / DEPLOY
    try:
        graph = dependency_graph(platform)
    except SyntaxError as error:
        return [unreadable(error)]
    return [
        *_check_secrets(platform, deploy),
        *_check_permissions(platform, graph),
        *(m for one in platform.resources.values() for m in _check_resource(platform, one)),
        *_check_profiles(platform),
        *check_deployed(deploy),
    ]


def _check_secrets(platform: Platform, deploy: Path) -> Iterator[Mistake]:
    from flotilla_platform.secrets.places import (  # noqa: PLC0415 - brings cryptography
        Places,
        tracked_files,
    )
    from flotilla_platform.secrets.scanning import scan  # noqa: PLC0415 - as above

    deployed = tracked_files(Places(deploy.parent)) if deploy.is_dir() else []
    for file in [*(document.file for document in platform.documents.values()), *deployed]:
        if file.stat().st_size > FILE_BYTES_MAX:
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        is_yaml = file.suffix in {".yaml", ".yml"}
        is_dotenv = ".env" in file.name
        for found in scan(text, is_yaml=is_yaml, is_dotenv=is_dotenv):
            yield Mistake(Position(file, found.line, found.column), found.wrong, _SECRETS_CURE)


def _check_permissions(platform: Platform, graph: DependencyGraph) -> Iterator[Mistake]:
    """Check that nothing more may be published and heard than is: `dependency-graph` has calls."""
    for policy in platform.policies.values():
        use = graph.uses.get(policy.caller)
        if use is None:
            continue
        for key, verb, found in (
            ("publishes", "publish to", use.publishes),
            ("subscribes", "hear", use.hears),
        ):
            used = sorted(set(map(shape, found)))
            for index, subject in enumerate(getattr(policy, key)):
                allowed = shape(subject)
                if allowed in used:
                    continue
                within = [one for one in used if covers(allowed, one)]
                yield Mistake(
                    platform.at("policy", policy.name, key, index),
                    f"{policy.caller!r} may {verb} {subject}, which is more than it does",
                    f"write {', '.join(within)}" if within else "remove it: it never does",
                )


def _check_resource(platform: Platform, resource: Resource) -> Iterator[Mistake]:
    limits = {
        "postgres": ("max_connections", 100),
        "nats": ("max_payload_bytes", 1_048_576),
    }
    name, value = limits.get(resource.engine, (None, 0))
    if name is not None and getattr(resource.limits, name) is None:
        yield Mistake(
            platform.at("resource", resource.name, "limits"),
            f"nothing limits the {name} of {resource.name!r}",
            f"write `limits: {{ {name}: {value} }}`",
        )
    if resource.server != "embedded" and not resource.secrets:
        yield Mistake(
            platform.at("resource", resource.name, "server"),
            f"whoever reaches {resource.name!r} may use it: it asks for no password",
            f"write `secrets: [{resource.engine}-password]`",
        )


def _check_profiles(platform: Platform) -> Iterator[Mistake]:
    for environment in platform.environments.values():
        if environment.name.startswith("prod") and environment.profile != "production":
            yield Mistake(
                platform.at("environment", environment.name, "profile"),
                "in production everybody would be believed to be any tenant",
                "write `profile: production`",
            )
