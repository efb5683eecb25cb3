"""Whose task it is: the owners of paths, the role that may write them all, and what is refused."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flotilla_platform.harness.importing import import_graph
from flotilla_platform.harness.parts import Role, matches
from flotilla_platform.harness.reading import Harness
from flotilla_platform.harness.selecting import Gate


@dataclass(frozen=True, slots=True)
class Route:
    """Who does a task, and how."""

    role: Role
    owners: dict[str, str]
    """Each path's module."""
    writes: tuple[str, ...]
    """Patterns of what the role may write."""
    gates: tuple[str, ...]
    parallel: tuple[str, ...]
    """Roles whose work cannot meet this one's: none may write what the other owns here."""
    refused: tuple[str, ...]


def role_of_text(harness: Harness, task: str) -> Role:
    """Return the role whose words a task has most of; the planner when it has none."""
    said = task.lower()
    best = max(harness.routing.roles, key=lambda role: sum(word in said for word in role.words))
    return best if any(word in said for word in best.words) else harness.routing.roles[0]


def route(
    harness: Harness,
    paths: Sequence[str],
    gates: Sequence[Gate],
    *,
    role: Role | None = None,
    is_diff: bool = False,
) -> Route:
    """Return who may write `paths`. Raises `Failure` for a path without exactly one owner."""
    owners = {path: harness.owner(path).name for path in paths}
    touched = Counter(owners.values())
    chosen = role or _fitting(harness, touched)
    may = {*chosen.owns, *chosen.writes}
    refused = [
        f"{path}: {chosen.name} may not write {owners[path]}; hand it to"
        f" {_owner_of(harness, owners[path])} as a change of its own"
        for path in paths
        if owners[path] not in may
    ]
    refused += [
        f"{path}: it is generated, and nothing it is made from changed; change that, run `{one.cure}`"
        for path in paths
        for one in harness.codemap.generated
        if is_diff
        and matches(path, one.paths)
        and not matches(path, one.but)
        and not any(matches(p, one.sources) and not matches(p, one.paths) for p in paths)
    ]
    written = touched.keys() or set(chosen.owns)
    modules = [module for module in harness.codemap.modules if module.name in may]
    return Route(
        chosen,
        owners,
        tuple(sorted({pattern for module in modules for pattern in module.paths})),
        tuple(gate.name for gate in gates if not paths or gate.why(paths)),
        tuple(
            other.name
            for other in harness.routing.roles
            if other != chosen and not written & {*other.owns, *other.writes}
        ),
        tuple(refused),
    )


def _fitting(harness: Harness, touched: Counter[str]) -> Role:
    """Return a role that may write it all and owns most of it; else the one that owns most."""

    def fit(role: Role) -> tuple[bool, int, int]:
        own = sum(touched[name] for name in role.owns)
        may = sum(touched[name] for name in {*role.owns, *role.writes})
        return may == touched.total(), own, may

    return max(harness.routing.roles, key=fit)


def _owner_of(harness: Harness, module: str) -> str:
    return next(role.name for role in harness.routing.roles if module in role.owns)


def boundary_mistakes(harness: Harness, paths: Sequence[str]) -> list[str]:
    """Return every import that the code map does not allow, and files that a kind lacks."""
    graph = import_graph(harness.root, paths, texts=False)
    packaged = {
        path: module
        for module in harness.codemap.modules
        for path in paths
        if module.owns(path) and "/tests/" not in path and module.packages
    }
    wrong = [
        f"{path}: {module.name} may not import {other.name} ({needed}); pass it as an argument, send a"
        " message, or say so in agent/codemap.yml"
        for path, module in packaged.items()
        for needed in sorted(graph.get(path, ()))
        if (other := packaged.get(needed))
        and other != module
        and other.name not in module.may_import
    ]
    kinds = {kind.name: kind for kind in harness.codemap.kinds}
    for module in harness.codemap.modules:
        for required in kinds[module.kind].required:
            name = required.format(package=module.packages[0] if module.packages else "")
            wrong += [
                f"{folder}{name} is missing: every {module.kind} has it"
                for folder in module.paths[:1]
                if f"{folder.partition('/')[0]}/{name}" not in paths
            ]
    return wrong
