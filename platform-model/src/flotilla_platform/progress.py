"""How far a long command is: a bar on stderr for people, lines on stdout for programs."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from flotilla.clock import Clock

LINE_EVERY_S = 0.5
_LEAST_S = 1e-6


class Step(Protocol):
    """How far it is: at `offset` of `target`, doing `phase`."""

    @property
    def phase(self) -> str:
        """Return what it does, in one word."""
        ...

    @property
    def offset(self) -> int:
        """Return how much is done."""
        ...

    @property
    def target(self) -> int:
        """Return how much there is."""
        ...


Report = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Words:
    """What is counted, and how lines for programs call it and whom it is about."""

    subject: str = "projection"
    place: str = "offset"
    counted: str = "events"


_FOLDING = Words()


class _Rate(TextColumn):
    """So many a second, lately."""

    def __init__(self, counted: str) -> None:
        super().__init__("")
        self._counted = counted

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        said = "" if speed is None else f"{speed:,.0f} {self._counted}/s"
        return Text(said, style="progress.data.speed")


@contextmanager
def reporting(
    name: str, clock: Clock, *, as_json: bool, words: Words = _FOLDING
) -> Iterator[Report]:
    """Yield what to tell progress to. Where stderr is no terminal, there is no bar."""
    if as_json:
        yield _lines(name, clock, words)
        return
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(words.counted),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        def report(progress: Step) -> None:
            bar.update(
                task,
                description=f"{name}: {progress.phase}",
                completed=progress.offset,
                total=progress.target,
            )

        yield report


def _lines(name: str, clock: Clock, words: Words) -> Report:
    started_s = clock.monotonic_s()
    first: list[int] = []
    told: list[tuple[float, str]] = []

    def report(progress: Step) -> None:
        now_s = clock.monotonic_s()
        first[1:] = []
        if not first:
            first.append(progress.offset)
        if told and told[-1][1] == progress.phase and now_s - told[-1][0] < LINE_EVERY_S:
            return
        told[:] = [(now_s, progress.phase)]
        rate = (progress.offset - first[0]) / max(now_s - started_s, _LEAST_S)
        line = {
            "kind": "progress",
            words.subject: name,
            "phase": progress.phase,
            words.place: progress.offset,
            "target": progress.target,
            f"{words.counted}_per_s": round(rate, 1),
            "eta_s": round((progress.target - progress.offset) / rate, 1) if rate else None,
        }
        typer.echo(json.dumps(line, separators=(",", ":")))

    return report
