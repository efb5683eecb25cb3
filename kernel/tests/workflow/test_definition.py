"""Definitions are checked before anything runs: all mistakes at once, each with place and cure."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from flotilla.workflow.checking import Contract, check, mistakes
from flotilla.workflow.definition import Definition, DefinitionInvalid, definition_from
from flotilla.workflow.expressions import ReferenceMissing, evaluate
from kernel.tests.workflow.plays import (
    IN_A_ROW,
    OF_EVERYTHING,
    PAID,
    SIDE_BY_SIDE,
    call,
    does,
    workflow,
)


class OrderFields(BaseModel):
    order: str
    by: Annotated[str, Field(min_length=1)] = "x"


class Paid(BaseModel):
    order: str
    cents: int


NAMES = ("order", "reserve", "charge", "ship", "notify", "un-reserve", "un-charge", "un-ship")
SUBJECTS = {f"cmd.shop.{name}": OrderFields for name in NAMES}
CONTRACT = Contract(SUBJECTS, {"cmd.shop.reserve": Paid}, {"invoice.paid.v1": Paid})


def found(*steps: dict[str, Any], **more: Any) -> str:
    return "; ".join(mistakes(workflow(*steps, **more), CONTRACT))


@pytest.mark.parametrize("definition", [IN_A_ROW, SIDE_BY_SIDE, OF_EVERYTHING])
def test_a_sound_definition_has_no_mistakes(definition: Definition) -> None:
    check(definition, CONTRACT)


NO_SUCH_COMMAND = [does("reserve", call=call("resrve"))]
NO_SUCH_FIELD = [does("reserve", call=call("reserve", ordr="x"))]
NOT_ALLOWED = [does("reserve", call=call("reserve", order=7))]
NO_COMPENSATION = [{k: v for k, v in does("reserve").items() if k != "compensation"}]
CIRCLE = [does("reserve", "ship"), does("ship", "charge"), does("charge", "reserve")]
TOO_EARLY = [
    does("reserve"),
    does("ship", call=call("ship", order="${steps.reserve.result.order}")),
]
NO_RESULT = [
    does("reserve"),
    does("ship", "reserve", call=call("ship", order="${steps.reserve.result.cent}")),
]
NO_INPUT = [does("reserve", call=call("ship", order="${trigger.ordre}"))]
NO_REFERENCE = [does("reserve", call=call("ship", order="${order}"))]
UNTIED = [{"name": "paid", "wait_for": PAID | {"where": {"cents": 5}}}]
NO_SUCH_EVENT = [{"name": "paid", "wait_for": PAID | {"event": "invoice.payed.v1"}}]


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (
            NO_SUCH_COMMAND,
            "steps.reserve.call: there is no command 'cmd.shop.resrve': did you mean",
        ),
        (NO_SUCH_FIELD, "there is no field of cmd.shop.reserve 'ordr': did you mean 'order'?"),
        (NO_SUCH_FIELD, "steps.reserve.call.parameters: cmd.shop.reserve needs 'order'"),
        (NOT_ALLOWED, "steps.reserve.call.parameters.order: Input should be a valid string"),
        (
            NO_COMPENSATION,
            "steps.reserve.compensation is missing: say which command takes this back",
        ),
        (NO_COMPENSATION, "or write `compensation: null` if it leaves nothing behind"),
        (CIRCLE, "these wait for each other, so none ever begins: reserve, ship, charge"),
        ([does("reserve", "nobody")], "steps.reserve.depends_on: there is no step 'nobody'"),
        ([does("reserve"), does("reserve")], "steps.reserve is there twice"),
        (TOO_EARLY, "ship does not wait for reserve: name it in depends_on"),
        (NO_RESULT, "there is no field of Paid 'cent': did you mean 'cents'?"),
        (
            NO_INPUT,
            "${trigger.ordre}: there is no field of OrderFields 'ordre': did you mean 'order'?",
        ),
        (
            NO_REFERENCE,
            "${order} is not a reference: write ${trigger.field} or ${steps.name.result.",
        ),
        (UNTIED, "nothing says which field of invoice.paid.v1 is ${trigger.order}"),
        (NO_SUCH_EVENT, "there is no event 'invoice.payed.v1': did you mean 'invoice.paid.v1'?"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_its_cure(steps: list[Any], told: str) -> None:
    assert told in found(*steps)


def test_all_mistakes_are_told_at_once_and_under_one_code() -> None:
    wrong = workflow(does("a"), does("b", "nobody"))
    with pytest.raises(
        DefinitionInvalid, match=r"nobody.*cmd\.shop\.a.*cmd\.shop\.un-b"
    ) as refusal:
        check(wrong, CONTRACT)
    assert "workflow-invalid" == refusal.value.code


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"name": "Ordering"}, "name: String should match pattern"),
        ({"steps": []}, "steps: Tuple should have at least 1 item"),
        ({"stepz": []}, "stepz: Extra inputs are not permitted"),
        ({"trigger": {}}, "a trigger is one of command, event, schedule"),
        ({"steps": [{"name": "a"}]}, "a step is one of call, wait_for, timer_s, approval"),
        (
            {"steps": [{"name": "a", "timer_s": 1, "retries": {}}]},
            "retries and compensation belong to a call",
        ),
        (
            {"steps": [{"name": "a", "timer_s": -1}]},
            "steps.0.timer_s: Input should be greater than 0",
        ),
    ],
)
def test_a_document_of_another_shape_is_refused(document: dict[str, Any], told: str) -> None:
    sound: dict[str, Any] = {
        "name": "ordering",
        "version": 1,
        "trigger": {"event": "a.b.v1"},
        "idempotency_key": "k",
        "steps": [{"name": "a", "timer_s": 1}],
    }
    definition_from(sound)
    with pytest.raises(DefinitionInvalid) as refusal:
        definition_from(sound | document, where="ordering.yaml")
    assert str(refusal.value).startswith("ordering.yaml: ")
    assert told in str(refusal.value)


def test_the_same_content_has_the_same_hash_and_any_change_another() -> None:
    again = definition_from(IN_A_ROW.content())
    assert (IN_A_ROW.hash, IN_A_ROW.to_json()) == (again.hash, again.to_json())
    assert IN_A_ROW.hash != definition_from(IN_A_ROW.content() | {"version": 2}).hash


def test_that_nothing_has_to_be_undone_survives_being_stored() -> None:
    assert definition_from(SIDE_BY_SIDE.content()).by_name["notify"].says_how_it_is_undone


def test_a_text_that_is_one_reference_stands_for_the_value_itself() -> None:
    scope: Any = {"trigger": {"n": 5, "who": "ann", "list": [1]}}
    value: Any = {
        "a": "${trigger.n}",
        "b": ["to ${trigger.who}: ${trigger.n}"],
        "c": "${trigger.list}",
    }
    assert {"a": 5, "b": ["to ann: 5"], "c": [1]} == evaluate(value, scope)
    with pytest.raises(ReferenceMissing, match="trigger has no 'm', but n, who, list"):
        evaluate("${trigger.m}", scope)
