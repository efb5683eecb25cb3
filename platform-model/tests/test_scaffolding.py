"""What `flotilla new service` would write; that it is green there is held by `make verify-new`."""

import ast
import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from flotilla_platform.cli import app
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.scaffolding.answers import ServiceAnswers, checked, read_answers, told
from flotilla_platform.scaffolding.changes import Changes
from flotilla_platform.scaffolding.editing import edit_yaml, flow, ini_lines, python_list
from flotilla_platform.scaffolding.service import plan_service

ROOT = Path(__file__).parents[2]
ANSWERS = Path(__file__).parent / "answers" / "invoice.yaml"


@pytest.fixture
def plan() -> Changes:
    return plan_service(ROOT, read_answers(ANSWERS))


def answers(**changes: object) -> ServiceAnswers:
    content = YAML(typ="safe", pure=True).load(ANSWERS.read_text("utf-8"))
    return checked(content | changes)


def test_every_python_file_is_python_and_no_word_of_a_template_is_left(plan: Changes) -> None:
    written = plan.created | plan.edited
    for path, text in written.items():
        if path.endswith(".py"):
            ast.parse(text, path)
    assert [path for path, text in plan.created.items() if "${" in text] == []
    assert "svc-invoice/src/svc_invoice/domain/invoice.py" in plan.created


def test_only_what_is_new_differs_in_a_file_that_people_write(plan: Changes) -> None:
    for path, text in plan.edited.items():
        if path.endswith((".yaml", ".yml", ".importlinter", "Dockerfile")):
            lines = text.splitlines()
            gone = [one for one in (ROOT / path).read_text().splitlines() if one not in lines]
            assert all("[" in line for line in gone), (path, gone)  # a list on one line grows
            assert "invoice" in text


def test_every_event_has_a_golden_form_with_all_of_its_fields(plan: Changes) -> None:
    stored = json.loads(plan.created["svc-invoice/tests/golden/invoice.issued.v1.json"])
    assert {"invoice_id", "amount_cents", "customer"} == stored.keys()


def test_names_with_hyphens_are_names_in_python_too() -> None:
    plan = plan_service(ROOT, answers(service="credit-notes", aggregate="credit-note"))
    for path, text in plan.created.items():
        if path.endswith(".py"):
            ast.parse(text, path)
    assert "svc-credit-notes/src/svc_credit_notes/domain/credit_note.py" in plan.created


def test_nothing_is_overwritten() -> None:
    with pytest.raises(Failure, match="is there already") as refusal:
        plan_service(ROOT, answers(service="counter", aggregate="counter"))
    assert refusal.value.code == ExitCode.REFUSED


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"service": "In Voice"}, "service: "),
        ({"summary": "no full stop"}, "summary: "),
        ({"commands": []}, "commands: "),
        ({"commands": [told("issue=issued(status:text)")]}, "take another one"),
        ({"commands": [told("a=b(x:text)"), told("c=d(x:integer)")]}, "text and integer"),
        ({"commands": [told("a=b"), told("a=c")]}, "a name of its own"),
        ({"colour": "blue"}, "colour: "),
    ],
)
def test_a_wrong_answer_is_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(Failure, match=says) as refusal:
        answers(**changes)
    assert refusal.value.code == ExitCode.USAGE


def test_a_dry_run_lists_files_and_writes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    given = ["new", "service", "invoice", "--summary", "Invoices.", "--owner", "billing-team"]
    commands = ["--command", "issue=issued(amount:integer)", "--command", "pay=paid", "--dry-run"]

    result = CliRunner().invoke(app, [*given, *commands])

    assert result.exit_code == 0, result.output
    assert "new     svc-invoice/pyproject.toml" in result.output.splitlines()
    assert not (ROOT / "svc-invoice").exists()


def test_comments_stay_where_they_are() -> None:
    text = "# why\na:\n  - { b: 1 } # one\n"
    assert edit_yaml(text, lambda d: d["a"].append(flow({"b": 2}))) == text + "  - {b: 2}\n"


def test_lists_are_extended_at_their_end() -> None:
    assert python_list("a = (1,)\n", "a", "2") == "a = (1, 2,)\n"
    assert python_list("ä = 'ü'; a = {}\n", "a", "'x': 1") == "ä = 'ü'; a = { 'x': 1,}\n"
    assert ini_lines("[s]\no =\n    a\n", "b", [("s", "o")]) == "[s]\no =\n    a\n    b\n"
    with pytest.raises(KeyError):
        python_list("a = 1\n", "a", "2")
