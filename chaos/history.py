"""What callers asked for and what they were told, with times: the one thing a checker believes.

A command is asked for under one idempotency key until its caller knows what became of it; each try
is an attempt. Times are of the machine's monotonic clock, which all its processes share.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

Outcome = Literal["ok", "refused", "unknown", "wrong"]
"""`ok` and `refused` are final; `unknown` is tried again; `wrong` is nothing a caller may hear."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one attempt came to. `value` and `version` are the reply's, when it was `ok`."""

    outcome: Outcome
    detail: str = ""
    value: int = 0
    version: int = 0
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: when it began, when its caller heard something, and what."""

    invoked_s: float
    ended_s: float
    heard: Heard


@dataclass(slots=True)
class Command:
    """Move `stream` by `by`, if it is at `expected` (None: wherever it is)."""

    key: str
    stream: str
    by: int
    expected: int | None = None
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def answer(self) -> Heard | None:
        """Return what its caller knows in the end; None when it never heard anything final."""
        last = self.attempts[-1].heard if self.attempts else None
        return last if last and last.outcome in {"ok", "refused"} else None

    @property
    def acknowledged(self) -> Iterator[Attempt]:
        """Return the attempts that were answered with success."""
        return (attempt for attempt in self.attempts if attempt.heard.outcome == "ok")


@dataclass(frozen=True, slots=True)
class Read:
    """What a query showed. `at_least` is the version that it was asked to wait for; 0 for none."""

    stream: str
    at_least: int
    invoked_s: float
    ended_s: float
    value: int
    version: int


@dataclass(slots=True)
class History:
    """Everything that callers did in one round."""

    commands: list[Command] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        """Return how many attempts came to `outcome`."""
        return sum(a.heard.outcome == outcome for c in self.commands for a in c.attempts)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        commands = [
            Command(
                **{
                    **command,
                    "attempts": [
                        Attempt(a["invoked_s"], a["ended_s"], Heard(**a["heard"]))
                        for a in command["attempts"]
                    ],
                }
            )
            for command in found["commands"]
        ]
        return cls(commands, [Read(**read) for read in found["reads"]])
