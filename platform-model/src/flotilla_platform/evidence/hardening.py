"""What is deployed, held against what every process of a fleet is given: little, and as nobody.

Compose, Kubernetes, systemd, NATS and image files below `deploy/`, wherever they come from. What is not
there yet is not looked at.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flotilla_platform.loading import Document, Mistake, ModelInvalid, Position, read_documents

type Found = Iterator[Mistake]

_LOOPBACK = re.compile(r"(127\.\d+\.\d+\.\d+|\[::1\]|localhost):")
_ROOT = {"", "0", "root"}
_USER = re.compile(r"^USER\s+(\S+)", re.MULTILINE)
_PASSWORD = re.compile(r"""\bpassword(?:\s*[:=]\s*|\s+)["']?([^\s"':=][^\s"']*)""")
_WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job"}


def check_deployed(deploy: Path) -> list[Mistake]:
    """Return what is unsafe in the files below `deploy`."""
    found: list[Mistake] = []
    for pattern, check in _CHECKS.items():
        for file in sorted(deploy.glob(pattern)):
            found += check(file)
    return found


def _yaml(check: Callable[[Document, Mapping[str, Any]], Found]) -> Callable[[Path], Found]:
    """Return a check of files from one of their documents."""

    def checked(file: Path) -> Found:
        try:
            documents = read_documents(file)
        except ModelInvalid as invalid:
            yield from invalid.mistakes
            return
        for document in documents:
            if isinstance(document.content, dict):
                yield from check(document, document.content)

    return checked


def _compose(document: Document, content: Mapping[str, Any]) -> Found:
    services = content.get("services")
    for name, service in (services if isinstance(services, dict) else {}).items():
        if not isinstance(service, dict):
            continue
        at = document.at_key("services", name)
        limits = _inside(service, "deploy", "resources", "limits")
        for key, short, cure in (
            ("memory", "mem_limit", "memory: 256M"),
            ("pids", "pids_limit", "pids: 128"),
        ):
            if key not in limits and short not in service:
                wrong = f"nothing limits the {key} of the container {name!r}"
                yield Mistake(at, wrong, f"write `{cure}` in deploy.resources.limits")
        user = str(service.get("user", "")).split(":")[0]
        if user in _ROOT and service.get("network_mode") != "none":  # else nobody can reach it
            where = document.at("services", name, "user") if user else at
            yield Mistake(
                where,
                f"the container {name!r} may run as root: it does not say as whom",
                "write `user: 65532:65532`",
            )
        if service.get("privileged") is True:
            where = document.at("services", name, "privileged")
            yield Mistake(where, f"the container {name!r} may do what its host may", "remove it")
        for index, port in enumerate(service.get("ports") or ()):
            address = f"{port.get('host_ip', '')}:" if isinstance(port, dict) else str(port)
            if not _LOOPBACK.match(address):
                yield Mistake(
                    document.at("services", name, "ports", index),
                    f"{name!r} is published to everybody who reaches this machine",
                    "write `127.0.0.1:` before it, and let a proxy with TLS publish it",
                )


def _kubernetes(document: Document, content: Mapping[str, Any]) -> Found:
    if content.get("kind") not in _WORKLOADS:
        return
    steps = ("spec", "template", "spec")
    pod = _inside(content, *steps)
    context = pod.get("securityContext") or {}
    for group in ("initContainers", "containers"):
        for index, one in enumerate(pod.get(group) or ()):
            at = document.at(*steps, group, index)
            own = {**context, **(one.get("securityContext") or {})}
            named = f"the container {one.get('name')!r}"
            if "memory" not in _inside(one, "resources", "limits"):
                cure = "write `resources: { limits: { memory: 256Mi } }`"
                yield Mistake(at, f"nothing limits the memory of {named}", cure)
            for key, wanted, wrong in (
                ("runAsNonRoot", True, "may run as root"),
                ("allowPrivilegeEscalation", False, "may become more than it is"),
                ("readOnlyRootFilesystem", True, "may change its own programs"),
            ):
                if own.get(key) is not wanted:
                    cure = f"write `{key}: {str(wanted).lower()}` in its securityContext"
                    yield Mistake(at, f"{named} {wrong}", cure)


def _systemd(file: Path) -> Found:
    settings: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            settings[key.strip()] = number, value.strip()
    for key, cure in (("MemoryMax", "MemoryMax=256M"), ("TasksMax", "TasksMax=128")):
        if key not in settings:
            yield Mistake(Position(file), f"nothing limits it: no {key}", f"write `{cure}`")
    number, user = settings.get("User", (1, ""))
    dynamic = settings.get("DynamicUser", (1, ""))[1] in {"yes", "true", "1"}
    if user == "root" or (not user and not dynamic):
        yield Mistake(Position(file, number), "it runs as root", "write `DynamicUser=yes`")


def _nats(file: Path) -> Found:
    text = file.read_text(encoding="utf-8")
    for key, cure in (
        ("max_payload", "max_payload: 1048576"),
        ("authorization", "authorization { users: [ … ] }"),
    ):
        if not re.search(rf"^\s*{key}\b", text, re.MULTILINE):
            yield Mistake(Position(file), f"it says nothing of {key}", f"write `{cure}`")
    for number, line in enumerate(text.splitlines(), start=1):
        said = line.split("#")[0]
        if re.search(r"""(^|[\s"'\[:])>(["'\s,\]]|$)""", said):
            where = Position(file, number, line.index(">") + 1)
            yield Mistake(where, "somebody may use every subject", "name what it needs")
        if (match := _PASSWORD.search(said)) and not match[1].startswith("$"):
            where = Position(file, number, match.start(1) + 1)
            yield Mistake(where, "a password is in plain", "write a variable: `password: $name`")


def _image(file: Path) -> Found:
    text = file.read_text(encoding="utf-8")
    users = list(_USER.finditer(text))
    if not users:
        yield Mistake(Position(file), "its images run as root", "write `USER 65532:65532`")
    elif users[-1][1].split(":")[0] in _ROOT:
        line = text.count("\n", 0, users[-1].start()) + 1
        yield Mistake(Position(file, line), "its images run as root", "write `USER 65532:65532`")


def _inside(content: Any, *steps: str) -> Mapping[str, Any]:
    """Return the mapping at `steps`; an empty one when there is none."""
    for step in steps:
        content = content.get(step) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


_CHECKS: Mapping[str, Callable[[Path], Found]] = {
    "compose/*.yaml": _yaml(_compose),
    "k3s/base/**/*.yaml": _yaml(_kubernetes),
    "systemd/*.service": _systemd,
    "nats/*.conf": _nats,
    "docker/**/Dockerfile*": _image,
}
