"""Every list of the repository that names a service, extended by one: none is left to be found."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tomlkit
from ruamel.yaml import YAML

from flotilla_platform.generating.writing import yaml_text
from flotilla_platform.scaffolding.answers import ServiceAnswers
from flotilla_platform.scaffolding.changes import Changes
from flotilla_platform.scaffolding.editing import (
    edit_toml,
    edit_yaml,
    flow,
    ini_lines,
    python_import,
    python_list,
)

_REPLICATED = ("compose", "k3s")
_INI = (
    ("importlinter", "root_packages"),
    ("importlinter:contract:services", "modules"),
    ("importlinter:contract:kernel", "forbidden_modules"),
    ("importlinter:contract:platform", "forbidden_modules"),
    ("importlinter:contract:inward", "containers"),
)


def list_service(
    changes: Changes, answers: ServiceAnswers, words: dict[str, str], asked: Sequence[str]
) -> None:
    """Add a service to whatever lists services. `asked` is JSON: what the corpus asks of it."""
    _places(changes, answers)
    _owners(changes, answers, words)
    _secrets(changes, answers.service)
    _contracts(changes, words)
    _workspace(changes, words)
    _harness(changes, answers.service, words)
    _tests(changes, answers.service, words, asked)


def _places(changes: Changes, answers: ServiceAnswers) -> None:
    name, folder = answers.service, "platform-model"
    ports = [
        _port(file.read_text("utf-8")) for file in (changes.root / folder).glob("deployables/*")
    ]
    deployable = {
        "name": name,
        "summary": "Decides commands; the store fences replicas by the version of a stream.",
        "services": [name],
        "machine_port": max(ports, default=9100) + 1,
        "state": "none",
        "resources": {"cpu_limit_millis": 1000},
    }
    notice = "yaml-language-server: $schema=../schemas/deployable.json"
    changes.create(f"{folder}/deployables/{name}.yaml", yaml_text(deployable, notice=notice))

    def hosted(fleet: Any) -> None:
        fleet["services"].insert(len(fleet["services"]) - 1, name)  # the edge is last

    changes.edit(f"{folder}/deployables/fleet.yaml", lambda text: edit_yaml(text, hosted))
    for topology in (*_REPLICATED, "vps"):
        place = {"deployable": name} | ({"replicas": 2} if topology in _REPLICATED else {})
        changes.edit(f"{folder}/topologies/{topology}.yaml", _appending(place, "placements"))
    one = {"deployable": name, "replicas": 1}
    changes.edit(f"{folder}/environments/dev.yaml", _appending(one, "replicas"))
    health = {"service": name, "queries": ["get-health"]}
    changes.edit(f"{folder}/policies/web-bff.yaml", _appending(health, "calls"))


def _port(text: str) -> int:
    found = YAML(typ="safe", pure=True).load(text).get("machine_port")
    return int(found or 0)


def _appending(item: dict[str, Any], *keys: str) -> Callable[[str], str]:
    def change(document: Any) -> None:
        for key in keys:
            document = document[key]
        document.append(flow(item))

    return lambda text: edit_yaml(text, change)


def _owners(changes: Changes, answers: ServiceAnswers, words: dict[str, str]) -> None:
    paths = [f"{words['member']}/", f"contracts/src/flotilla_contracts/{words['module']}.py"]
    path = f"platform-model/owners/{answers.owner}.yaml"
    if (changes.root / path).exists():
        changes.edit(path, lambda text: edit_yaml(text, lambda owner: owner["paths"].extend(paths)))
        return
    owner = {
        "name": answers.owner,
        "summary": answers.summary,
        "contact": answers.contact,
        "paths": paths,
    }
    notice = "yaml-language-server: $schema=../schemas/owner.json"
    changes.create(path, yaml_text(owner, notice=notice))


def _secrets(changes: Changes, name: str) -> None:
    folder, constant = "deploy/secrets/templates", name.replace("-", "_").upper()
    role, generate = name.replace("-", "_"), "password 32"

    def password(of: str, what: str, url: str) -> Callable[[str], str]:
        secret = {"description": f"Of the {what} {of}, as in its {url}.", "generate": generate}

        def add(template: Any) -> None:
            key = f"{template['name'].upper()}_{constant}_PASSWORD"
            template["secrets"][key] = secret

        return lambda text: edit_yaml(text, add)

    changes.edit(f"{folder}/postgres.yaml", password(role, "role", "FLOTILLA_STORE_URL"))
    changes.edit(f"{folder}/nats.yaml", password(name, "user", "FLOTILLA_NATS_URL"))
    own = {
        "FLOTILLA_STORE_URL": (
            "PostgreSQL, as the role",
            f"postgresql://{role}:{{}}@postgres:5432/flotilla",
        ),
        "FLOTILLA_NATS_URL": ("NATS, as the user", f"nats://{name}:{{}}@nats:4222"),
    }
    secrets = {
        key: {"description": f"{what} of this deployable.", "generate": generate, "format": url}
        for key, (what, url) in own.items()
    }
    notice = (
        f"Which secrets `{name}` needs; values are in deploy/secrets/<environment>/, encrypted."
    )
    text = yaml_text({"name": name, "secrets": secrets}, notice=notice)
    changes.create(f"{folder}/{name}.yaml", text)
    stage = f'\nFROM service AS {name}\nENTRYPOINT ["flotilla", "serve", "{name}"]\n'
    changes.edit("deploy/docker/Dockerfile", lambda text: text + stage)


def _contracts(changes: Changes, words: dict[str, str]) -> None:
    folder, module = "contracts/src/flotilla_contracts", words["module"]
    changes.edit(
        f"{folder}/catalog.py",
        lambda text: python_import(
            python_list(text, "_CONTEXTS", module), f"from flotilla_contracts import {module}"
        ),
    )


def _workspace(changes: Changes, words: dict[str, str]) -> None:
    member, package = words["member"], words["package"]

    def listed(project: Any) -> None:
        tool, workspace = project["tool"], tomlkit.inline_table()
        workspace["workspace"] = True
        tool["uv"]["workspace"]["members"].append(member)
        tool["uv"]["sources"].append(member, workspace)
        project["dependency-groups"]["fleet"].append(member)
        tool["ruff"]["lint"]["isort"]["known-first-party"].append(package)
        tool["mypy"]["mypy_path"] = f"{member}/src:{tool['mypy']['mypy_path']}"

    changes.edit("pyproject.toml", lambda text: edit_toml(text, listed))
    changes.edit(".importlinter", lambda text: ini_lines(text, package, _INI))
    adapters = ("importlinter:contract:adapters", "source_modules")
    for inner in ("application", "domain"):
        line = f"{package}.{inner}"
        changes.edit(".importlinter", partial(ini_lines, line=line, places=(adapters,)))
    kits = ("importlinter:contract:helpers", "source_modules")
    changes.edit(".importlinter", lambda text: ini_lines(text, package, (kits,)))
    pure = ("importlinter:contract:pure", "source_modules")
    changes.edit(".importlinter", lambda text: ini_lines(text, f"{package}.domain", (pure,)))
    contracts = ("importlinter:contract:contracts", "forbidden_modules")
    changes.edit(".importlinter", lambda text: ini_lines(text, package, (contracts,)))
    changes.edit("Makefile", lambda text: _extended(text, "MEMBERS := ", member))


def _extended(text: str, begin: str, word: str) -> str:
    lines = text.splitlines(keepends=True)
    [place] = [n for n, line in enumerate(lines) if line.startswith(begin)]
    lines[place] = f"{lines[place].rstrip()} {word}\n"
    return "".join(lines)


def _harness(changes: Changes, name: str, words: dict[str, str]) -> None:
    module = {
        "name": name,
        "kind": "service",
        "paths": [f"{words['member']}/"],
        "packages": [words["package"]],
        "may_import": ["contracts", "kernel"],
    }
    changes.edit("agent/codemap.yml", _appending(module, "modules"))

    def owned(routing: Any) -> None:
        next(role for role in routing["roles"] if role["name"] == "service")["owns"].append(name)

    path = "agent/manifests/routing-rules.yml"
    changes.edit(path, lambda text: edit_yaml(text, owned))


def _tests(changes: Changes, name: str, words: dict[str, str], asked: Sequence[str]) -> None:
    path, module = "tests/added_services.py", words["module"]
    imported = f"from {words['package']}.main import compose as {module}"

    def added(text: str) -> str:
        text = python_import(python_list(text, "ADDED", f'"{name}": {module}'), imported)
        for one in asked:
            subject, _, body = one.removeprefix("[").removesuffix("]").partition(", ")
            text = python_list(text, "ASKED", f"({subject}, {body!r})")
        return text

    changes.edit(path, added)
    rooms = '{"domain", "application.py", "settings.py", "main.py"}'
    entry = f'"{words["member"]}": {rooms}'
    changes.edit("tests/test_tidy.py", lambda text: python_list(text, "HOUSE", entry))
