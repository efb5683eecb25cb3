"""A snapshot is what the events fold to: whatever was told, and wherever it is taken."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.errors import Rejected
from flotilla.workflow.asked import (
    Answer,
    Arrive,
    Cancel,
    Command,
    Compensate,
    ForkFrom,
    NotDone,
    Report,
    Resume,
    Start,
    Succeeded,
    Unknown,
    Wake,
)
from flotilla.workflow.events import StepAttempted
from flotilla.workflow.expressions import Json
from flotilla.workflow.instance import decide
from flotilla.workflow.snapshots import InstanceSnapshots
from flotilla.workflow.state import Instance, fold
from kernel.tests.workflow.plays import OF_EVERYTHING, SIDE_BY_SIDE

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
CODEC = InstanceSnapshots()
texts = st.text(max_size=5)
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
results: st.SearchStrategy[Json] = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
outcomes = st.one_of(
    results.map(Succeeded),
    st.builds(NotDone, st.just("no"), texts, st.booleans()),
    st.builds(Unknown, st.just("unheard"), texts),
)


@st.composite
def moves(draw: st.DrawFn) -> list[tuple[int, str, object]]:
    kinds = ("wake", "report", "arrive", "answer", "cancel", "resume", "compensate", "fork")
    what = st.tuples(st.integers(1, 400), st.sampled_from(kinds), outcomes)
    return draw(st.lists(what, max_size=20))


@settings(max_examples=60)
@given(moves(), st.sampled_from((OF_EVERYTHING, SIDE_BY_SIDE)), results)
def test_a_snapshot_is_the_fold_of_what_came_before(
    script: list[tuple[int, str, object]], definition: object, more: Json
) -> None:
    assert isinstance(definition, type(OF_EVERYTHING))
    now, state, asked = BEGINNING, Instance(), list[StepAttempted]()
    begin = Start(definition, "k", {"order": "o", "more": more}, now)
    told: list[Command] = [begin]
    for number, (after_s, kind, outcome) in enumerate([(0, "", None), *script]):
        now += timedelta(seconds=after_s)
        command = told[0] if number == 0 else _command(kind, outcome, now, asked)
        if command is None:
            continue
        try:
            events = decide(lambda _: definition, command, state)
        except Rejected:
            continue
        asked += [event for event in events if isinstance(event, StepAttempted)]
        state = fold(events, state)
        again = CODEC.load(CODEC.dump(state))
        assert state == again, f"after {command}"
        assert CODEC.dump(state) == CODEC.dump(again)
    assert state.key == "k"


def _command(  # noqa: PLR0911 - a case a kind
    kind: str, outcome: object, now: datetime, asked: list[StepAttempted]
) -> Command | None:
    match kind:
        case "wake":
            return Wake(now)
        case "report" if asked and isinstance(outcome, Succeeded | NotDone | Unknown):
            return Report(asked[-1], outcome, now)
        case "arrive":
            return Arrive("invoice.paid.v1", f"acme/invoice/1@{now}", {"order": "o"}, now)
        case "answer":
            return Answer("agreed", isinstance(outcome, Succeeded), "ann", now)
        case "cancel":
            return Cancel("ann", "", now)
        case "resume":
            return Resume("ann", now)
        case "compensate":
            return Compensate("ann", "", now, "done")
        case "fork":
            return ForkFrom("ship", OF_EVERYTHING, "ann", now)
    return None
