"""The kit for any workflow, on three of them: the pump, the rules and the store in memory."""

import pytest

from flotilla.testing.workflows import Play, Telling, WorkflowContract, perform
from flotilla.workflow.asked import Answer, Arrive
from flotilla.workflow.expressions import Json
from flotilla.workflow.state import Status
from kernel.tests.workflow.plays import IN_A_ROW, OF_EVERYTHING, SIDE_BY_SIDE

ORDER: Json = {"order": "o-1"}


def said_yes(at_s: float) -> Telling:
    return at_s, lambda now: Answer("agreed", approved=True, by="ann", now=now)


def was_paid(at_s: float) -> Telling:
    return at_s, lambda now: Arrive("invoice.paid.v1", "acme/invoice/i-1@1", ORDER, now)


class TestStepsInARow(WorkflowContract):
    @pytest.fixture
    def play(self) -> Play:
        return Play(IN_A_ROW, ORDER)


class TestStepsSideBySide(WorkflowContract):
    @pytest.fixture
    def play(self) -> Play:
        return Play(SIDE_BY_SIDE, ORDER)


class TestEveryKindOfStep(WorkflowContract):
    @pytest.fixture
    def play(self) -> Play:
        return Play(OF_EVERYTHING, ORDER, tellings=[said_yes(60), was_paid(10)])


def test_nobody_answers_in_time_and_everything_is_taken_back() -> None:
    ending = perform(Play(OF_EVERYTHING, ORDER))

    assert (Status.COMPENSATED, {}) == (ending.status, ending.standing)
