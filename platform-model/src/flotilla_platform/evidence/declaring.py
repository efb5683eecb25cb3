"""model-to-code: what the model says of a service is in its code, and the reverse.

commands, queries    what it serves on the bus (`messages.py`)
events               the types that it gives to `ContractCodec`
aggregates           the second argument of `stream_id`
idempotency scopes   `scope=…` of `claim_for`
settings prefix      `env_prefix=…` of `SettingsConfigDict`
entry points         functions of that name, in modules of that name
projections          `read_models()`, called: name, logs, staleness budget, partitions
"""

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flotilla_platform.evidence.depending import unreadable
from flotilla_platform.evidence.graph import dependency_graph, package_of
from flotilla_platform.evidence.messages import MessageUse
from flotilla_platform.evidence.source import Module
from flotilla_platform.evidence.tracing import UNKNOWN, Tracer
from flotilla_platform.loading import Mistake, Position, suggest
from flotilla_platform.model import HEALTH_QUERY, Platform, ProjectionSpec, Service

_KEEPERS = {"flotilla.workflow.instances": "EVENTS", "flotilla.workflow.book": "EVENTS"}
"""Modules of the kernel that are an aggregate each, and where their events are."""


def check_declarations(platform: Platform) -> list[Mistake]:
    """Return where the model and the code of its services say different things."""
    try:
        graph = dependency_graph(platform)
    except SyntaxError as error:
        return [unreadable(error)]
    found: list[Mistake] = []
    for name, service in platform.services.items():
        if name not in graph.code:
            found.append(
                Mistake(
                    platform.at("service", name, "entrypoint"),
                    f"the package {package_of(service)!r} is not installed here",
                    "name one that is, or install it: `make setup`",
                )
            )
            continue
        checked = _Checked(platform, service, graph.code[name], graph.uses[name])
        found += [*checked.check(), *_check_projections(platform, service)]
    return found


@dataclass(frozen=True, slots=True)
class _Checked:
    platform: Platform
    service: Service
    modules: Mapping[str, Module]
    use: MessageUse

    def check(self) -> Iterator[Mistake]:
        """Yield what differs."""
        yield from self._check_entrypoints()
        commands = {command.name: ("commands", i, "name") for i, command in self._commands()}
        queries = {name: ("queries", i) for i, name in enumerate(self.service.queries)}
        yield from self._compare("command", "commands", commands, self._served("cmd"))
        yield from self._compare("query", "queries", queries, self._served("qry"))
        if f"qry.{self.service.name}.{HEALTH_QUERY}" not in self.use.serves:
            yield Mistake(
                self._at("entrypoint"),
                f"nothing of it serves qry.{self.service.name}.{HEALTH_QUERY}",
                "call `serve_health(bus, health_subject(SERVICE), …)` where it is composed",
            )
        tracer = Tracer(self.modules)
        events = {event: ("events", i) for i, event in enumerate(self.service.events)}
        yield from self._compare("event", "events", events, self._events(tracer))
        aggregates = {one: ("aggregates", i) for i, one in enumerate(self.service.aggregates)}
        owns = "store" in self.service.needs  # others only name a stream of somebody else's
        kept = self._arguments(tracer, "stream_id", 1, "aggregate") if owns else {}
        kept |= {
            str(importlib.import_module(keeper).AGGREGATE): at for keeper, at in self._keepers()
        }
        yield from self._compare("aggregate", "aggregates", aggregates, kept)
        scopes = {
            command.idempotency_scope: ("commands", i, "idempotency_scope")
            for i, command in self._commands()
            if command.idempotency_scope
        }
        claimed = self._arguments(tracer, "claim_for", 2, "scope")
        yield from self._compare("idempotency scope", "commands", scopes, claimed)
        yield from self._check_prefix(tracer)

    def _commands(self) -> list[tuple[int, Any]]:
        return list(enumerate(self.service.commands))

    def _at(self, *steps: str | int) -> Position:
        return self.platform.at("service", self.service.name, *steps)

    def _check_entrypoints(self) -> Iterator[Mistake]:
        for key in ("entrypoint", "read_models"):
            said = getattr(self.service, key)
            if said is None:
                continue
            name, _, function = said.partition(":")
            module = self.modules.get(name)
            if module is None:
                cure = suggest(name, list(self.modules))
                yield Mistake(self._at(key), f"there is no module {name!r}", cure)
                continue
            functions = [
                node.name
                for node in module.tree.body
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            if function not in functions:
                cure = suggest(function, functions)
                yield Mistake(self._at(key), f"there is no function {function!r} in {name}", cure)

    def _compare(
        self,
        word: str,
        key: str,
        declared: Mapping[str, tuple[str | int, ...]],
        found: Mapping[str, Position],
    ) -> Iterator[Mistake]:
        for name, steps in declared.items():
            if name not in found:
                yield Mistake(
                    self._at(*steps),
                    f"the {word} {name!r} is nowhere in the code of {self.service.name!r}",
                    suggest(name, sorted(found)) if found else "remove it, or write it there",
                )
        for name, at in found.items():
            if name not in declared:
                yield Mistake(
                    at,
                    f"the {word} {name!r} is not in the model",
                    f"add it to `{key}` in services/{self.service.name}.yaml, or remove it here",
                )

    def _served(self, kind: str) -> dict[str, Position]:
        """Return the last tokens of the subjects it serves; whole subjects of other services."""
        prefix = f"{kind}.{self.service.name}."
        return {
            subject.removeprefix(prefix): at
            for subject, at in self.use.serves.items()
            if subject.startswith(f"{kind}.") and subject != f"{prefix}{HEALTH_QUERY}"
        }

    def _events(self, tracer: Tracer) -> dict[str, Position]:
        found = {
            str(getattr(event, "type", UNKNOWN)): module.at(call)
            for module, call in tracer.calls("ContractCodec")
            for event in _by_name(tracer.elements(module, call.args[0]))
        }
        return found | {
            str(event.type): at
            for keeper, at in self._keepers()
            for event in getattr(importlib.import_module(keeper), _KEEPERS[keeper])
        }

    def _keepers(self) -> Iterator[tuple[str, Position]]:
        """Yield the modules of the kernel that keep streams of their own in this service's store."""
        for module in self.modules.values():
            for imported, node in module.imports:
                if (keeper := imported.rpartition(".")[0]) in _KEEPERS:
                    yield keeper, module.at(node)

    def _arguments(
        self, tracer: Tracer, function: str, place: int, keyword: str
    ) -> dict[str, Position]:
        found = {}
        for module, call in tracer.calls(function):
            given = [k.value for k in call.keywords if k.arg == keyword]
            given += call.args[place : place + 1]
            for value in _by_name(tracer.values(module, given[0])) if given else ():
                found[str(value)] = module.at(call)
        return found

    def _check_prefix(self, tracer: Tracer) -> Iterator[Mistake]:
        wanted = self.service.settings_prefix
        for prefix, at in self._arguments(tracer, "SettingsConfigDict", 99, "env_prefix").items():
            if prefix != wanted:
                yield Mistake(
                    at,
                    f"settings of {self.service.name!r} begin with {prefix!r}, not with {wanted!r}",
                    f'write `env_prefix="{wanted}"`',
                )


def _by_name(values: set[Any]) -> list[Any]:
    return sorted(values, key=str)


def _check_projections(platform: Platform, service: Service) -> Iterator[Mistake]:
    """Compare the projections of a service with those that its `read_models` returns."""

    def at(*steps: str | int) -> Position:
        return platform.at("service", service.name, *steps)

    if service.read_models is None:
        if service.projections:
            cure = "write `read_models: <module>:<function>`"
            yield Mistake(at("projections"), "nothing says where these projections are", cure)
        return
    module, _, function = service.read_models.partition(":")
    try:
        folded = getattr(importlib.import_module(module), function)().projections
    except Exception as error:  # noqa: BLE001 - it is the service's code: whatever it raises is its
        yield Mistake(at("read_models"), f"it cannot be called: {error!r}", "run it, and mend it")
        return
    by_name = {one.name: one for one in folded}
    for index, declared in enumerate(service.projections):
        there = by_name.pop(declared.name, None)
        if there is None:
            known = [one.name for one in folded]
            wrong = f"the projection {declared.name!r} is nowhere in the code of {service.name!r}"
            yield Mistake(at("projections", index, "name"), wrong, suggest(declared.name, known))
            continue
        for key, model, code in _differences(declared, there):
            yield Mistake(
                at("projections", index, key),
                f"{key} of {declared.name!r} is {model!r} here and {code!r} in the code",
                f"write `{key}: {_yaml(code)}`, or change {type(there).__qualname__}",
            )
    for name, one in by_name.items():
        yield Mistake(
            _place_of(one, at("projections")),
            f"the projection {name!r} is not in the model",
            f"add it to `projections` in services/{service.name}.yaml",
        )


def _differences(declared: ProjectionSpec, there: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield what a projection says otherwise in the code: the key, the model's value, the code's."""
    budget_ms = round(there.staleness_budget_s * 1000)
    said: dict[str, tuple[Any, Any]] = {
        "logs": (list(declared.logs), [there.log]),
        "staleness_budget_ms": (declared.staleness_budget_ms, budget_ms),
        "partitions": (declared.partitions, getattr(there, "partitions", 1)),
    }
    if hasattr(there, "partition_key"):
        said["partition_key"] = (declared.partition_key, there.partition_key)
    for key, (model, code) in said.items():
        if model != code:
            yield key, model, code


def _yaml(value: object) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value or "null")


def _place_of(projection: object, otherwise: Position) -> Position:
    """Return where the class of a projection is written."""
    try:
        file = inspect.getsourcefile(type(projection))
        line = inspect.getsourcelines(type(projection))[1]
    except (OSError, TypeError):
        return otherwise
    return Position(Path(file), line) if file else otherwise
