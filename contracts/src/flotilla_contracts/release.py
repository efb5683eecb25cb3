"""Writes down what is released: `contracts/released/<version>/`, a copy of the schemas of today.

    python -m flotilla_contracts.release 0.2.0

A release is never overwritten, and versions only go up: what is in people's stores does not change
any more. What would break stored events is never released, since the next comparison is with this
one and would not see it; what breaks callers or readers needs a new major version (before 1.0: a new
minor one), so that the number tells them.
"""

import argparse
import sys
from pathlib import Path

from flotilla_contracts.comparison import Kind
from flotilla_contracts.compatibility import current, findings, kind_of, released, version_of
from flotilla_contracts.generate import ROOT, documents

_KEPT_FOR_EVER = {Kind.EVENT, Kind.ENVELOPE}


def release(version: str, root: Path = ROOT) -> Path:
    """Write the schemas of the models as release `version`; return their folder.

    Raises:
        ValueError: it is no version, exists, is not the newest, or breaks what it must not.

    """
    number, releases, target = version_of(version), released(root), root / "released" / version
    if target.exists():
        raise ValueError(
            f"{version} was released already, and stays as it is: take the next version"
        )
    if releases:
        newest, old = list(releases.items())[-1]
        before = version_of(newest)
        if number < before:
            raise ValueError(f"{version} is older than {newest}: take a version after it")
        breaking = [f for f in findings(old, current()) if f.difference.is_breaking]
        for_ever = [f for f in breaking if kind_of(f.file) in _KEPT_FOR_EVER]
        if for_ever:
            raise ValueError(
                "no release may break what is stored:\n" + "\n".join(map(str, for_ever))
            )
        if breaking and _promise(number) == _promise(before):
            listed = "\n".join(map(str, breaking))
            raise ValueError(f"{version} promises to break nobody, and breaks:\n{listed}")
    for name, text in documents().items():
        if name.startswith("schemas/"):
            path = target / name.removeprefix("schemas/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return target


def _promise(version: tuple[int, int, int]) -> tuple[int, int]:
    """Return the part of a version that changes when callers have to: 0.x breaks with x."""
    major, minor, _patch = version
    return (major, 0) if major else (0, minor)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m flotilla_contracts.release")
    parser.add_argument("version", help="three numbers, such as 0.2.0")
    try:
        folder = release(parser.parse_args(arguments).version, root)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{folder.relative_to(root.parent)} is written: commit it\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
