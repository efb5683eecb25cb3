"""`flotilla workflows`: what it asks, what it shows, how it ends; mistakes have places."""

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from flotilla.bus import Answer, Request
from flotilla.buses.local import LocalBus
from flotilla.errors import Rejected
from flotilla_contracts.workflow import (
    COMMANDS,
    GetWorkflow,
    ListWorkflows,
    WorkflowDetail,
    WorkflowPage,
    WorkflowReply,
    WorkflowRow,
    WorkflowStep,
)
from flotilla_platform.cli import app
from flotilla_platform.drawing import HEIGHT, WIDTH, layers, svg
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.loading import ModelInvalid
from flotilla_platform.reading import read_platform
from flotilla_platform.workflows import Operator, Which, which

GOOD = Path(__file__).parent / "models/good"
SHIPPED = Path(__file__).parents[1]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ABOUT: dict[str, Any] = {"workflow": "ordering", "version": 2, "key": "o-1"}


def step(name: str, *needs: str, standing: str = "done", why: str = "") -> WorkflowStep:
    return WorkflowStep(
        name=name, does=f"cmd.shop.{name}", depends_on=needs, standing=standing, why=why
    )


STEPS = (
    step("reserve"),
    step("charge", "reserve", standing="failed", why="<nobody> knows & cares"),
    step("notify", "reserve"),
    step("ship", "charge", "notify", standing="later"),
)


class Fleet:
    """Whoever is asked: one instance, which stands where a test says."""

    def __init__(self) -> None:
        self.status = "stuck"
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def reply(self, instance: str) -> dict[str, Any]:
        return ABOUT | {"instance": instance, "status": self.status, "reason": "charge: no answer"}

    async def answer(self, request: Request) -> Answer:
        body = json.loads(request.body)
        self.asked.append((request.subject, request.context.tenant, body))
        if request.subject == ListWorkflows.subject:
            row = WorkflowRow(
                tenant="acme",
                started_at=NOW,
                changed_at=NOW,
                **self.reply("ordering:o-1"),
            )
            page = WorkflowPage(items=(row,), next_cursor="next")
            return Answer(page.model_dump_json().encode())
        if "nobody" in body["instance"]:
            raise Rejected("there is no such workflow", code="workflow-not-found")
        reply = self.reply(body["instance"])
        if request.subject == GetWorkflow.subject:
            detail = WorkflowDetail(**reply, steps=STEPS, picture="flowchart TD\n")
            return Answer(detail.model_dump_json().encode())
        if self.status == "completed":
            raise Rejected("it is completed: there is nothing to do", code="workflow-not-now")
        return Answer(WorkflowReply(**reply).model_dump_json().encode())


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    found = Fleet()

    @asynccontextmanager
    async def operating(_: object, by: str) -> AsyncIterator[Operator]:
        bus = LocalBus()
        for kind in (*COMMANDS, GetWorkflow, ListWorkflows):
            await bus.serve(kind.subject, found.answer)
        yield Operator(bus, by)

    monkeypatch.setattr("flotilla_platform.listing.operating", operating)
    monkeypatch.setattr("flotilla_platform.listing.find_running", lambda _: None)
    yield found


def run(*words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["workflows", *words])
    return found.exit_code, found.output


def test_workflows_are_listed_with_what_is_asked_for(fleet: Fleet) -> None:
    code, told = run("list", "--tenant", "acme", "--status", "stuck", "--since", NOW.isoformat())
    assert code == ExitCode.OK
    assert "acme/ordering:o-1" in told
    assert "charge: no answer" in told
    assert "--after next" in told
    [(subject, tenant, body)] = fleet.asked
    assert (subject, tenant, body["every_tenant"]) == (ListWorkflows.subject, "acme", False)
    assert body["status"] == "stuck"

    code, told = run("list", "--json")
    assert json.loads(told)["items"][0]["instance"] == "ordering:o-1"
    assert fleet.asked[-1][2]["every_tenant"] is True
    assert run("list", "--since", "yesterday")[0] == ExitCode.USAGE


def test_one_is_shown_with_a_picture_and_stuck_is_a_status(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "o-1.svg"
    code, told = run("show", "acme/ordering:o-1", "--svg", str(file))
    assert code == ExitCode.UNHEALTHY
    assert "acme/ordering:o-1 (version 2) is stuck: charge: no answer" in told
    assert "flowchart TD" in told
    assert "<nobody> knows & cares" in told
    assert ET.fromstring(file.read_text()).tag.endswith("svg")

    fleet.status = "completed"
    assert run("show", "acme/workflow/ordering:o-1", "--json")[0] == ExitCode.OK
    assert run("show", "acme/ordering:nobody")[0] == ExitCode.NOT_FOUND
    code, told = run("show", "ordering")
    assert (code, "write <tenant>/<workflow>:<key>" in told) == (ExitCode.USAGE, True)
    assert (
        run("show", "acme/ordering:o-1", "--svg", str(tmp_path / "no/o.svg"))[0] == ExitCode.USAGE
    )


def test_what_people_tell_reaches_the_instance_with_who_says_so(fleet: Fleet) -> None:
    said: list[tuple[str, str, dict[str, Any]]] = [
        ("retry", "resume", {}),
        ("resume", "resume", {}),
        ("compensate --reason why --unknown done", "compensate", {"unknown": "done"}),
        ("cancel --reason why", "cancel", {"reason": "why"}),
        ("fork-from ship --version 2", "fork-from", {"step": "ship", "version": 2}),
        ("answer ship --no --reason why", "answer", {"step": "ship", "approved": False}),
    ]
    for words, command, fields in said:
        name, *rest = words.split()
        assert run(name, "acme/ordering:o-1", *rest, "--by", "ann")[0] == ExitCode.OK, words
        subject, tenant, body = fleet.asked[-1]
        assert (subject, tenant) == (f"cmd.workflow.{command}", "acme")
        assert body | fields | {"by": "ann", "instance": "ordering:o-1"} == body


def test_what_cannot_be_told_has_a_status_of_its_own(fleet: Fleet) -> None:
    unknown = run("compensate", "acme/ordering:o-1", "--reason", "why", "--unknown", "perhaps")
    assert unknown[0] == ExitCode.USAGE
    assert run("cancel", "acme/ordering:nobody", "--reason", "why")[0] == ExitCode.NOT_FOUND
    fleet.status = "completed"
    assert run("resume", "acme/ordering:o-1")[0] == ExitCode.REFUSED
    code, told = run("retry", "acme/ordering:o-1")
    assert code == ExitCode.REFUSED
    assert "is completed: `retry` is for what is stuck" in told


def test_instances_are_named_as_they_are_listed() -> None:
    assert which("acme/ordering:o-1") == which("acme/workflow/ordering:o-1")
    assert Which("acme", "ordering:o-1") == which("acme/ordering:o-1")
    for wrong in ("", "acme", "acme/ordering", "/ordering:o", "acme/counter/a:b/c"):
        with pytest.raises(Failure):
            which(wrong)


def test_a_picture_shows_every_step_below_what_it_builds_on() -> None:
    assert [["reserve"], ["charge", "notify"], ["ship"]] == [
        [one.name for one in row] for row in layers(STEPS)
    ]
    reply = Fleet().reply("ordering:o-1")
    drawn = ET.fromstring(svg(WorkflowDetail(**reply, steps=STEPS, picture="")))
    words = [e.text for e in drawn.iter() if e.tag.endswith("text")]
    assert {"reserve", "charge", "notify", "ship", "stuck", "<nobody> knows & cares"} <= set(words)
    boxes = [
        (float(e.attrib["x"]), float(e.attrib["y"]))
        for e in drawn.iter()
        if e.tag.endswith("rect") and "x" in e.attrib
    ]
    assert len(boxes) == len(STEPS) + 2
    for n, (x, y) in enumerate(boxes):
        for other_x, other_y in boxes[:n]:
            assert abs(x - other_x) >= WIDTH or abs(y - other_y) >= HEIGHT - 30, "they overlap"


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("    compensation: null\n", "", "compensation is missing"),
        ("counter_id: total, by", "counter: total, by", "there is no field of cmd.counter"),
        ('where: { counter_id: "${trigger.counter_id}" }', "where: {}", "which field of"),
        ("${trigger.counter_id}\nenv", "${trigger.counter}\nenv", "did you mean 'counter_id'?"),
    ],
)
def test_what_the_kernel_would_refuse_is_told_with_its_place(
    tmp_path: Path, was: str, now: str, told: str
) -> None:
    shutil.copytree(GOOD, tmp_path / "model")
    file = tmp_path / "model/workflows/count-twice.yaml"
    text = file.read_text()
    assert was in text
    file.write_text(text.replace(was, now, 1))
    with pytest.raises(ModelInvalid) as refused:
        read_platform(tmp_path / "model")
    [first, *_] = refused.value.mistakes
    assert told in str(first)
    assert first.position.file.name == "count-twice.yaml"
    assert first.position.line > 1
