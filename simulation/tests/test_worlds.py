"""Whole worlds: nothing breaks in the storm, everything settles after it, and each can be replayed."""

from collections.abc import Iterator

import pytest
import structlog

from simulation.__main__ import main, quiet, replay
from simulation.mutants import MUTANTS
from simulation.world import run

BATCH, BATCHES = 250, 8
SEEDS_TO_CATCH = 100
"""Within so many worlds every mutant is caught."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    quiet()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_whatever_happens_no_promise_is_broken_and_everything_settles(batch: int) -> None:
    events = 0
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        world = run(seed)
        assert world.error is None, f"{world.error}\n{replay(seed)}"
        events += world.events
    assert events > 10 * BATCH, "worlds in which little happens"


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_is_the_same_world_again(seed: int) -> None:
    first, again = run(seed), run(seed)

    assert first.lines() == again.lines()
    assert first.digest() == again.digest()


def test_another_seed_is_another_world() -> None:
    assert 20 == len({run(seed).digest() for seed in range(20)})


@pytest.mark.parametrize("name", MUTANTS)
def test_a_world_without_a_safeguard_breaks_a_promise(name: str) -> None:
    broken = (run(seed, **MUTANTS[name]) for seed in range(SEEDS_TO_CATCH))

    assert any(world.error for world in broken), f"{name}: nothing broke"


def test_a_failing_seed_is_told_with_what_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["--seeds", "3", "--jobs", "1", "--mutant", "record-before-publish"])
    told = capsys.readouterr().out
    assert "python -m simulation --seed 0 --trace --mutant record-before-publish" in told

    assert 1 == main(["--seed", "0", "--trace", "--mutant", "record-before-publish"])
    assert "BROKEN" in capsys.readouterr().out
