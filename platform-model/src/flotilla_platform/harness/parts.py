"""What the files in `agent/` say: the map of the code, the rules of routing, the matrix of gates.

A pattern of paths is a folder (`kernel/`, all below it), a file (`Makefile`), or has a `*` that
stands for any characters, slashes too (`*.py`).
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field

from flotilla_platform.model.part import Name, Part, Summary

Pattern = Annotated[str, Field(min_length=1, max_length=120, examples=["kernel/"])]
Patterns = Annotated[tuple[Pattern, ...], Field(examples=["[kernel/]"])]
Stage = Literal["check", "test", "break"]
STAGES: tuple[Stage, ...] = ("check", "test", "break")
"""One after the other: what is quick and says most comes first."""
MEMBERS = "members"


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Return whether one of `patterns` stands for a path."""
    return any(
        fnmatchcase(path, pattern)
        if "*" in pattern
        else path.startswith(pattern)
        if pattern.endswith("/")
        else path == pattern
        for pattern in patterns
    )


class Kind(Part):
    """What modules of a kind have in common."""

    name: Name
    required: Annotated[
        tuple[str, ...],
        Field(
            description="Files in each, from its folder; {package} is its first package.",
            examples=["[pyproject.toml]"],
        ),
    ] = ()


class Module(Part):
    """A part of the repository with one owner."""

    name: Name
    kind: Annotated[Name, Field(description="Its kind: one of `kinds`.")]
    paths: Patterns
    but: Annotated[Patterns, Field(description="What of `paths` is another module's.")] = ()
    packages: Annotated[
        tuple[str, ...], Field(description="What others import.", examples=["[flotilla]"])
    ] = ()
    may_import: Annotated[
        tuple[Name, ...],
        Field(description="Modules whose packages it imports.", examples=["[kernel]"]),
    ] = ()

    def owns(self, path: str) -> bool:
        """Return whether a path is its own."""
        return matches(path, self.paths) and not matches(path, self.but)


class Generated(Part):
    """Files that nobody edits, and what they are made from."""

    paths: Patterns
    but: Patterns = ()
    sources: Annotated[Patterns, Field(description="Change these instead.")]
    cure: Annotated[
        str, Field(description="What writes them again.", examples=["make generate"], min_length=1)
    ]


class AntiPattern(Part):
    """What is not done here, and what is done instead."""

    name: Name
    wrong: Summary
    instead: Summary
    held_by: Annotated[Name, Field(description="The gate that goes red.", examples=["lint"])]


class Codemap(Part):
    """`agent/codemap.yml`: modules, who may import whom, what is generated."""

    kinds: Annotated[tuple[Kind, ...], Field(examples=["[]"])]
    modules: Annotated[tuple[Module, ...], Field(min_length=1, examples=["[]"])]
    generated: Annotated[tuple[Generated, ...], Field(examples=["[]"])] = ()
    anti_patterns: Annotated[tuple[AntiPattern, ...], Field(examples=["[]"])] = ()


class Role(Part):
    """Who does a task: what it reads first, what it may write."""

    name: Name
    summary: Summary
    owns: Annotated[
        tuple[Name, ...], Field(description="Modules it answers for.", examples=["[kernel]"])
    ]
    writes: Annotated[
        tuple[Name, ...],
        Field(description="Modules it may write besides its own.", examples=["[docs]"]),
    ] = ()
    reads: Annotated[
        tuple[str, ...], Field(description="In this order.", examples=["[AGENTS.md]"], min_length=1)
    ]
    words: Annotated[
        tuple[str, ...],
        Field(description="Words of a task that is for it.", examples=["[schema]"], min_length=1),
    ]


class Routing(Part):
    """`agent/manifests/routing-rules.yml`: roles and their boundaries."""

    roles: Annotated[tuple[Role, ...], Field(min_length=1, examples=["[]"])]


class DataEdge(Part):
    """Files that code reads without importing them."""

    when: Annotated[Patterns, Field(description="Whoever reads one of these …")]
    reads: Annotated[Patterns, Field(description="… reads these as well.")]


class GateRule(Part):
    """A gate, or one for each of several things (`each`, `{each}`)."""

    name: Name
    holds: Summary
    stage: Stage
    each: Annotated[
        tuple[str, ...],
        Field(
            description="One gate for each; `members` stands for those of the workspace.",
            examples=["[members]"],
        ),
    ] = ()
    run: Annotated[
        tuple[tuple[str, ...], ...],
        Field(
            description="Commands in turn; {bin} is the environment's, {uv} is uv.",
            examples=["[['{bin}/lint-imports']]"],
            min_length=1,
        ),
    ]
    imports: Annotated[Patterns, Field(description="It runs these, and what they import.")] = ()
    reads: Annotated[Patterns, Field(description="It reads these.")] = ()
    but: Annotated[Patterns, Field(description="What of `reads` it does not.")] = ()
    expected_s: Annotated[
        float, Field(gt=0, description="What it usually takes: the longest start first.")
    ] = 5.0
    limit_s: Annotated[float, Field(gt=0, le=3600, description="When it is ended.")] = 300.0
    alone_with: Annotated[
        Name | None, Field(description="Never beside a gate that says the same.")
    ] = None


class GateMatrix(Part):
    """`agent/manifests/gate-matrix.yml`: what is run to know that a change is right."""

    everything: Annotated[Patterns, Field(description="What every gate reads.")]
    data: Annotated[tuple[DataEdge, ...], Field(examples=["[]"])] = ()
    gates: Annotated[tuple[GateRule, ...], Field(min_length=1, examples=["[]"])]
