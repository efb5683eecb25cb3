"""Whom workflows call is evidence as whom code calls: it needs a policy."""

from dataclasses import replace
from pathlib import Path

from flotilla_platform.evidence.depending import check_dependencies
from flotilla_platform.evidence.graph import dependency_graph
from flotilla_platform.reading import read_platform

SHIPPED = Path(__file__).parents[1] / "platform-model"
GOOD = SHIPPED / "tests" / "models" / "good"


def test_whom_workflows_call_is_known_and_needs_a_policy() -> None:
    shipped, others = read_platform(SHIPPED), read_platform(GOOD)
    documents = {**others.documents, **shipped.documents}
    both = replace(shipped, workflows=others.workflows, documents=documents)
    asked = {c.subject: c.at for c in dependency_graph(both).calls if c.caller == "workflow"}
    assert {"cmd.counter.increment", "cmd.counter.decrement"} == set(asked)
    assert asked["cmd.counter.increment"].file.name == "count-twice.yaml"
    told = [str(mistake) for mistake in check_dependencies(both)]
    assert any(
        "'workflow' asks the command 'decrement' of 'counter', and no policy" in t for t in told
    )
