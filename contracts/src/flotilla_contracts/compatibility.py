"""Whether today's contracts can live with what was released: stored events, old callers, old readers.

    python -m flotilla_contracts.compatibility          exit 1, with a line for each breaking change
    python -m flotilla_contracts.compatibility --all    compatible changes too

The newest folder of `contracts/released/` is compared with the models, file by file. In short:

- **Events** are stored for ever, and we read them. Breaking: removing a type, removing or renaming a
  field, changing a type, adding a required field, narrowing (enum, pattern, bounds), another default.
  Compatible: an optional field, widening, a new event type.
- **Commands and queries** are read by us. Breaking: removing one, adding a required field, removing a
  field, narrowing. Compatible: an optional field, widening.
- **Replies and the problem** are written by us. Breaking: removing one, removing a field, making a
  required one optional, widening types, enums or bounds. Compatible: a field more, narrowing.
- **The envelope** is both: published messages stay in the broker's streams, and others read them.

The verdict on two schemas is in `flotilla_contracts.comparison`, the reasons in
`docs/compatibility.md`.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flotilla_contracts.comparison import Difference, Kind, cure_of, differences, name_of
from flotilla_contracts.generate import ROOT, documents

type Schema = Mapping[str, Any]

_KINDS = {
    "events": Kind.EVENT,
    "commands": Kind.COMMAND,
    "queries": Kind.QUERY,
    "replies": Kind.REPLY,
    "envelope.json": Kind.ENVELOPE,
    "problem.json": Kind.PROBLEM,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference, and the file below `contracts/schemas/` that it is in."""

    file: str
    difference: Difference

    def __str__(self) -> str:
        """Say it in one line: file, field, what, cure."""
        found = self.difference
        where = f"{self.file}: {found.path}" if found.path else self.file
        verdict = "breaking" if found.is_breaking else "compatible"
        return f"{verdict}: {where}: {found.what}; {found.cure}"


def kind_of(file: str) -> Kind:
    """Return what the schema in `file` describes.

    Raises:
        ValueError: there are no rules for this folder yet.

    """
    first = file.split("/", 1)[0]
    if first not in _KINDS:
        raise ValueError(f"{file}: no rules say who depends on it: add its folder to {__name__}")
    return _KINDS[first]


def findings(old: Mapping[str, Schema], new: Mapping[str, Schema]) -> list[Finding]:
    """Return every difference between two sets of schemas, by file."""
    found: list[Finding] = []
    for file in sorted(old.keys() | new.keys()):
        kind = kind_of(file)
        if file not in new:
            gone = Difference("", f"the {kind} is gone", cure_of(kind, name_of(old[file])), True)
            found.append(Finding(file, gone))
        elif file not in old:
            come = Difference("", f"a new {kind}", "nothing: it is compatible", False)
            found.append(Finding(file, come))
        else:
            found += [Finding(file, d) for d in differences(kind, old[file], new[file])]
    return found


def current() -> dict[str, Schema]:
    """Return the schemas of the models, by file."""
    prefix = "schemas/"
    return {
        name.removeprefix(prefix): json.loads(text)
        for name, text in documents().items()
        if name.startswith(prefix)
    }


def released(root: Path = ROOT) -> dict[str, dict[str, Schema]]:
    """Return the schemas of every release below `root`, by version (the oldest first) and file."""
    folders = [folder for folder in root.glob("released/*") if folder.is_dir()]
    return {
        folder.name: {
            path.relative_to(folder).as_posix(): json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(folder.rglob("*.json"))
        }
        for folder in sorted(folders, key=lambda folder: version_of(folder.name))
    }


def version_of(text: str) -> tuple[int, int, int]:
    """Return a version as numbers.

    Raises:
        ValueError: it is not three numbers with dots between.

    """
    parts = text.split(".")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() for p in parts):  # noqa: PLR2004 - three
        raise ValueError(f"{text!r} is no version: write three numbers, such as 0.2.0")
    major, minor, patch = map(int, parts)
    return major, minor, patch


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m flotilla_contracts.compatibility")
    parser.add_argument("--all", action="store_true", help="show compatible changes too")
    options = parser.parse_args(arguments)
    releases = released(root)
    if not releases:
        sys.stderr.write(
            "Nothing was released yet. Run: python -m flotilla_contracts.release <version>\n"
        )
        return 1
    version, old = list(releases.items())[-1]
    found = findings(old, current())
    breaking = [finding for finding in found if finding.difference.is_breaking]
    for finding in found:
        if finding.difference.is_breaking:
            sys.stderr.write(f"{finding}\n")
        elif options.all:
            sys.stdout.write(f"{finding}\n")
    if breaking:
        sys.stderr.write(f"The contracts break {version}. See docs/compatibility.md\n")
    return 1 if breaking else 0


if __name__ == "__main__":
    sys.exit(main())
