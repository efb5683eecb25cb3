"""dependency-graph: services depend on each other as their policies say, and in no other way."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from flotilla_platform.evidence.graph import DependencyGraph, dependency_graph, package_of
from flotilla_platform.evidence.messages import shape
from flotilla_platform.loading import Mistake, Position
from flotilla_platform.model import Platform

ADAPTERS = ("flotilla.stores", "flotilla.buses", "flotilla.embedded")
"""What is opened where a service is composed, and known nowhere else."""

_KEYS = {"cmd": ("commands", "command"), "qry": ("queries", "query")}


def check_dependencies(platform: Platform) -> list[Mistake]:
    """Return where the code of services depends on what it must not, or policies say otherwise."""
    try:
        graph = dependency_graph(platform)
    except SyntaxError as error:
        return [unreadable(error)]
    return [
        *_check_there(platform, graph),
        *_check_imports(platform, graph),
        *_check_calls(platform, graph),
        *_check_subjects(platform, graph),
        *_check_cycles(graph),
    ]


def unreadable(error: SyntaxError) -> Mistake:
    """Return the mistake of code that is no Python."""
    where = Position(Path(error.filename or "?"), error.lineno or 1, error.offset or 1)
    return Mistake(where, f"this is no Python: {error.msg}", "correct it")


def _check_there(platform: Platform, graph: DependencyGraph) -> Iterator[Mistake]:
    for name, service in platform.services.items():
        if name not in graph.code:
            yield Mistake(
                platform.at("service", name, "entrypoint"),
                f"the package {package_of(service)!r} is not installed here",
                "name one that is, or install it: `make setup`",
            )


def _check_imports(platform: Platform, graph: DependencyGraph) -> Iterator[Mistake]:
    packages = {package_of(service): name for name, service in platform.services.items()}
    for name, modules in graph.code.items():
        service = platform.services[name]
        root = service.entrypoint.partition(":")[0]
        for module in modules.values():
            for imported, node in module.imports:
                top = imported.partition(".")[0]
                if top in packages and packages[top] != name:
                    yield Mistake(
                        module.at(node),
                        f"the service {name!r} imports {top!r}, which is {packages[top]!r}",
                        "ask it over the bus, with a message of the contracts",
                    )
                    break
                if module.name != root and imported in ADAPTERS:
                    yield Mistake(
                        module.at(node),
                        f"{module.name} imports the adapters {imported!r}",
                        f"take the port as an argument, and open it in {root}",
                    )


def _check_calls(platform: Platform, graph: DependencyGraph) -> Iterator[Mistake]:
    allowed = _allowed(platform)
    for caller, at in graph.untold:
        yield Mistake(
            at,
            f"{caller!r} asks something here of which nobody can tell what it is",
            "build the request from a message of the contracts: `Request(GetCounter.subject, …)`",
        )
    for call in graph.calls:
        if call.subject not in allowed.get(call.caller, {}):
            key, word = _KEYS.get(call.kind, ("queries", "message"))
            policies = [p.name for p in platform.policies.values() if p.caller == call.caller]
            file = f"policies/{policies[0] if policies else call.caller}.yaml"
            yield Mistake(
                call.at,
                f"{call.caller!r} asks the {word} {call.name!r} of {call.service!r}, and no policy"
                " allows it",
                f"add {call.name} to the {key} of {call.service} in {file}, or do not ask it",
            )
    asked = {(call.caller, call.subject) for call in graph.calls}
    for caller, subjects in allowed.items():
        for subject, at in subjects.items():
            if caller in graph.uses and (caller, subject) not in asked:
                kind, service, name = subject.split(".", 2)
                yield Mistake(
                    at,
                    f"{caller!r} may ask the {_KEYS[kind][1]} {name!r} of {service!r}, and never does",
                    "remove it",
                )


def _allowed(platform: Platform) -> Mapping[str, Mapping[str, Position]]:
    """Return what every caller may ask: subjects, and where a policy says so."""
    found: dict[str, dict[str, Position]] = {}
    for policy in platform.policies.values():
        into = found.setdefault(policy.caller, {})
        for index, call in enumerate(policy.calls):
            for kind, (key, _) in _KEYS.items():
                for place, name in enumerate(getattr(call, key)):
                    at = platform.at("policy", policy.name, "calls", index, key, place)
                    into.setdefault(f"{kind}.{call.service}.{name}", at)
    return found


def _check_subjects(platform: Platform, graph: DependencyGraph) -> Iterator[Mistake]:
    """Check that what is published and heard besides calls is allowed; `security`: no more is."""
    for caller, use in graph.uses.items():
        policies = [policy for policy in platform.policies.values() if policy.caller == caller]
        for key, verb, found in (
            ("publishes", "publishes to", use.publishes),
            ("subscribes", "hears", use.hears),
        ):
            allowed = [shape(one) for policy in policies for one in getattr(policy, key)]
            for subject, at in found.items():
                if not any(covers(one, shape(subject)) for one in allowed):
                    file = f"policies/{policies[0].name if policies else caller}.yaml"
                    yield Mistake(
                        at,
                        f"{caller!r} {verb} {shape(subject)}, and no policy allows it",
                        f"add it to `{key}` in {file}",
                    )


def covers(allowed: str, used: str) -> bool:
    """Return whether everything that `used` stands for is allowed by `allowed`."""
    mine, yours = allowed.split("."), used.split(".")
    for place, word in enumerate(mine):
        if word == ">":
            return len(yours) > place
        if place >= len(yours) or yours[place] == ">":
            return False
        if word not in ("*", yours[place]):
            return False
    return len(mine) == len(yours)


def _check_cycles(graph: DependencyGraph) -> Iterator[Mistake]:
    """Check that nobody waits for somebody who waits for it."""
    calls: dict[str, set[str]] = {}
    for caller, service in graph.edges():
        calls.setdefault(caller, set()).add(service)
    told: set[frozenset[str]] = set()
    for call in graph.calls:
        way = _way(calls, call.service, call.caller)
        if way is not None and frozenset(way) not in told:
            told.add(frozenset(way))
            yield Mistake(
                call.at,
                f"services wait for each other in a circle: {' → '.join([call.caller, *way])}",
                "let one of them follow the other's log instead of asking",
            )


def _way(calls: Mapping[str, set[str]], start: str, end: str) -> list[str] | None:
    """Return a way of calls from `start` to `end`; None when there is none."""
    ways = [[start]]
    seen = {start}
    while ways:
        way = ways.pop(0)
        if way[-1] == end:
            return way
        for after in sorted(calls.get(way[-1], set()) - seen):
            seen.add(after)
            ways.append([*way, after])
    return None
