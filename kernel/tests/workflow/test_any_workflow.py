"""Whatever a workflow looks like, and whatever becomes of what it asks for: how it may end."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.testing.workflows import undone_in_reverse
from flotilla.workflow import events as e
from flotilla.workflow.asked import NotDone, Report, Start, Succeeded, Unknown, Wake
from flotilla.workflow.definition import Definition
from flotilla.workflow.events import WorkflowEvent
from flotilla.workflow.instance import decider
from flotilla.workflow.state import MOVING, Instance, Phase, Status, evolve, fold, wake
from kernel.tests.workflow.plays import does, workflow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS_MAX = 5_000
DONE = Succeeded({"order": "o-1"})
REFUSED = NotDone("no", "no", final=True)
ANSWERS: st.SearchStrategy[Any] = st.sampled_from([DONE, REFUSED])
OUTCOMES: st.SearchStrategy[Any] = st.sampled_from(
    [*[DONE] * 6, REFUSED, NotDone("conflict", "busy", final=False), Unknown("lost", "lost"), None]
)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """Draw a workflow without circles: each step depends on some of those before it."""
    steps: list[dict[str, Any]] = []
    for n in range(draw(st.integers(1, 7))):
        names = [step["name"] for step in steps]
        needs = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
        kind = draw(st.sampled_from(["undoable", "undoable", "lasting", "timer"]))
        if kind == "timer":
            steps.append({"name": f"s{n}", "timer_s": 3, "depends_on": needs})
        else:
            more = {} if kind == "undoable" else {"compensation": None}
            steps.append(does(f"s{n}", *needs, **more))
    return workflow(*steps)


def held(events: list[WorkflowEvent], now: datetime) -> None:
    """Check what is true at every moment."""
    s = fold(events, Instance())
    at = wake(s).at
    undone_in_reverse(events)
    if s.status in MOVING:
        assert at is not None, f"it moves, and nothing would ever wake it: {s}"
        assert now + timedelta(days=1) > at
    else:
        assert at is None, f"it has ended and would be woken: {s}"
    if s.status is Status.STUCK:
        assert s.reason
    if s.status is Status.COMPENSATED:
        assert () == s.effects
    if s.status is Status.COMPLETED:
        assert all(work.phase is Phase.DONE for work in s.steps.values())


@settings(max_examples=300, deadline=None)
@given(definition=definitions(), data=st.data())
def test_it_always_ends_completed_compensated_or_stuck_with_a_reason(
    definition: Definition, data: st.DataObject
) -> None:
    """None is a worker that died: nobody hears of its try. Answers come in any order, and twice."""
    decide = decider({definition.hash: definition}.__getitem__).decide
    now, events = NOW, list[WorkflowEvent]()
    news = list(decide(Start(definition, "o-1", {"order": "o-1"}, now), Instance()))
    asked: list[e.StepAttempted] = []
    heard: list[Report] = []
    may_be_stuck = False
    for _ in range(ROUNDS_MAX):
        events += news
        asked += [event for event in news if isinstance(event, e.StepAttempted)]
        held(events, now)
        s = fold(events, Instance())
        if s.status not in MOVING:
            assert may_be_stuck or s.status is not Status.STUCK, f"stuck without need: {s}"
            break
        if asked:
            tried = asked.pop(data.draw(st.integers(0, len(asked) - 1)))
            outcome: Any = data.draw(OUTCOMES)
            command: Any = Wake(now) if outcome is None else Report(tried, outcome, now)
            may_be_stuck |= not (outcome == DONE or (outcome == REFUSED and not tried.undo))
            heard += [command] if isinstance(command, Report) else []
        elif heard and data.draw(st.integers(0, 9)) == 0:
            command = data.draw(st.sampled_from(heard))
        else:
            at = wake(s).at
            assert at is not None
            now = max(now, at)
            command = Wake(now)
            assert decide(command, s), f"woken at its time, and nothing moves: {s}"
        news = list(decide(command, s))
    else:
        raise AssertionError(f"no end after {ROUNDS_MAX} rounds: {s}")


@settings(max_examples=50, deadline=None)
@given(definition=definitions(), data=st.data())
def test_deciding_again_what_was_decided_changes_nothing(
    definition: Definition, data: st.DataObject
) -> None:
    """A report or a start that is heard twice, at any later time."""
    decide = decider({definition.hash: definition}.__getitem__).decide
    start = Start(definition, "o-1", {"order": "o-1"}, NOW)
    state = Instance()
    said: list[Any] = [start]
    news = list(decide(start, state))
    while news:
        for event in news:
            state = evolve(state, event)
        for command in said:
            assert not decide(command, state), command
        open_now = [x for x in news if isinstance(x, e.StepAttempted)]
        work = {name for name, w in state.steps.items() if w.phase is Phase.ASKING}
        if open_now:
            tried = data.draw(st.sampled_from(open_now))
            said.append(Report(tried, data.draw(ANSWERS), NOW))
            news = list(decide(said[-1], state))
        elif work:
            news = []  # others' answers are still to come: enough was seen
        else:
            at = wake(state).at
            news = list(decide(Wake(at), state)) if at else []
