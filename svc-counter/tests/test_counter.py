"""What a counter promises, without a store in sight."""

from hypothesis import given
from hypothesis import strategies as st

from flotilla import Rejected
from flotilla.testing import Spec
from flotilla_contracts.counter import (
    CounterDecremented,
    CounterIncremented,
    CounterOpened,
    CounterReset,
    DecrementCounter,
    IncrementCounter,
    ResetCounter,
)
from svc_counter.domain.counter import (
    Bounds,
    Command,
    Counter,
    LowerBoundPassed,
    UpperBoundPassed,
    decider,
    evolve,
)

BOUNDS = Bounds(lower=-5, upper=10)
DECIDER = decider(BOUNDS)

counter = Spec(DECIDER)
opened = CounterOpened(counter_id="c")
reset = ResetCounter(counter_id="c")


def up(by: int) -> IncrementCounter:
    return IncrementCounter(counter_id="c", by=by)


def down(by: int) -> DecrementCounter:
    return DecrementCounter(counter_id="c", by=by)


def went_up(by: int, *, to: int) -> CounterIncremented:
    return CounterIncremented(counter_id="c", by=by, value=to)


def went_down(by: int, *, to: int) -> CounterDecremented:
    return CounterDecremented(counter_id="c", by=by, value=to)


def test_the_first_use_opens_it_whatever_it_is() -> None:
    counter.given().when(up(3)).then(opened, went_up(3, to=3))
    counter.given().when(down(3)).then(opened, went_down(3, to=-3))
    counter.given().when(reset).then(opened)


def test_it_counts_up_and_down() -> None:
    counter.given(opened, went_up(3, to=3)).when(up(4)).then(went_up(4, to=7))
    counter.given(opened, went_up(3, to=3)).when(down(4)).then(went_down(4, to=-1))


def test_a_reset_goes_back_to_zero_and_says_from_where() -> None:
    counter.given(opened, went_up(3, to=3)).when(reset).then(
        CounterReset(counter_id="c", previous_value=3)
    )


def test_resetting_zero_changes_nothing() -> None:
    counter.given(opened).when(reset).then()
    counter.given(opened, went_up(3, to=3), went_down(3, to=0)).when(reset).then()


def test_it_reaches_its_bounds_but_never_passes_them() -> None:
    counter.given(opened).when(up(10)).then(went_up(10, to=10))
    counter.given(opened).when(up(11)).then_rejected(UpperBoundPassed)
    counter.given(opened).when(down(5)).then(went_down(5, to=-5))
    counter.given(opened).when(down(6)).then_rejected(LowerBoundPassed)


def test_a_refused_first_use_does_not_open_it() -> None:
    counter.given().when(up(11)).then_rejected(UpperBoundPassed)


def test_what_is_stored_is_accepted_even_beyond_todays_bounds() -> None:
    counter.given(opened, went_up(999, to=999)).then_state(lambda state: state.value == 999)
    counter.given(opened, went_up(999, to=999)).when(down(1)).then(went_down(1, to=998))


commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(up, st.integers(1, 12)),
    st.builds(down, st.integers(1, 12)),
    st.just(reset),
)


@given(st.lists(commands, max_size=60))
def test_any_script_keeps_the_bounds_and_the_sum(script: list[Command]) -> None:
    state: Counter = DECIDER.initial
    total = 0
    for command in script:
        before = state
        try:
            events = DECIDER.decide(command, state)
        except Rejected:
            assert state == before
            continue
        state = DECIDER.fold(events, state)
        match command:
            case IncrementCounter(by=by):
                total += by
            case DecrementCounter(by=by):
                total -= by
            case ResetCounter():
                total = 0

        assert state == Counter(is_open=True, value=total)
        assert BOUNDS.lower <= state.value <= BOUNDS.upper
        assert [] == list(DECIDER.decide(reset, state)) or state.value != 0


@given(st.lists(commands, max_size=60))
def test_the_state_is_the_fold_of_the_events(script: list[Command]) -> None:
    state, history = DECIDER.initial, []
    for command in script:
        try:
            events = DECIDER.decide(command, state)
        except Rejected:
            continue
        for event in events:
            state = evolve(state, event)
            history.append(event)

    assert state == DECIDER.fold(history)
    assert sum(isinstance(event, CounterOpened) for event in history) <= 1
