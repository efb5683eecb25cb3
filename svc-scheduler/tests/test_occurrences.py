"""When timings occur, also where clocks are put forward and back."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla import Rejected
from flotilla_contracts.scheduler import ScheduleErrorCode, Timing
from svc_scheduler.domain.occurrences import check, occurrences

MINUTE = timedelta(minutes=1)
ZONES = (
    "UTC",
    "Europe/Vienna",
    "America/New_York",
    "America/Havana",  # clocks change at midnight
    "America/Santiago",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Australia/Lord_Howe",  # by half an hour
    "Antarctica/Troll",  # by two hours
    "Pacific/Apia",
    "Asia/Kolkata",
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def coming(timing: Timing, after: str | datetime, count: int = 5) -> list[datetime]:
    moment = utc(after) if isinstance(after, str) else after
    return [*islice(occurrences(timing, after=moment, grid=moment), count)]


def shown(timing: Timing, after: str, count: int = 5) -> list[str]:
    zone = ZoneInfo(timing.time_zone)
    return [at.astimezone(zone).strftime("%d %H:%M%z") for at in coming(timing, after, count)]


def vienna(cron: str) -> Timing:
    return Timing(cron=cron, time_zone="Europe/Vienna")


# Where clocks are put forward (2026-03-29, 02:00 to 03:00) and back (2026-10-25, 03:00 to 02:00).


def test_a_wall_time_that_does_not_exist_occurs_when_the_clocks_have_gone_forward() -> None:
    assert ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"] == shown(
        vienna("30 2 * * *"), "2026-03-28T00:00+01:00", 3
    )


def test_all_that_fall_into_one_gap_are_one_and_the_next_hour_is_not_doubled() -> None:
    assert ["29 03:00+0200", "29 03:30+0200", "30 02:00+0200"] == shown(
        vienna("0,30 2,3 * * *"), "2026-03-29T01:00+01:00", 3
    )


def test_a_wall_time_that_exists_twice_occurs_the_first_time() -> None:
    twice = vienna("30 2 * * *")
    assert ["25 02:30+0200", "26 02:30+0100"] == shown(twice, "2026-10-25T00:00+02:00", 2)
    assert ["26 02:30+0100"] == shown(twice, "2026-10-25T02:10+01:00", 1), (
        "asked in the second hour"
    )


def test_a_cron_of_every_hour_goes_by_real_time() -> None:
    quarters = vienna("*/30 * * * *")
    assert ["29 01:30+0100", "29 03:00+0200", "29 03:30+0200"] == shown(
        quarters, "2026-03-29T01:00+01:00", 3
    )
    assert [
        "25 02:00+0200",
        "25 02:30+0200",
        "25 02:00+0100",
        "25 02:30+0100",
        "25 03:00+0100",
    ] == (shown(quarters, "2026-10-25T01:30+02:00"))


def test_an_interval_and_a_moment_do_not_look_at_clocks() -> None:
    start = utc("2026-10-25T00:00+02:00")
    hourly = Timing(every_s=3600)
    assert [start + timedelta(hours=n) for n in (1, 2, 3, 4)] == coming(hourly, start, 4)
    once = Timing(at=utc("2026-10-25T02:30+01:00"))
    assert [utc("2026-10-25T01:30Z")] == coming(once, start)
    assert [] == coming(once, "2026-10-25T01:30Z")


def test_an_interval_stays_on_its_grid() -> None:
    start, later = utc("2026-01-01T00:00Z"), utc("2026-01-01T00:00:25Z")
    found = occurrences(Timing(every_s=10), after=later, grid=start)
    assert utc("2026-01-01T00:00:30Z") == next(found)


# What holds of any cron, in any zone, at any time.

numbers = st.integers


@st.composite
def crons(draw: st.DrawFn) -> str:
    minute = draw(st.sampled_from(["0", "30", "15,45", "*/20", "59", "*", "5-10"]))
    hour = draw(
        st.sampled_from(["*", "0", "1", "2", "3", "0,2", "1-3", "*/2", "23", "*/1", "0-23"])
    )
    day = draw(st.sampled_from(["*", "*", "*", "1", "L", "*/2"]))
    weekday = draw(st.sampled_from(["*", "*", "*", "SUN", "1-5"]))
    return f"{minute} {hour} {day} * {weekday}"


@st.composite
def transitions(draw: st.DrawFn) -> tuple[str, datetime]:
    """Return a zone and a moment near a change of its clocks, if it has any."""
    zone = draw(st.sampled_from(ZONES))
    start = datetime(draw(numbers(2010, 2035)), 1, 1, tzinfo=UTC)
    changes = [
        start + timedelta(days=n)
        for n in range(365)
        if offset(start + timedelta(days=n), zone) != offset(start + timedelta(days=n + 1), zone)
    ]
    around = draw(st.sampled_from(changes)) if changes else start
    return zone, around - timedelta(minutes=draw(numbers(0, 24 * 60)))


def offset(moment: datetime, zone: str) -> timedelta | None:
    return moment.astimezone(ZoneInfo(zone)).utcoffset()


def by_looking_at_every_minute(
    cron: str, zone: str, after: datetime, until: datetime
) -> list[datetime]:
    """Return the occurrences as the rule says them, from nothing but zoneinfo and minutes of walls."""
    sim, here = CronSim(cron, datetime(2000, 1, 1)), ZoneInfo(zone)  # noqa: DTZ001 - a wall
    real: dict[datetime, list[datetime]] = {}
    at = after - timedelta(days=3)
    jumps: list[tuple[datetime, datetime, datetime]] = []
    while at <= until + timedelta(days=2):
        wall = at.astimezone(here).replace(tzinfo=None, fold=0)
        before = (at - MINUTE).astimezone(here).replace(tzinfo=None, fold=0)
        if wall - before > MINUTE:
            jumps.append((before + MINUTE, wall, at))
        real.setdefault(wall, []).append(at)
        at += MINUTE

    def matches(wall: datetime) -> bool:
        return wall.minute in sim.minutes and wall.hour in sim.hours and sim.match_day(wall.date())

    each_hour = len(sim.hours) == 24
    found = {
        moment
        for wall, moments in real.items()
        if matches(wall)
        for moment in (moments if each_hour else moments[:1])
    }
    if not each_hour:
        found |= {end for first, last, end in jumps if any(map(matches, minutes(first, last)))}
    return sorted(moment for moment in found if after < moment <= until)


def minutes(first: datetime, last: datetime) -> Iterator[datetime]:
    while first < last:
        yield first
        first += MINUTE


@settings(max_examples=40, deadline=None)
@given(crons(), transitions())
def test_what_occurs_around_a_change_of_clocks_is_what_the_rule_says(
    cron: str, around: tuple[str, datetime]
) -> None:
    zone, after = around
    until = after + timedelta(days=2)
    timing = Timing(cron=cron, time_zone=zone)
    got = []
    for at in occurrences(timing, after=after, grid=after):
        if at > until:
            break
        got.append(at)

    assert by_looking_at_every_minute(cron, zone, after, until) == got


@settings(max_examples=40, deadline=None)
@given(crons(), transitions())
def test_it_does_not_matter_from_where_one_looks(cron: str, around: tuple[str, datetime]) -> None:
    """The next of each is the one after it: a stored occurrence is enough to go on from."""
    zone, after = around
    timing = Timing(cron=cron, time_zone=zone)
    first = coming(timing, after, 8)

    one_by_one, at = [], after
    for _ in first:
        at = coming(timing, at, 1)[0]
        one_by_one.append(at)

    assert first == one_by_one
    assert first == sorted(set(first))


# What is refused.


@pytest.mark.parametrize(
    ("timing", "code", "says"),
    [
        (Timing(), ScheduleErrorCode.TIMING_INVALID, "exactly one of cron, at, every_s"),
        (
            Timing(cron="0 3 * * *", every_s=5),
            ScheduleErrorCode.TIMING_INVALID,
            "cron and every_s",
        ),
        (Timing(every_s=5, time_zone="Europe/Vienna"), ScheduleErrorCode.TIMING_INVALID, "cron"),
        (Timing(cron="0 3 * *"), ScheduleErrorCode.CRON_INVALID, "4 fields; a cron has five"),
        (Timing(cron="* 0 3 * * *"), ScheduleErrorCode.CRON_INVALID, "6 fields"),
        (Timing(cron="@daily"), ScheduleErrorCode.CRON_INVALID, "0 3 \\* \\* \\*"),
        (Timing(cron="61 3 * * *"), ScheduleErrorCode.CRON_INVALID, "minute"),
        (Timing(cron="0 3 32 * *"), ScheduleErrorCode.CRON_INVALID, "day-of-month"),
        (Timing(cron="0 3 * * FRY"), ScheduleErrorCode.CRON_INVALID, "day-of-week"),
        (Timing(cron="0 3 */0 * *"), ScheduleErrorCode.CRON_INVALID, "day-of-month"),
        (Timing(cron="0 L * * *"), ScheduleErrorCode.CRON_INVALID, "hour"),
        (Timing(cron="0 3 * * L"), ScheduleErrorCode.CRON_INVALID, "day-of-week"),
        (Timing(cron="0 3 31 2 *"), ScheduleErrorCode.NEVER_FIRES, "last day of a month"),
        (Timing(cron="0 3 */20 * 1L"), ScheduleErrorCode.NEVER_FIRES, "within 50 years"),
        (
            Timing(cron="0 3 * * *", time_zone="Europe/Viena"),
            ScheduleErrorCode.ZONE_UNKNOWN,
            "did you mean Europe/Vienna?",
        ),
        (
            Timing(cron="0 3 * * *", time_zone="../../etc/passwd"),
            ScheduleErrorCode.ZONE_UNKNOWN,
            "IANA",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_cure(
    timing: Timing, code: ScheduleErrorCode, says: str
) -> None:
    with pytest.raises(Rejected, match=says) as refusal:
        check(timing)
    assert code == refusal.value.code


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="0123456789*/-,#L WMONJA@", max_size=20))
def test_any_text_is_a_cron_or_refused(text: str) -> None:
    try:
        check(Timing(cron=text))
    except Rejected as refusal:
        assert refusal.code in {ScheduleErrorCode.CRON_INVALID, ScheduleErrorCode.NEVER_FIRES}
    else:
        assert len(coming(Timing(cron=text), "2026-01-01T00:00Z", 2)) == 2


def test_a_leap_day_is_waited_for() -> None:
    leap = Timing(cron="0 0 29 2 *")
    check(leap)
    assert [2028, 2032] == [at.year for at in coming(leap, "2026-01-01T00:00Z", 2)]
