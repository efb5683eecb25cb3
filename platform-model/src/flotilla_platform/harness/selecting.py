"""Which gates a change can turn red: those that read a file of it. In doubt, a gate runs."""

import hashlib
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flotilla_platform.harness.importing import closure, import_graph
from flotilla_platform.harness.parts import MEMBERS, GateRule, Stage, matches
from flotilla_platform.harness.reading import Harness

SHOWN_MAX = 3


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate of the matrix: what it runs, and every file that it can read."""

    name: str
    holds: str
    stage: Stage
    run: tuple[tuple[str, ...], ...]
    reads: frozenset[str]
    """Tracked paths; what was deleted is matched by `could_read`."""
    rule: GateRule
    patterns: tuple[str, ...]

    def could_read(self, path: str) -> bool:
        """Return whether a change of `path`, there or not any more, can turn it red."""
        return path in self.reads or matches(path, self.patterns)

    def why(self, changed: Iterable[str]) -> tuple[str, ...]:
        """Return what of `changed` it reads."""
        return tuple(path for path in changed if self.could_read(path))


def gates_of(harness: Harness, paths: Sequence[str]) -> list[Gate]:
    """Return every gate of the matrix in its order, `each` written out; `paths` are all tracked."""
    graph = import_graph(harness.root, paths)
    gates = []
    for rule in harness.matrix.gates:
        for each in _each(harness, rule) or (None,):
            gates.append(_gate(harness, rule, each, paths, graph))  # noqa: PERF401 - reads better
    return gates


def input_hash(harness: Harness, gate: Gate) -> str:
    """Return a hash of all that a gate's result depends on; another one, and it runs again."""
    digest = hashlib.sha256(f"{sys.version}\0{gate.run}\0".encode())
    for path in sorted(gate.reads):
        file = harness.root / path
        content = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "gone"
        digest.update(
            f"{path}\0{content}\0{file.stat().st_mode if file.exists() else 0}\0".encode()
        )
    return digest.hexdigest()


def _each(harness: Harness, rule: GateRule) -> tuple[str, ...]:
    named: list[str] = []
    for each in rule.each:
        if each == MEMBERS:
            text = (harness.root / "pyproject.toml").read_text(encoding="utf-8")
            named += tomllib.loads(text)["tool"]["uv"]["workspace"]["members"]
        else:
            named.append(each)
    return tuple(named)


def _gate(
    harness: Harness,
    rule: GateRule,
    each: str | None,
    paths: Sequence[str],
    graph: Mapping[str, frozenset[str]],
) -> Gate:
    filled = {"{each}": each or "", "{package}": _package(harness, each) if each else ""}

    def fill(text: str) -> str:
        for mark, value in filled.items():
            text = text.replace(mark, value)
        return text

    starts = tuple(map(fill, rule.imports))
    data = tuple(map(fill, rule.reads))
    found = closure(graph, (path for path in paths if matches(path, starts)))
    found |= {p for p in paths if matches(p, data) and not matches(p, rule.but)}
    found |= {p for p in paths if matches(p, harness.matrix.everything)}
    patterns = {*starts, *harness.matrix.everything} | (set() if rule.but else set(data))
    for edge in harness.matrix.data:
        if any(matches(path, edge.when) for path in found):
            found |= {path for path in paths if matches(path, edge.reads)}
            patterns |= set(edge.reads)
    if starts:  # a module that is gone was imported by whoever still names it, or by a neighbour
        patterns |= {f"{path.rpartition('/')[0]}/" for path in found if path.endswith(".py")}
    name = f"{rule.name}-{each.replace('_', '-')}" if each else rule.name
    run = tuple(tuple(map(fill, command)) for command in rule.run)
    narrowed = tuple(sorted(p for p in patterns if p != "/"))
    return Gate(name, rule.holds, rule.stage, run, frozenset(found), rule, narrowed)


def _package(harness: Harness, member: str) -> str:
    file = harness.root / member / "pyproject.toml"
    if not file.is_file():
        return member
    return str(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"])
