"""The source of installed packages: found by name and parsed, never imported."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from flotilla_platform.loading import Position

TEST_KIT = "testing"
"""The module or package of a member that is for tests: no part of what runs."""

type Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Module
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.Module)


@dataclass(frozen=True, eq=False)
class Module:
    """A module, parsed."""

    name: str
    file: Path
    tree: ast.Module

    def at(self, node: ast.AST) -> Position:
        """Return where something of it stands."""
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        return Position(self.file, line, column + 1)

    @cached_property
    def parents(self) -> Mapping[ast.AST, ast.AST]:
        """What stands around everything."""
        return {
            inner: outer for outer in ast.walk(self.tree) for inner in ast.iter_child_nodes(outer)
        }

    def scope_of(self, node: ast.AST) -> Scope:
        """Return the function around something; the module when there is none."""
        outer = self.parents.get(node, self.tree)
        while not isinstance(outer, SCOPES):
            outer = self.parents[outer]
        return outer

    @cached_property
    def imports(self) -> tuple[tuple[str, ast.AST], ...]:
        """Every module that it imports, or takes something from."""
        return tuple(self._imports())

    def _imports(self) -> Iterator[tuple[str, ast.AST]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = origin_of(self.name, node)
                yield origin, node
                yield from ((f"{origin}.{alias.name}", node) for alias in node.names)


def origin_of(module: str, node: ast.ImportFrom) -> str:
    """Return the full name of the module that an import takes something from."""
    if not node.level:
        return node.module or ""
    above = module.rsplit(".", node.level)[0]
    return f"{above}.{node.module}" if node.module else above


def modules_of(package: str) -> Mapping[str, Module] | None:
    """Return the modules of an installed package by name, without its test kit; None: not there.

    Raises:
        SyntaxError: one of them is no Python.

    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    [root, *_] = map(Path, spec.submodule_search_locations)
    found = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if parts[0] != TEST_KIT:
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
            found[name] = Module(name, file, tree)
    return found
