"""Worlds of schedules: whatever happens, each occurrence is decided once, and none is left."""

from collections.abc import Iterator

import pytest
import structlog

from simulation.__main__ import quiet, replay
from simulation.schedules import MUTANTS, run

BATCH, BATCHES = 10, 3
SEEDS_TO_CATCH = 30
"""Within so many worlds every mutant is caught."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    quiet()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_whatever_happens_every_occurrence_is_decided_once(batch: int) -> None:
    events = 0
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        world = run(seed)
        assert world.error is None, f"{world.error}\n{replay(seed, world='schedules')}"
        events += world.events
    assert events > 20 * BATCH, "worlds in which little happens"


def test_a_seed_is_the_same_world_again() -> None:
    assert run(7).lines() == run(7).lines()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_world_without_a_safeguard_breaks_a_promise(name: str) -> None:
    broken = (run(seed, **MUTANTS[name]) for seed in range(SEEDS_TO_CATCH))

    assert any(world.error for world in broken), f"{name}: nothing broke"
