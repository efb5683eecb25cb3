"""`flotilla model …`: a right model passes, a broken one is told to the line and the column."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flotilla_platform import modelling, validators
from flotilla_platform.cli import app
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.loading import Mistake, ModelInvalid, Position
from flotilla_platform.model import Platform
from flotilla_platform.reading import find_model, inspect_platform, read_platform
from flotilla_platform.validators import VALIDATORS, exit_code_of, run_validators

GOOD = Path(__file__).parent / "models" / "good"

Break = Callable[..., Path]
UNREADABLE = {
    "services/counter": ("log: counter", "log: none"),
    "services/edge": ("entrypoint", "entrypint"),
    "deployables/worker": ("leased", "lesed"),
    "owners/counters": ("mailto:", "me:"),
}
UNREADABLE_AT = [
    "services/edge.yaml:4:1",
    "deployables/worker.yaml:4:8",
    "owners/counters.yaml:3:10",
    "services/counter.yaml:5:6",
]
UNPLACEABLE = {
    "deployables/counter": ("summary: Decides.", "summary: Decides.\nstate: embedded"),
    "deployables/worker": ("state: leased", "state: none"),
    "topologies/many": ("store: postgres, bus: nats }", "store: files, bus: postgres }"),
}
UNPLACEABLE_AT = [
    "deployables/worker.yaml:4:8",
    "topologies/many.yaml:4:21",
    "topologies/many.yaml:4:33",
    "topologies/many.yaml:6:38",
]


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Break:
    """Copy the good model, and replace texts in some of its files."""
    monkeypatch.chdir(tmp_path)

    def copy(changes: dict[str, tuple[str, str]]) -> Path:
        root = tmp_path / "model"
        shutil.copytree(GOOD, root)
        for name, (old, new) in changes.items():
            file = root / f"{name}.yaml"
            text = file.read_text()
            assert old in text
            file.write_text(text.replace(old, new, 1))
        return root

    return copy


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["model", "check", *map(str, arguments)])


def places(mistakes: list[dict[str, Any]], root: Path) -> list[str]:
    return [f"{Path(m['file']).relative_to(root)}:{m['line']}:{m['column']}" for m in mistakes]


@pytest.mark.parametrize("root", [GOOD, find_model()], ids=["good", "shipped"])
def test_a_model_without_mistakes_passes_what_looks_at_it_alone(root: Path) -> None:
    result = check("--model", root, "--only", "model-lint", "--only", "topology-check")
    assert result.exit_code == ExitCode.OK, result.output
    assert result.output.split() == ["✓", "model-lint", "✓", "topology-check"]


@pytest.mark.parametrize(
    ("name", "changes", "at", "code"),
    [
        ("model-lint", UNREADABLE, UNREADABLE_AT, ExitCode.MODEL_INVALID),
        ("topology-check", UNPLACEABLE, UNPLACEABLE_AT, ExitCode.TOPOLOGY_INVALID),
    ],
)
def test_a_validator_rejects_a_broken_model_with_its_own_status(
    broken: Break,
    name: str,
    changes: dict[str, tuple[str, str]],
    at: list[str],
    code: ExitCode,
) -> None:
    root = broken(changes)
    result = check("--model", root, "--only", name)
    assert result.exit_code == code
    first, *lines = result.output.splitlines()
    assert first == f"✗ {name}  {len(at)} mistakes"
    assert [line.split(": ")[0].strip() for line in lines] == [f"model/{place}" for place in at]

    told = json.loads(check("--model", root, "--only", name, "--json").output)
    assert not told["ok"]
    [validator] = told["validators"]
    assert (validator["name"], validator["exit_status"]) == (name, code)
    assert places(validator["mistakes"], root) == at
    with pytest.raises(ModelInvalid) as caught:
        read_platform(root)
    assert len(caught.value.mistakes) == len(at)


def test_when_several_find_something_the_status_is_that_of_the_first(broken: Break) -> None:
    root = broken({"owners/counters": ("mailto:", "me:"), **UNPLACEABLE})
    result = check("--model", root)
    assert result.exit_code == ExitCode.MODEL_INVALID
    assert "✗ model-lint  1 mistake\n" in result.output
    assert f"✗ topology-check  {len(UNPLACEABLE_AT)} mistakes\n" in result.output
    only = check("--model", root, "--only", "topology-check")
    assert only.exit_code == ExitCode.TOPOLOGY_INVALID


def test_a_validator_that_needs_a_sound_model_is_not_run_on_another(
    broken: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(platform: Platform) -> list[Mistake]:
        raise AssertionError(f"run on {platform}")

    picky = replace(VALIDATORS[1], name="picky", check=never, tolerant=False)
    root = broken(UNREADABLE)
    [finding] = run_validators(inspect_platform(root), [picky])
    assert finding.mistakes is None
    assert exit_code_of([finding]) == ExitCode.MODEL_INVALID
    monkeypatch.setattr(modelling, "VALIDATORS", (VALIDATORS[0], picky))
    assert "- picky  not run: the model has to be right first" in check("--model", root).output


def test_validators_have_names_and_statuses_of_their_own() -> None:
    assert len({validator.name for validator in VALIDATORS}) == len(VALIDATORS)
    assert len({validator.code for validator in VALIDATORS}) == len(VALIDATORS)
    shown = " ".join(check("--help").output.split())
    for validator in VALIDATORS:
        assert f"{validator.code.value} {validator.name}" in shown
    assert "the status is that of the first" in shown


def test_an_unknown_validator() -> None:
    assert check("--only", "topology-chek").exit_code == ExitCode.USAGE


def test_a_validator_of_ones_own_is_one_entry_in_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    mistake = Mistake(Position(Path("x.yaml"), 2, 3), "it is blue", "write red")
    own = validators.Validator("colours", "All is red.", ExitCode.REFUSED, lambda _: [mistake])
    monkeypatch.setattr(modelling, "VALIDATORS", (*VALIDATORS[:2], own))
    result = check()
    assert result.exit_code == ExitCode.REFUSED
    assert "✗ colours  1 mistake\n  x.yaml:2:3: it is blue; write red" in result.output


def test_the_model_is_shown_as_tables_and_as_json() -> None:
    shown = CliRunner().invoke(app, ["model", "show", "--model", str(GOOD)]).output
    assert "counter ×2, worker ×2, edge ×1" in shown  # noqa: RUF001 - times
    told = json.loads(
        CliRunner().invoke(app, ["model", "show", "--json", "--model", str(GOOD)]).output
    )
    assert [one["name"] for one in told["deployables"]] == ["all", "counter", "edge", "worker"]
    assert told["workflows"][0]["steps"][0]["retries"]["backoff_first_s"] == 0.5


def test_schemas_are_written_and_found_stale(broken: Break) -> None:
    root = broken({})

    def schema(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["model", "schema", *arguments, "--model", str(root)])

    assert schema().exit_code == ExitCode.USAGE
    assert schema("--check").exit_code == ExitCode.MODEL_INVALID
    assert "wrote schemas/service.json" in schema("--write").output
    assert schema("--check").exit_code == ExitCode.OK
    (root / "schemas" / "more.json").write_text("{}")
    assert schema("--check").exit_code == ExitCode.MODEL_INVALID
    assert schema("--write").exit_code == ExitCode.OK
    assert not (root / "schemas" / "more.json").exists()
