"""The rules of an instance: given what happened, when something is told, then this follows."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flotilla.errors import Rejected
from flotilla.testing import Spec
from flotilla.workflow import events as e
from flotilla.workflow.asked import (
    Answer,
    Arrive,
    Cancel,
    Command,
    Compensate,
    ForkFrom,
    NotDone,
    NotNow,
    OutcomeUnknown,
    Report,
    Resume,
    Start,
    StartedDifferently,
    StepUnknown,
    Succeeded,
    Unknown,
    UnknownInstance,
    Wake,
)
from flotilla.workflow.definition import Definition
from flotilla.workflow.events import WorkflowEvent
from flotilla.workflow.instance import decider
from flotilla.workflow.moving import MARGIN_S, TRY_TIMEOUT_S
from flotilla.workflow.state import Instance, Status, fold, wake
from kernel.tests.workflow.plays import (
    IN_A_ROW,
    OF_EVERYTHING,
    PAID,
    SIDE_BY_SIDE,
    call,
    does,
    workflow,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A_TRY = timedelta(seconds=TRY_TIMEOUT_S + MARGIN_S)
A_MINUTE = timedelta(seconds=60)
ORDER: dict[str, Any] = {"order": "o-1"}
NO = NotDone("sold-out", "sold out", final=True)
BUSY = NotDone("conflict", "somebody was first", final=False)
UNHEARD = Unknown("unavailable", "no reply")
PAID_EVENT = Arrive("invoice.paid.v1", "acme/invoice/i@1", ORDER, NOW)


def rules(*definitions: Definition) -> Spec[Command, Instance, WorkflowEvent]:
    known = {d.hash: d for d in definitions}
    return Spec(decider(lambda content: known[content]))


def started(definition: Definition) -> e.WorkflowStarted:
    about = (definition.name, definition.version, definition.hash)
    name, version, content = about
    return e.WorkflowStarted(
        name=name, version=version, definition=content, key="o-1", input=ORDER, at=NOW
    )


def attempted(
    step: str, *, undo: bool = False, attempt: int = 1, tries: int = 1, at: datetime = NOW
) -> e.StepAttempted:
    deadline = None if undo else NOW + A_MINUTE
    return e.StepAttempted(
        step=step, undo=undo, attempt=attempt, tries=tries, until=at + A_TRY, deadline=deadline
    )


def succeeded(step: str, *, attempt: int = 1, undoable: bool = True) -> e.StepSucceeded:
    return e.StepSucceeded(step=step, attempt=attempt, result=ORDER, undoable=undoable)


def done(*steps: str) -> list[WorkflowEvent]:
    return [event for step in steps for event in (attempted(step), succeeded(step))]


def follow(
    definition: Definition, history: Sequence[WorkflowEvent], *commands: Command
) -> list[Any]:
    """Tell it one thing after the other; return everything that happened."""
    decide = decider({definition.hash: definition}.__getitem__).decide
    events = list(history)
    for command in commands:
        events += decide(command, fold(events, Instance()))
    return events


def status(events: Sequence[WorkflowEvent]) -> Status:
    return fold(events, Instance()).status


# Going on.


def test_it_starts_and_asks_for_what_can_begin() -> None:
    when = rules(IN_A_ROW).when(Start(IN_A_ROW, "o-1", ORDER, NOW))
    when.then(started(IN_A_ROW), attempted("reserve"))


def test_a_trigger_that_comes_twice_starts_one() -> None:
    given = rules(IN_A_ROW).given(started(IN_A_ROW), attempted("reserve"))
    given.when(Start(IN_A_ROW, "o-1", ORDER, NOW)).then()


def test_the_same_key_with_another_input_is_refused() -> None:
    given = rules(IN_A_ROW).given(started(IN_A_ROW))
    given.when(Start(IN_A_ROW, "o-1", {"order": "o-2"}, NOW)).then_rejected(StartedDifferently)


def test_a_step_that_is_done_lets_those_begin_that_depend_on_it() -> None:
    given = rules(SIDE_BY_SIDE).given(started(SIDE_BY_SIDE), attempted("reserve"))
    when = given.when(Report(attempted("reserve"), Succeeded(ORDER), NOW))
    when.then(succeeded("reserve"), attempted("charge"), attempted("notify"))


def test_a_step_that_depends_on_two_waits_for_both() -> None:
    given = rules(SIDE_BY_SIDE).given(
        started(SIDE_BY_SIDE), *done("reserve"), attempted("charge"), attempted("notify")
    )
    when = given.when(Report(attempted("charge"), Succeeded(ORDER), NOW))
    when.then(succeeded("charge"))


def test_it_is_completed_when_every_step_is_done() -> None:
    given = rules(IN_A_ROW).given(started(IN_A_ROW), *done("reserve", "charge"), attempted("ship"))
    when = given.when(Report(attempted("ship"), Succeeded(ORDER), NOW))
    when.then(succeeded("ship"), e.WorkflowCompleted())


def test_an_answer_that_comes_twice_changes_nothing() -> None:
    given = rules(IN_A_ROW).given(started(IN_A_ROW), *done("reserve"), attempted("charge"))
    given.when(Report(attempted("reserve"), Succeeded(ORDER), NOW)).then()


def test_a_running_instance_finishes_on_its_own_version() -> None:
    newer = workflow(does("reserve"), version=2)
    given = rules(IN_A_ROW, newer).given(started(IN_A_ROW), attempted("reserve"))
    when = given.when(Report(attempted("reserve"), Succeeded(ORDER), NOW))
    when.then(succeeded("reserve"), attempted("charge"))


# Time, and workers that die.


def test_a_try_that_nobody_was_heard_of_is_asked_for_again_under_the_same_attempt() -> None:
    given = rules(IN_A_ROW).given(started(IN_A_ROW), attempted("reserve"))
    later = NOW + A_TRY
    given.when(Wake(later)).then(attempted("reserve", tries=2, at=later))


def test_waking_it_too_early_changes_nothing() -> None:
    given = rules(IN_A_ROW).given(started(IN_A_ROW), attempted("reserve"))
    given.when(Wake(NOW + A_TRY - timedelta(microseconds=1))).then()


def test_a_lost_reply_is_asked_for_again_after_a_pause() -> None:
    events = follow(
        IN_A_ROW,
        [started(IN_A_ROW), attempted("reserve")],
        Report(attempted("reserve"), UNHEARD, NOW),
    )
    pause = events[-1]
    assert isinstance(pause, e.StepRetryScheduled)
    assert NOW + timedelta(seconds=0.5) <= pause.until <= NOW + timedelta(seconds=1)
    assert pause.until == wake(fold(events, Instance())).at
    assert follow(IN_A_ROW, events, Wake(pause.until))[-1] == attempted(
        "reserve", tries=2, at=pause.until
    )


def spend(outcome: NotDone | Unknown) -> list[Any]:
    """Let every try of the first step end like this."""
    events: list[Any] = [started(IN_A_ROW), attempted("reserve")]
    while isinstance(events[-1], e.StepAttempted):
        events = follow(IN_A_ROW, events, Report(events[-1], outcome, NOW))
        if isinstance(events[-1], e.StepRetryScheduled):
            events = follow(IN_A_ROW, events, Wake(events[-1].until))
    return events


def test_when_tries_are_spent_and_nobody_knows_whether_it_was_done_it_is_stuck() -> None:
    events = spend(UNHEARD)

    assert Status.STUCK == status(events)
    assert "outcome-unknown" == events[-1].code
    assert 5 == sum(isinstance(event, e.StepAttempted) for event in events)
    assert wake(fold(events, Instance())).at is None


def test_when_tries_are_spent_and_it_was_never_done_it_goes_back() -> None:
    events = spend(BUSY)

    assert ["CompensationBegun", "WorkflowCompensated"] == [type(x).__name__ for x in events[-2:]]


def test_one_unheard_try_among_others_is_enough_not_to_know() -> None:
    events = follow(
        IN_A_ROW,
        [started(IN_A_ROW), attempted("reserve")],
        Report(attempted("reserve"), UNHEARD, NOW),
    )
    events = follow(IN_A_ROW, events, Wake(events[-1].until))
    while status(events) is Status.RUNNING:
        events = follow(IN_A_ROW, events, Report(events[-1], BUSY, NOW))
        if isinstance(events[-1], e.StepRetryScheduled):
            events = follow(IN_A_ROW, events, Wake(events[-1].until))

    assert Status.STUCK == status(events)


def test_a_refusal_of_an_earlier_try_is_not_believed_while_a_later_one_is_under_way() -> None:
    given = rules(IN_A_ROW).given(
        started(IN_A_ROW), attempted("reserve"), attempted("reserve", tries=2)
    )
    given.when(Report(attempted("reserve"), NO, NOW)).then()


def test_a_success_of_an_earlier_try_is_believed() -> None:
    given = rules(IN_A_ROW).given(
        started(IN_A_ROW), attempted("reserve"), attempted("reserve", tries=2)
    )
    when = given.when(Report(attempted("reserve"), Succeeded(ORDER), NOW))
    when.then(succeeded("reserve"), attempted("charge"))


def test_a_worker_that_dies_each_time_gets_somebody_to_look_at_it() -> None:
    events: list[Any] = [started(IN_A_ROW), attempted("reserve")]
    for _ in range(100):
        events = follow(
            IN_A_ROW, events, Wake(events[-1].until if status(events) is Status.RUNNING else NOW)
        )

    assert Status.STUCK == status(events)


# Going back.


def test_a_refusal_takes_back_what_was_done_the_last_first() -> None:
    events = follow(
        IN_A_ROW,
        [started(IN_A_ROW), *done("reserve", "charge"), attempted("ship")],
        Report(attempted("ship"), NO, NOW),
        Report(attempted("charge", undo=True), Succeeded(None), NOW),
        Report(attempted("reserve", undo=True), Succeeded(None), NOW),
    )
    assert events[6:] == [
        e.StepFailed(step="ship", code="sold-out", message="sold out"),
        e.CompensationBegun(reason="ship: sold out"),
        attempted("charge", undo=True),
        e.StepCompensated(step="charge", attempt=1),
        attempted("reserve", undo=True),
        e.StepCompensated(step="reserve", attempt=1),
        e.WorkflowCompensated(reason="ship: sold out"),
    ]


def test_what_is_still_being_asked_for_is_waited_for_before_anything_is_taken_back() -> None:
    given = [started(SIDE_BY_SIDE), *done("reserve"), attempted("charge"), attempted("notify")]
    events = follow(SIDE_BY_SIDE, given, Report(attempted("notify"), NO, NOW))
    assert e.CompensationBegun(reason="notify: sold out") == events[-1]

    events = follow(SIDE_BY_SIDE, events, Report(attempted("charge"), Succeeded(ORDER), NOW))

    assert [succeeded("charge"), attempted("charge", undo=True)] == events[-2:]


def test_what_cannot_be_taken_back_is_for_a_human() -> None:
    given = [started(IN_A_ROW), *done("reserve"), attempted("charge")]
    undo = attempted("reserve", undo=True)
    events = follow(IN_A_ROW, given, Report(attempted("charge"), NO, NOW), Report(undo, NO, NOW))
    assert Status.STUCK == status(events)

    resumed = follow(IN_A_ROW, events, Resume("ann", NOW))
    by_hand = follow(IN_A_ROW, events, Compensate("ann", "by hand", NOW, unknown="done"))

    assert attempted("reserve", undo=True, attempt=2) == resumed[-1]
    assert Status.COMPENSATED == status(by_hand)


def test_a_reference_to_nothing_fails_before_anything_is_asked_for() -> None:
    lost = does("ship", "reserve", call=call("ship", order="${steps.reserve.result.nothing}"))
    definition = workflow(does("reserve"), lost)
    events = follow(
        definition,
        [started(definition), attempted("reserve")],
        Report(attempted("reserve"), Succeeded(ORDER), NOW),
    )
    assert "reference-missing" == events[3].code
    assert attempted("reserve", undo=True) == events[-1]


# Waiting.


def test_a_timer_fires_when_its_time_has_come() -> None:
    definition = workflow({"name": "think", "timer_s": 30})
    end = NOW + timedelta(seconds=30)
    given = rules(definition).given(started(definition), e.TimerSet(step="think", until=end))

    given.when(Wake(end)).then(e.TimerFired(step="think"), e.WorkflowCompleted())


WAITING = workflow(does("reserve"), {"name": "paid", "wait_for": PAID, "depends_on": ["reserve"]})
ARRIVED = e.EventArrived(step="paid", event_id="acme/invoice/i@1", data=ORDER)
AWAITED = e.EventAwaited(step="paid", event="invoice.paid.v1")


def test_an_event_that_is_waited_for_lets_it_go_on() -> None:
    given = rules(WAITING).given(started(WAITING), *done("reserve"), AWAITED)
    given.when(PAID_EVENT).then(ARRIVED, e.WorkflowCompleted())


def test_an_event_that_comes_before_its_step_is_kept_for_it() -> None:
    events = follow(
        WAITING,
        [started(WAITING), attempted("reserve")],
        PAID_EVENT,
        PAID_EVENT,
        Report(attempted("reserve"), Succeeded(ORDER), NOW),
    )
    assert [ARRIVED, succeeded("reserve"), AWAITED, ARRIVED, e.WorkflowCompleted()] == events[2:]


def test_an_event_that_is_about_something_else_is_not_the_one() -> None:
    given = rules(WAITING).given(started(WAITING), *done("reserve"), AWAITED)
    given.when(Arrive("invoice.paid.v1", "x@1", {"order": "o-9"}, NOW)).then()


def test_an_event_for_an_instance_that_is_not_there_changes_nothing() -> None:
    rules(WAITING).when(PAID_EVENT).then()


def test_nobody_answers_in_time() -> None:
    given = [started(OF_EVERYTHING), *done("reserve"), e.TimerSet(step="think", until=NOW)]
    events = follow(OF_EVERYTHING, given, Wake(NOW))
    asked = events[-1]
    assert isinstance(asked, e.ApprovalAsked)

    events = follow(OF_EVERYTHING, events, Wake(NOW + timedelta(seconds=600)))

    assert ["StepFailed", "CompensationBegun", "StepAttempted"] == [
        type(event).__name__ for event in events[-3:]
    ]


def test_who_says_yes_is_known_to_later_steps_and_who_says_no_turns_it_back() -> None:
    given = rules(OF_EVERYTHING).given(
        started(OF_EVERYTHING), e.ApprovalAsked(step="agreed", by="sales")
    )
    yes = Answer("agreed", approved=True, by="ann", now=NOW)

    given.when(yes).then_state(lambda s: s.scope["steps"]["agreed"]["result"] == {"by": "ann"})  # type: ignore[index, call-overload]
    given.when(Answer("agreed", approved=False, by="ann", now=NOW, reason="too dear")).then_state(
        lambda s: s.reason == "agreed: refused by ann: too dear"
    )
    given.when(Answer("reserve", approved=True, by="ann", now=NOW)).then_rejected(StepUnknown)


# What operators do.


def test_cancelling_stops_it_where_it_is_and_takes_nothing_back() -> None:
    given = [started(IN_A_ROW), *done("reserve"), attempted("charge")]
    events = follow(IN_A_ROW, given, Cancel("ann", "a mistake", NOW))
    assert wake(fold(events, Instance())).at is None

    events = follow(IN_A_ROW, events, Report(attempted("charge"), Succeeded(ORDER), NOW))
    assert succeeded("charge") == events[-1], (
        "what comes in late is remembered, and leads to nothing"
    )

    assert attempted("ship") == follow(IN_A_ROW, events, Resume("ann", NOW))[-1]
    undone = follow(IN_A_ROW, events, Compensate("ann", "a mistake", NOW))
    assert attempted("charge", undo=True) == undone[-1]


def test_what_is_stuck_can_be_asked_again_under_the_same_attempt() -> None:
    events = follow(IN_A_ROW, spend(UNHEARD), Resume("ann", NOW))
    assert [e.WorkflowResumed(by="ann"), attempted("reserve")] == events[-2:]

    events = follow(IN_A_ROW, events, Report(events[-1], Succeeded(ORDER), NOW))
    assert attempted("charge") == events[-1]


def test_compensating_what_is_stuck_needs_a_word_about_what_nobody_knows() -> None:
    stuck = spend(UNHEARD)
    rules(IN_A_ROW).given(*stuck).when(Compensate("ann", "x", NOW)).then_rejected(OutcomeUnknown)

    not_done = follow(IN_A_ROW, stuck, Compensate("ann", "x", NOW, unknown="not-done"))
    was_done = follow(IN_A_ROW, stuck, Compensate("ann", "x", NOW, unknown="done"))

    assert Status.COMPENSATED == status(not_done)
    assert attempted("reserve", undo=True) == was_done[-1]


COMPLETED = [
    started(IN_A_ROW),
    *done("reserve", "charge", "ship"),
    e.WorkflowCompleted(),
]


def test_forking_does_a_step_and_what_follows_from_it_anew() -> None:
    when = rules(IN_A_ROW).given(*COMPLETED).when(ForkFrom("charge", IN_A_ROW, "ann", NOW))
    forked = e.WorkflowForked(
        step="charge",
        name="ordering",
        version=1,
        definition=IN_A_ROW.hash,
        dropped=("charge", "ship"),
        by="ann",
    )
    when.then(forked, attempted("charge", attempt=2))


def test_forking_may_take_a_newer_version_along() -> None:
    newer = workflow(
        does("reserve"),
        does("charge", "reserve"),
        does("ship", "charge"),
        does("thank", "ship"),
        version=2,
    )
    when = rules(IN_A_ROW, newer).given(*COMPLETED).when(ForkFrom("thank", newer, "ann", NOW))
    when.then_state(lambda s: s.definition == newer.hash and s.steps["thank"].tries == 1)


def test_a_fork_that_fails_takes_back_what_was_done_before_it_too() -> None:
    forked = follow(IN_A_ROW, COMPLETED, ForkFrom("ship", IN_A_ROW, "ann", NOW))
    events = follow(IN_A_ROW, forked, Report(forked[-1], NO, NOW))
    while events[-1] != e.WorkflowCompensated(reason="ship: sold out"):
        events = follow(IN_A_ROW, events, Report(events[-1], Succeeded(None), NOW))

    undone = [event.step for event in events if isinstance(event, e.StepCompensated)]
    assert ["ship", "charge", "reserve"] == undone


@pytest.mark.parametrize(
    ("history", "command", "refusal"),
    [
        ([], Cancel("ann", "", NOW), UnknownInstance),
        (COMPLETED, Cancel("ann", "", NOW), NotNow),
        (COMPLETED, Resume("ann", NOW), NotNow),
        ([started(IN_A_ROW)], ForkFrom("reserve", IN_A_ROW, "ann", NOW), NotNow),
        (COMPLETED, ForkFrom("nowhere", IN_A_ROW, "ann", NOW), StepUnknown),
        (spend(BUSY), ForkFrom("charge", IN_A_ROW, "ann", NOW), NotNow),
        (spend(UNHEARD), ForkFrom("reserve", IN_A_ROW, "ann", NOW), OutcomeUnknown),
        (COMPLETED, ForkFrom("one", workflow(does("one")), "ann", NOW), NotNow),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(
    history: list[WorkflowEvent], command: Command, refusal: type[Rejected]
) -> None:
    rules(IN_A_ROW).given(*history).when(command).then_rejected(refusal)
