"""The files in `agent/`, read and held against each other; mistakes as in the platform model."""

import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.explaining import validate
from flotilla_platform.harness.parts import Codemap, GateMatrix, Module, Routing
from flotilla_platform.loading import Document, Mistake, ModelInvalid, read_document, suggest

CODEMAP = "agent/codemap.yml"
ROUTING = "agent/manifests/routing-rules.yml"
MATRIX = "agent/manifests/gate-matrix.yml"
KINDS: dict[str, type[BaseModel]] = {
    "codemap": Codemap,
    "routing-rules": Routing,
    "gate-matrix": GateMatrix,
}
"""What has a schema in `platform-model/schemas`."""
GIT_S = 30


@dataclass(frozen=True, slots=True)
class Harness:
    """What `agent/` says of the repository at `root`."""

    root: Path
    codemap: Codemap
    routing: Routing
    matrix: GateMatrix

    def owner(self, path: str) -> Module:
        """Return the one module that a path is of.

        Raises:
            Failure: it is nobody's, or several modules'.

        """
        owners = [module for module in self.codemap.modules if module.owns(path)]
        if len(owners) == 1:
            return owners[0]
        wrong = "nobody's" if not owners else " and ".join(repr(o.name) for o in owners)
        raise Failure(
            ExitCode.ROUTE_REFUSED,
            f"{path} is {wrong}: let exactly one module of {CODEMAP} have it in its `paths`",
        )

    def check_paths(self, paths: Iterable[str]) -> list[str]:
        """Return what is wrong with the owners of `paths`."""
        wrong = []
        for path in paths:
            try:
                self.owner(path)
            except Failure as failure:
                wrong.append(str(failure))
        return wrong


def find_root() -> Path:
    """Return the root of the checkout that the working directory is in.

    Raises:
        Failure: it is in none that has a code map.

    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / CODEMAP).is_file():
            return folder
    raise Failure(ExitCode.USAGE, f"there is no {CODEMAP} here or above: go to a checkout")


def read_harness(root: Path) -> Harness:
    """Read and check the files in `agent/`.

    Raises:
        ModelInvalid: with every mistake in all of them.

    """
    mistakes: list[Mistake] = []
    codemap, mapped = _read(root / CODEMAP, Codemap, mistakes)
    routing, routed = _read(root / ROUTING, Routing, mistakes)
    matrix, gated = _read(root / MATRIX, GateMatrix, mistakes)
    if not mistakes and codemap and routing and matrix and mapped and routed and gated:
        mistakes += _in_codemap(codemap, mapped, [gate.name for gate in matrix.gates])
        mistakes += _in_routing(routing, routed, [module.name for module in codemap.modules])
        mistakes += _twice(gated, "gates", [gate.name for gate in matrix.gates])
    if mistakes or not (codemap and routing and matrix):
        raise ModelInvalid(mistakes)
    return Harness(root, codemap, routing, matrix)


def tracked(root: Path) -> list[str]:
    """Return every path that Git knows or would add, if the file is there."""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return sorted({p for p in listed.split("\0") if p and (root / p).is_file()})


def changed_since(root: Path, base: str) -> list[str]:
    """Return what differs from the point where the branch left `base`; what is gone too."""
    start = git(root, "merge-base", base, "HEAD").strip()
    differs = git(root, "diff", "--name-only", "--no-renames", "-z", start, "--")
    new = git(root, "ls-files", "-z", "--others", "--exclude-standard")
    return sorted({path for path in (differs + new).split("\0") if path})


def git(root: Path, *arguments: str) -> str:
    """Return what Git says.

    Raises:
        Failure: it refuses.

    """
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, no shell
            ("git", *arguments),  # noqa: S607 - the one on the PATH
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=GIT_S,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise Failure(ExitCode.USAGE, f"git {arguments[0]}: {' '.join(said.split())}") from error
    return done.stdout


def _read[T: BaseModel](
    file: Path, kind: type[T], mistakes: list[Mistake]
) -> tuple[T | None, Document | None]:
    try:
        document = read_document(file)
        return validate(document, kind), document
    except ModelInvalid as invalid:
        mistakes += invalid.mistakes
        return None, None


def _in_codemap(codemap: Codemap, document: Document, gates: Sequence[str]) -> Iterator[Mistake]:
    kinds = [kind.name for kind in codemap.kinds]
    modules = [module.name for module in codemap.modules]
    yield from _twice(document, "modules", modules)
    for i, module in enumerate(codemap.modules):
        yield from _known(document, ("modules", i, "kind"), [module.kind], kinds)
        yield from _known(document, ("modules", i, "may_import"), module.may_import, modules)
    for i, anti in enumerate(codemap.anti_patterns):
        yield from _known(document, ("anti_patterns", i, "held_by"), [anti.held_by], gates)


def _in_routing(routing: Routing, document: Document, modules: Sequence[str]) -> Iterator[Mistake]:
    yield from _twice(document, "roles", [role.name for role in routing.roles])
    owned = Counter(name for role in routing.roles for name in role.owns)
    for i, role in enumerate(routing.roles):
        yield from _known(document, ("roles", i, "owns"), role.owns, modules)
        yield from _known(document, ("roles", i, "writes"), role.writes, modules)
    for name in modules:
        if owned[name] != 1:
            yield Mistake(
                document.at("roles"),
                f"the module {name!r} has {owned[name]} roles that own it",
                "let exactly one role have it in `owns`",
            )


def _twice(document: Document, key: str, names: Sequence[str]) -> Iterator[Mistake]:
    for i, name in enumerate(names):
        if name in names[:i]:
            yield Mistake(document.at(key, i, "name"), f"{name!r} is here twice", "keep one")


def _known(
    document: Document, steps: tuple[str | int, ...], names: Sequence[str], known: Sequence[str]
) -> Iterator[Mistake]:
    for i, name in enumerate(names):
        if name not in known:
            yield Mistake(document.at(*steps, i), f"there is no {name!r}", suggest(name, known))
