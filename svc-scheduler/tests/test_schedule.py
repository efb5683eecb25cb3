"""What a schedule promises, without a store in sight."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla import Rejected, StreamId
from flotilla.testing import Spec
from flotilla_contracts.scheduler import (
    ChangeSchedule,
    CreateSchedule,
    Declared,
    DeleteSchedule,
    FireSchedule,
    PauseSchedule,
    ResumeSchedule,
    ScheduleChanged,
    ScheduleCreated,
    ScheduleDeleted,
    ScheduleFired,
    ScheduleMissed,
    SchedulePaused,
    ScheduleResumed,
    Terms,
)
from svc_scheduler.domain.occurrences import NeverFires, occurrences
from svc_scheduler.domain.schedule import (
    Asked,
    CatchingUp,
    Command,
    Event,
    InThePast,
    NoSchedule,
    Schedule,
    ScheduleExists,
    Undeclare,
    Wake,
    decider,
)
from svc_scheduler.domain.settling import FIRES_MAX, LOOK_MAX

DECIDER = decider()
STREAM = StreamId("acme/schedule/s")
NOON = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)
schedule = Spec(DECIDER)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def asked(command: Command, seconds: float = 0) -> Asked:
    return Asked(STREAM, at(seconds), command)


def awoken(seconds: float) -> Asked:
    return asked(Wake(), seconds)


def create(**terms: Any) -> CreateSchedule:
    return CreateSchedule(schedule_id="s", **terms)


def created(first: float, **terms: Any) -> ScheduleCreated:
    return ScheduleCreated(schedule_id="s", next=at(first), **terms)


def fired(
    occurrence: float, next_s: float | None, *, late: float = 0, missed: int = 0, **more: Any
) -> ScheduleFired:
    return ScheduleFired(
        schedule_id="s",
        occurrence=at(occurrence),
        late_by_s=late,
        missed=missed,
        payload=more.pop("payload", {}),
        next=None if next_s is None else at(next_s),
        **more,
    )


def missed(count: int, first: float, last: float, next_s: float | None) -> ScheduleMissed:
    return ScheduleMissed(
        schedule_id="s",
        count=count,
        first=at(first),
        last=at(last),
        next=None if next_s is None else at(next_s),
    )


paused = SchedulePaused(schedule_id="s")
EACH_10 = created(10, every_s=10)


# Creating, changing, deleting.


def test_it_is_created_once_and_knows_its_first_occurrence() -> None:
    schedule.given().when(asked(create(every_s=10))).then(EACH_10)
    schedule.given(EACH_10).when(asked(create(every_s=10), 3)).then()
    schedule.given(EACH_10).when(asked(create(every_s=11), 3)).then_rejected(ScheduleExists)


def test_one_that_cannot_fire_is_refused_and_nothing_is_there() -> None:
    schedule.given().when(asked(create(at=at(0)))).then_rejected(InThePast)
    schedule.given().when(asked(create(at=at(-5)))).then_rejected(InThePast)
    schedule.given().when(asked(create(cron="0 0 31 2 *"))).then_rejected(NeverFires)


def test_what_is_not_there_cannot_be_told_anything() -> None:
    for command in (
        PauseSchedule(schedule_id="s"),
        ResumeSchedule(schedule_id="s"),
        DeleteSchedule(schedule_id="s"),
        FireSchedule(schedule_id="s"),
        ChangeSchedule(schedule_id="s", every_s=1),
    ):
        schedule.given().when(asked(command)).then_rejected(NoSchedule)
    schedule.given().when(awoken(0)).then()
    schedule.given(EACH_10, ScheduleDeleted(schedule_id="s")).when(awoken(60)).then()


def test_after_it_was_deleted_its_name_is_free() -> None:
    deleted = ScheduleDeleted(schedule_id="s")
    schedule.given(EACH_10).when(asked(DeleteSchedule(schedule_id="s"))).then(deleted)
    schedule.given(EACH_10, deleted).when(asked(create(every_s=5), 7)).then(created(12, every_s=5))


def test_a_change_settles_by_the_old_terms_what_was_due() -> None:
    command = ChangeSchedule(schedule_id="s", every_s=60)
    changed = ScheduleChanged(schedule_id="s", next=at(72), every_s=60)
    schedule.given(EACH_10).when(asked(command, 12)).then(fired(10, 20, late=2), changed)
    schedule.given(EACH_10, changed).when(asked(command, 13)).then()


# Firing.


def test_it_fires_when_its_moment_has_come_and_not_before() -> None:
    schedule.given(EACH_10).when(awoken(9.999)).then()
    schedule.given(EACH_10).when(awoken(10)).then(fired(10, 20))
    schedule.given(EACH_10, fired(10, 20)).when(awoken(10)).then()


def test_a_timer_fires_once_and_is_done() -> None:
    timer = created(30, at=at(30), payload={"order": "o-1"})
    once = fired(30, None, late=1, payload={"order": "o-1"})
    schedule.given(timer).when(awoken(31)).then(once)
    schedule.given(timer, once).then_state(lambda state: state.status == "done")
    schedule.given(timer, once).when(awoken(99)).then()


def test_a_timer_fires_however_late() -> None:
    timer = created(30, at=at(30))
    schedule.given(timer).when(awoken(1_000_000)).then(fired(30, None, late=999_970))


def test_jitter_is_later_by_the_same_and_is_not_lateness() -> None:
    [event] = DECIDER.decide(asked(create(every_s=10, jitter_max_s=30)), Schedule())
    assert isinstance(event, ScheduleCreated)
    assert 0 < event.jitter_s < 30
    schedule.given(event).when(awoken(10 + event.jitter_s - 0.01)).then()
    schedule.given(event).when(awoken(10 + event.jitter_s)).then(fired(10, 20))
    elsewhere = Asked(StreamId("other/schedule/s"), NOON, create(every_s=10, jitter_max_s=30))
    [other] = DECIDER.decide(elsewhere, Schedule())
    assert isinstance(other, ScheduleCreated)
    assert event.jitter_s != other.jitter_s


def test_fired_by_hand_its_plan_stays() -> None:
    fire = FireSchedule(schedule_id="s")
    schedule.given(EACH_10).when(asked(fire, 3)).then(fired(3, 10, manual=True))
    schedule.given(EACH_10, fired(3, 10, manual=True)).when(awoken(10)).then(fired(10, 20))
    schedule.given(EACH_10, paused).when(asked(fire, 3)).then(fired(3, 10, manual=True))


# What was missed.


def late_terms(policy: str, **more: Any) -> ScheduleCreated:
    return created(10, every_s=10, missed=policy, grace_s=15, **more)


def test_what_is_within_the_grace_time_fires_each() -> None:
    for policy in ("skip", "once", "all"):
        schedule.given(late_terms(policy)).when(awoken(25)).then(
            fired(10, 20, late=15), fired(20, 30, late=5)
        )


def test_skipping_says_what_was_missed_and_the_next_one_counts_it() -> None:
    terms = late_terms("skip")
    schedule.given(terms).when(awoken(58)).then(
        missed(4, 10, 40, 50), fired(50, 60, late=8, missed=4)
    )
    alone = created(10, every_s=100, missed="skip", grace_s=15)
    schedule.given(alone).when(awoken(60)).then(missed(1, 10, 10, 110))
    schedule.given(alone, missed(1, 10, 10, 110)).when(awoken(110)).then(fired(110, 210, missed=1))


def test_once_fires_the_last_unless_one_on_time_follows() -> None:
    terms = created(10, every_s=100, grace_s=15)
    schedule.given(terms).when(awoken(350)).then(
        missed(3, 10, 210, 310), fired(310, 410, late=40, missed=3)
    )
    schedule.given(terms).when(awoken(320)).then(
        missed(3, 10, 210, 310), fired(310, 410, late=10, missed=3)
    )


def test_all_fires_each_up_to_its_limit() -> None:
    terms = created(10, every_s=100, grace_s=15, missed="all", missed_max=2)
    schedule.given(terms).when(awoken(350)).then(
        missed(2, 10, 110, 210), fired(210, 310, late=140, missed=2), fired(310, 410, late=40)
    )


def test_what_lay_in_a_pause_was_not_missed() -> None:
    resume = asked(ResumeSchedule(schedule_id="s"), 1005)
    resumed = ScheduleResumed(schedule_id="s", next=at(1010))
    schedule.given(EACH_10, paused).when(awoken(500)).then()
    schedule.given(EACH_10, paused).when(resume).then(resumed)
    schedule.given(EACH_10, paused, resumed).when(resume).then()
    schedule.given(EACH_10, paused, resumed).when(awoken(1010)).then(fired(1010, 1020))


def test_what_was_due_before_a_pause_is_settled_first() -> None:
    pause = asked(PauseSchedule(schedule_id="s"), 12)
    schedule.given(EACH_10).when(pause).then(fired(10, 20, late=2), paused)
    schedule.given(EACH_10, paused).when(pause).then()


def test_a_timer_whose_moment_lay_in_a_pause_is_done_when_it_is_resumed() -> None:
    timer = created(30, at=at(30))
    over = ScheduleResumed(schedule_id="s", next=None)
    schedule.given(timer, paused).when(asked(ResumeSchedule(schedule_id="s"), 60)).then(over)
    schedule.given(timer, paused, over).then_state(lambda state: state.status == "done")


def test_a_clock_that_is_put_back_makes_nothing_fire_twice() -> None:
    before = (EACH_10, fired(10, 20), paused)
    resumed = ScheduleResumed(schedule_id="s", next=at(20))
    schedule.given(*before).when(asked(ResumeSchedule(schedule_id="s"), 4)).then(resumed)
    change = ChangeSchedule(schedule_id="s", cron="* * * * *")
    changed = ScheduleChanged(schedule_id="s", next=at(60), cron="* * * * *")
    minute = created(0, cron="* * * * *", grace_s=1)
    schedule.given(minute, fired(0, 60)).when(
        asked(ChangeSchedule(schedule_id="s", cron="* * * * *"), -5)
    ).then(ScheduleChanged(schedule_id="s", next=at(60), cron="* * * * *"))
    schedule.given(EACH_10, fired(10, 20)).when(asked(change, 3)).then(changed)


# Declarations.


def declared(**terms: Any) -> Declared:
    return Declared(schedule_id="s", **terms)


def test_a_declaration_creates_changes_and_is_idempotent() -> None:
    schedule.given().when(asked(declared(every_s=10))).then(EACH_10)
    schedule.given(EACH_10).when(asked(declared(every_s=10), 5)).then()
    schedule.given(EACH_10).when(asked(declared(every_s=60), 5)).then(
        ScheduleChanged(schedule_id="s", next=at(65), every_s=60)
    )


def test_what_is_not_declared_any_more_is_paused_and_goes_on_when_it_is_again() -> None:
    undeclared = SchedulePaused(schedule_id="s", undeclared=True)
    schedule.given(EACH_10).when(asked(Undeclare(), 5)).then(undeclared)
    schedule.given(EACH_10, undeclared).when(asked(Undeclare(), 5)).then()
    schedule.given(EACH_10, undeclared).when(asked(declared(every_s=10), 25)).then(
        ScheduleResumed(schedule_id="s", next=at(30))
    )
    schedule.given(EACH_10, paused).when(asked(declared(every_s=10), 25)).then()


# Bounds.


@pytest.mark.parametrize("policy", ["skip", "once", "all"])
def test_a_year_of_missed_seconds_is_settled_in_bounded_steps_and_none_is_forgotten(
    policy: Any,
) -> None:
    now = asked(Wake(), 20 * LOOK_MAX + 0.5)
    events: list[Event] = [created(1, every_s=1, missed=policy, grace_s=0, missed_max=7)]
    rounds = 0
    while news := DECIDER.decide(now, DECIDER.fold(events)):
        assert len(news) <= FIRES_MAX + 1
        events += news
        rounds += 1
        assert rounds < 50

    assert [at(n) for n in range(1, 20 * LOOK_MAX + 1)] == decided(events, 1)
    shots = [event for event in events if isinstance(event, ScheduleFired)]
    assert {"skip": 0, "once": 1, "all": 7}[policy] == len(shots)
    if shots:
        assert 20 * LOOK_MAX - len(shots) == shots[0].missed


def test_a_pause_waits_until_what_was_due_is_settled() -> None:
    terms = created(1, every_s=1, missed="skip", grace_s=0)
    pause = asked(PauseSchedule(schedule_id="s"), 3 * LOOK_MAX)
    schedule.given(terms).when(pause).then_rejected(CatchingUp)


def decided(events: Sequence[Event], every_s: int) -> list[datetime]:
    """Return each occurrence that was decided, in the order of decisions."""
    found: list[datetime] = []
    for event in events:
        if isinstance(event, ScheduleFired) and not event.manual:
            found.append(event.occurrence)
        if isinstance(event, ScheduleMissed):
            step = timedelta(seconds=every_s)
            found += [event.first + n * step for n in range(event.count)]
            assert event.last == found[-1]
    return found


# Whatever happens.

orders = st.one_of(
    st.just(Wake()),
    st.just(PauseSchedule(schedule_id="s")),
    st.just(ResumeSchedule(schedule_id="s")),
    st.just(FireSchedule(schedule_id="s")),
    st.builds(
        ChangeSchedule,
        schedule_id=st.just("s"),
        every_s=st.sampled_from([7, 60]),
        missed=st.sampled_from(["skip", "once", "all"]),
        grace_s=st.integers(0, 40),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.floats(-30, 90), orders), max_size=25))
def test_no_script_decides_an_occurrence_twice_or_forgets_one(
    script: list[tuple[float, Command]],
) -> None:
    """Also with a clock that jumps: between pauses and changes, decisions leave no gap."""
    state = DECIDER.fold([EACH_10])
    now, expected, seen = 0.0, state.next, set[datetime]()
    for passed, command in script:
        now += passed
        try:
            events = DECIDER.decide(asked(command, now), state)
        except Rejected:
            continue
        for event in events:
            match event:
                case ScheduleFired(manual=False, occurrence=moment):
                    assert moment == expected, "not the one that was next"
                    assert moment not in seen, "fired twice"
                    assert moment + timedelta(seconds=state.jitter_s) <= at(now), "too early"
                    seen.add(moment)
                case ScheduleMissed(first=moment, last=last, count=count):
                    assert moment == expected, "missed from somewhere else on"
                    step = timedelta(seconds=state.terms.every_s or 0)
                    assert last == moment + (count - 1) * step
                    assert seen.isdisjoint({moment + n * step for n in range(count)})
                    seen |= {moment + n * step for n in range(count)}
            state = DECIDER.evolve(state, event)
            expected = state.next
        if isinstance(command, Wake):
            assert state.due is None or state.due > at(now), "something due was left"


def test_the_same_terms_are_the_same_occurrences_as_the_timing_says() -> None:
    terms = Terms(cron="0 3 * * *", time_zone="Europe/Vienna", missed="all", missed_max=100)
    [first] = DECIDER.decide(asked(create(**terms.model_dump())), Schedule())
    events = DECIDER.decide(asked(Wake(), 86_400 * 30), DECIDER.fold([first]))
    planned = occurrences(terms, after=NOON, grid=NOON)
    assert [next(planned) for _ in events] == decided(events, 0)
