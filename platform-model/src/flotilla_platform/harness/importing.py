"""The real import graph of a checkout: which file needs which, from the text of the modules.

Imports inside functions and for types count. So does a text that names a module (`svc_x.main:Main`):
that is how a platform loads services. A package's data (`.sql`, pages) is read with any of its
modules. Where in doubt there is an edge: one too many costs seconds, one too few hides a fault.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

_MODULE = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*(?=:|$)")
SOURCES = "src"


def import_graph(
    root: Path, paths: Iterable[str], *, texts: bool = True
) -> dict[str, frozenset[str]]:
    """Return for each Python file of `paths` the files that it needs at first hand.

    Without `texts`, a module that is only named in a text is not needed.
    """
    known = list(paths)
    python = [path for path in known if path.endswith(".py")]
    by_name = defaultdict[str, set[str]](set)
    for path in python:
        for name in _names(path):
            by_name[name].add(path)
    data = defaultdict[str, set[str]](set)
    for path in known:
        if not path.endswith(".py") and f"/{SOURCES}/" in path:
            data[_package(path)].add(path)
    there, graph = set(python), dict[str, frozenset[str]]()
    for path in python:
        needs = set(data[_package(path)]) if f"/{SOURCES}/" in path else set[str]()
        for name in _needed(root / path, path, texts=texts):
            needs |= _found(name, by_name)
        needs |= {above for above in _above(path) if above in there}
        graph[path] = frozenset(needs - {path})
    return graph


def closure(graph: Mapping[str, frozenset[str]], starts: Iterable[str]) -> set[str]:
    """Return `starts` and all that they need."""
    found: set[str] = set()
    todo = list(starts)
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += graph.get(path, ())
    return found


def _names(path: str) -> Iterator[str]:
    """Yield what a file is imported as: from its source folder, its own folder, and the root."""
    pure = PurePosixPath(path)
    parts = pure.with_suffix("").parts
    if SOURCES in parts:
        parts = parts[parts.index(SOURCES) + 1 :]
    elif {"tests", "tests_docker"} & set(parts[:-1]) and pure.stem != "__init__":
        yield pure.stem  # pytest has these folders on its path
    own = parts[:-1] if parts[-1] == "__init__" else parts
    yield ".".join(own)


def _package(path: str) -> str:
    parts = PurePosixPath(path).parts
    return "/".join(parts[: parts.index(SOURCES) + 2]) if SOURCES in parts else ""


def _above(path: str) -> Iterator[str]:
    """Yield what is run before a module, where it is there: its packages, the fixtures of tests."""
    for folder in PurePosixPath(path).parents:
        yield str(folder / "__init__.py")
        yield str(folder / "conftest.py")


def _needed(file: Path, path: str, *, texts: bool) -> Iterator[str]:
    own = list(_names(path))[-1].split(".")
    package = own if path.endswith("__init__.py") else own[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif texts and isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = _MODULE.match(node.value)
            if named and "." in named.group():
                yield named.group()


def _found(name: str, by_name: Mapping[str, set[str]]) -> set[str]:
    """Return the files of a module, and of the packages that it is in."""
    parts = name.split(".")
    return {
        path for end in range(1, len(parts) + 1) for path in by_name.get(".".join(parts[:end]), ())
    }
