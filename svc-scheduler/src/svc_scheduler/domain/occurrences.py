"""When a timing occurs, as moments in UTC, where the clocks of a zone are put forward and back.

    a cron that names its hours    a wall time that does not exist: when the clocks have gone forward
                                   one that exists twice: the first time
    a cron of every hour           goes by real time: what does not exist is left out, what exists
                                   twice occurs twice
    every n seconds, at            are moments; clocks do not matter

So whatever names its hours occurs once for each wall time it names (several that do not exist at the
end of one gap are one), and `*/15 * * * *` has neither a pause nor a double when clocks change.
"""

import difflib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from flotilla import Rejected
from flotilla_contracts.scheduler import ScheduleErrorCode, Timing

_FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")
_MONTH = 3
_HOURS = frozenset(range(24))
_SECOND = timedelta(seconds=1)
_SOME_DAY = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall time, of no zone


class TimingInvalid(Rejected):
    """A timing is a cron, a moment, or an interval."""

    default_code = ScheduleErrorCode.TIMING_INVALID


class CronInvalid(Rejected):
    """The text is no cron of five fields."""

    default_code = ScheduleErrorCode.CRON_INVALID


class ZoneUnknown(Rejected):
    """There are no clocks of that name."""

    default_code = ScheduleErrorCode.ZONE_UNKNOWN


class NeverFires(Rejected):
    """The cron asks for a day that never comes."""

    default_code = ScheduleErrorCode.NEVER_FIRES


def check(timing: Timing) -> None:
    """Refuse a timing that cannot be meant.

    Raises:
        TimingInvalid: it says when in no way, or in several.
        CronInvalid, ZoneUnknown, NeverFires: its cron does not work, and why.

    """
    said = [name for name in ("cron", "at", "every_s") if getattr(timing, name) is not None]
    if len(said) != 1:
        told = " and ".join(said) or "none of them is given"
        raise TimingInvalid(f"say exactly one of cron, at, every_s; here: {told}")
    zone = _zone(timing.time_zone)
    if timing.cron is not None:
        _check_cron(timing.cron)
        if next(_of_cron(timing.cron, zone, _SOME_DAY.replace(tzinfo=UTC)), None) is None:
            raise NeverFires(f"{timing.cron!r} matches no day within 50 years: {_CURE}")
    elif timing.time_zone != "UTC":
        raise TimingInvalid("time_zone belongs to cron: `at` says its own, as in +02:00")


def occurrences(timing: Timing, *, after: datetime, grid: datetime) -> Iterator[datetime]:
    """Yield the moments after `after`, in order, without end but for `at`.

    `grid` is any moment from which an interval is counted. The timing was checked.
    """
    if timing.at is not None:
        if timing.at > after:
            yield timing.at.astimezone(UTC)
    elif timing.every_s is not None:
        step = timedelta(seconds=timing.every_s)
        at = grid + ((after - grid) // step + 1) * step
        while True:
            yield at
            at += step
    elif timing.cron is not None:
        yield from _of_cron(timing.cron, _zone(timing.time_zone), after)


def local(moment: datetime, timing: Timing) -> str:
    """Return what the clocks of a timing's zone show at a moment, with their offset."""
    return moment.astimezone(_zone(timing.time_zone)).isoformat()


def _of_cron(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    names_hours, expression = _as_understood(cron)
    last, here = after, after.astimezone(zone)
    if names_hours:
        walls = CronSim(expression, here.replace(tzinfo=None, fold=0))
        moments = (_first_moment(wall, zone) for wall in walls)
    else:
        real = (found for found in CronSim(expression, here) if _exists(found, zone))
        moments = (found.astimezone(UTC) for found in real)
    for at in moments:
        if at > last:  # not at the end of the same gap, and not in the hour that comes twice
            yield at
            last = at


def _first_moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return when clocks first show `wall`, or where they jump over it."""
    early = wall.replace(tzinfo=zone, fold=0)
    if _exists(early, zone):
        return early.astimezone(UTC)
    after = early.astimezone(UTC)  # by the offset before the jump
    before = early.replace(fold=1).astimezone(UTC)  # by the one after it
    goal = after.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == goal:
            after = middle
        else:
            before = middle
    return after.replace(microsecond=0)


def _exists(found: datetime, zone: ZoneInfo) -> bool:
    again = found.astimezone(UTC).astimezone(zone)
    return again.replace(tzinfo=None) == found.replace(tzinfo=None)


@lru_cache(maxsize=1024)
def _as_understood(cron: str) -> tuple[bool, str]:
    """Return whether it names its hours, and how it is said to the library."""
    parts = cron.split()
    if set(CronSim(cron, _SOME_DAY).hours) != _HOURS:
        return True, cron
    parts[1] = "*"  # so that the library, too, goes by real time
    return False, " ".join(parts)


@lru_cache(maxsize=1024)
def _check_cron(cron: str) -> None:
    parts = cron.split()
    if len(parts) != len(_FIELDS):
        raise CronInvalid(
            f"{cron!r} has {len(parts)} fields; a cron has five: {' '.join(_FIELDS)}, as in 0 3 * * *"
        )
    try:
        CronSim(cron, _SOME_DAY)
    except CronSimError as error:
        parts[_MONTH] = "*"
        if _is_cron(" ".join(parts)) and _is_cron(f"* * * {cron.split()[_MONTH]} *"):
            raise NeverFires(f"{cron!r} names a day that its months do not have: {_CURE}") from None
        where = str(error).removeprefix("Bad ")
        raise CronInvalid(f"{cron!r}: the {where} cannot be read; {_HOW}") from None
    except (ValueError, TypeError, AssertionError):
        raise CronInvalid(f"{cron!r} cannot be read; {_HOW}") from None


def _is_cron(cron: str) -> bool:
    try:
        CronSim(cron, _SOME_DAY)
    except CronSimError:
        return False
    return True


_CURE = "name a day that comes, or L for the last day of a month"
_HOW = "write numbers within their ranges, lists (1,2), spans (1-5), steps (*/15), names (MON, JAN)"


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    known = _zones()
    if name in known:
        return ZoneInfo(name)
    close = difflib.get_close_matches(name, known, n=1)
    cure = f"did you mean {close[0]}?" if close else "take an IANA name, such as Europe/Vienna"
    raise ZoneUnknown(f"no time zone {name!r}: {cure}")


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
