"""Folds: two read models of one log."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from flotilla import Bindings, Health, LogEvent, Running
from flotilla.health import serve_health
from flotilla.projection import ViewSession
from flotilla.rebuild import ReadModels
from flotilla_contracts.health import health_subject


@dataclass(frozen=True)
class Folded:
    """A read model without tables."""

    name: str
    staleness_budget_s: float
    partitions: int = 1
    log: str = "counter"
    tables: Sequence[str] = ()

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Fold nothing."""


def read_models() -> ReadModels:
    """Return both."""
    return ReadModels((Folded("totals", 2.0, partitions=4), Folded("feed", 9.0)), _no_stream)


def _no_stream(_url: str, _log: str) -> Any:
    raise NotImplementedError


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Serve what the model says."""

    async def health() -> Health:
        return Health()

    await serve_health(bindings.bus, health_subject("worker"), "worker", health)
    yield Running("worker", health)
