"""`flotilla model plan`: what it takes to get from one topology to another."""

import itertools
import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from flotilla_platform.changing import connections, plan
from flotilla_platform.cli import app
from flotilla_platform.model import Bound
from flotilla_platform.reading import find_model, read_platform

PLATFORM = read_platform(find_model())
PAIRS = list(itertools.product(PLATFORM.layouts, repeat=2))


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_every_pair_of_topologies_has_one_plan(before: str, after: str) -> None:
    layouts = PLATFORM.layouts
    found = plan(PLATFORM, layouts[before], layouts[after])
    assert found == plan(read_platform(find_model()), layouts[before], layouts[after])
    assert bool(found.steps) == bool(found.changes) == bool(found.risks) == (before != after)
    for placed in layouts[after].deployables if before != after else ():
        assert any(f"Start {placed.replicas} of {placed.name};" in one for one in found.steps)


def test_data_is_moved_after_the_stop_and_before_the_start() -> None:
    found = plan(PLATFORM, PLATFORM.layouts["single"], PLATFORM.layouts["vps"])
    order = ["Stop single", "Move what it keeps", "Compare counts", "Start 1 of counter"]
    places = [next(i for i, s in enumerate(found.steps) if s.startswith(o)) for o in order]
    assert places == sorted(places)
    assert any(one.startswith("the store of counter") for one in found.moves)
    assert any(one.startswith("the read models of projector") for one in found.moves)
    assert any(one.startswith("latency") for one in found.risks)


def test_nothing_moves_only_between_topologies_on_one_server_of_somebody_else() -> None:
    layouts = PLATFORM.layouts
    assert plan(PLATFORM, layouts["compose"], layouts["k3s"]).moves
    store = layouts["k3s"].resources.store.model_copy(update={"server": "external"})
    shared = [
        replace(layouts[name], resources=Bound(store, layouts[name].resources.bus))
        for name in ("compose", "k3s")
    ]
    found = plan(PLATFORM, *shared)
    assert not found.moves
    assert not any("Move" in step for step in found.steps)


def test_more_connections_than_the_store_takes_are_a_risk() -> None:
    layout = PLATFORM.layouts["k3s"]
    wanted = connections(PLATFORM, layout)
    most = layout.resources.store.limits.max_connections
    told = plan(PLATFORM, PLATFORM.layouts["single"], layout).risks
    assert any(one.startswith("connections") for one in told) == (
        most is not None and wanted > most
    )
    # counter: its store; tenant: its store, and keys; relay: four logs; projector: views, four logs;
    # workflow: store, views, four logs, the scheduler's store
    assert wanted == 2 * (10 * (1 + 1 + 4 + 5 + 7) + 4)


def test_an_unknown_topology_is_told_with_the_one_that_was_meant() -> None:
    answer = CliRunner().invoke(app, ["model", "plan", "single", "k3"])
    assert answer.exit_code == 2
    assert "did you mean 'k3s'" in answer.output


def test_a_plan_for_machines_and_one_for_people() -> None:
    answer = CliRunner().invoke(app, ["model", "plan", "single", "k3s", "--json"])
    assert json.loads(answer.output)["steps"]
    answer = CliRunner().invoke(app, ["model", "plan", "k3s", "k3s"])
    assert "nothing to do" in answer.output
