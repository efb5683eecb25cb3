"""What a generator is, and what it makes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flotilla_platform.model import Platform

type Artifacts = Mapping[str, str]
"""Files by their path below `deploy/`, with forward slashes, and their text."""

DEPLOY = "deploy"
NOTICE = (
    "Generated from platform-model by `flotilla model generate --write`; change the model instead."
)


@dataclass(frozen=True, slots=True)
class Generator:
    """A kind of artifact: its name, what it is for, and the folders below `deploy/` that it owns."""

    name: str
    makes: str
    folders: tuple[str, ...]
    generate: Callable[[Platform], Artifacts]
