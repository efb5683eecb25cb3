"""A schedule: one plan, whose occurrences are decided one after the other, each once.

    absent ──create──▶ active ──its moment──▶ active … ──no more occurrences──▶ done
                         │ ▲
                      pause resume                       delete ends it from everywhere

The state knows the next occurrence, and the stream's `wake` is when that is due. Whoever is told `Wake`
decides what is due by then and what comes after; the version of the stream lets one of them do it.
What may be asked and what may have happened are contract messages (`flotilla_contracts.scheduler`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import assert_never

from flotilla import Decider, Rejected, StreamId
from flotilla.store import Wake as WakeAt
from flotilla_contracts.scheduler import (
    ChangeSchedule,
    CreateSchedule,
    Declared,
    DeleteSchedule,
    FireSchedule,
    PauseSchedule,
    ResumeSchedule,
    ScheduleChanged,
    ScheduleCommand,
    ScheduleCreated,
    ScheduleDeleted,
    ScheduleErrorCode,
    ScheduleEvent,
    ScheduleFired,
    ScheduleMissed,
    SchedulePaused,
    ScheduleResumed,
    Status,
    Terms,
)
from svc_scheduler.domain.occurrences import check, occurrences
from svc_scheduler.domain.settling import settled

# What may be asked, when, and of which stream.


@dataclass(frozen=True, slots=True)
class Wake:
    """Its moment may have come."""


@dataclass(frozen=True, slots=True)
class Undeclare:
    """Nobody declares it any more."""


Command = ScheduleCommand | Declared | Undeclare | Wake


@dataclass(frozen=True, slots=True)
class Asked:
    """A command, at the store's time."""

    stream: StreamId
    now: datetime
    command: Command


# What may have happened.

Event = ScheduleEvent


class NoSchedule(Rejected):
    """There is no such schedule."""

    default_code = ScheduleErrorCode.NOT_FOUND


class ScheduleExists(Rejected):
    """There is one of that name, on other terms."""

    default_code = ScheduleErrorCode.EXISTS


class InThePast(Rejected):
    """The only moment of a schedule has passed."""

    default_code = ScheduleErrorCode.IN_THE_PAST


class CatchingUp(Rejected):
    """So much was due before that it is not all settled yet."""

    default_code = ScheduleErrorCode.CATCHING_UP


# What we remember. Never the truth, so free to change.


@dataclass(frozen=True, slots=True)
class Schedule:
    """Just enough to decide, and to answer.

    `grid` is what intervals are counted from. Nothing up to `settled` is decided again, even if the
    store's clock is put back.
    """

    exists: bool = False
    is_paused: bool = False
    is_undeclared: bool = False
    terms: Terms = field(default_factory=Terms)
    jitter_s: float = 0.0
    next: datetime | None = None
    grid: datetime | None = None
    last: datetime | None = None
    settled: datetime | None = None
    fired: int = 0
    missed: int = 0
    missed_since: int = 0
    was_deleted: bool = False

    @property
    def status(self) -> Status:
        """What people call where it stands."""
        if not self.exists:
            return "deleted"
        if self.is_paused:
            return "paused"
        return "active" if self.next else "done"

    @property
    def due(self) -> datetime | None:
        """When it is to be looked at; None: not at all."""
        if not self.exists or self.is_paused or self.next is None:
            return None
        return self.next + timedelta(seconds=self.jitter_s)


def wake(schedule: Schedule) -> WakeAt:
    """Return when a schedule's stream is to be looked at again."""
    return WakeAt(schedule.due)


def evolve(schedule: Schedule, event: Event) -> Schedule:  # noqa: PLR0911 - one a fact
    """Apply one fact. Never refuses: it already happened."""
    match event:
        case ScheduleCreated():
            return _on_terms(Schedule(exists=True), event)
        case ScheduleChanged():
            return _on_terms(schedule, event)
        case SchedulePaused(undeclared=undeclared):
            return replace(schedule, is_paused=True, is_undeclared=undeclared)
        case ScheduleResumed(next=at):
            return replace(_next(schedule, at), is_paused=False, is_undeclared=False)
        case ScheduleDeleted():
            return Schedule(was_deleted=True)
        case ScheduleFired(occurrence=at, manual=manual):
            fired = replace(schedule, fired=schedule.fired + 1)
            if manual:
                return fired
            return replace(_next(fired, event.next), last=at, settled=at, missed_since=0)
        case ScheduleMissed(count=count, last=at):
            missed, since = schedule.missed + count, schedule.missed_since + count
            late = replace(schedule, missed=missed, missed_since=since, settled=at)
            return _next(late, event.next)
    assert_never(event)


def decide(asked: Asked, schedule: Schedule) -> Sequence[Event]:
    """Return what follows from what was asked; nothing, if it is already true."""
    match asked.command:
        case Wake():
            return _settle(asked, schedule)
        case CreateSchedule() as command:
            return _create(asked, command, schedule)
        case Declared() as declared:
            return _declare(asked, declared, schedule)
        case Undeclare():
            if not schedule.exists or schedule.is_paused:
                return []
            return [*_settle_all(asked, schedule), _paused(asked, undeclared=True)]
        case _:
            return _of_an_existing(asked, schedule)


def decider() -> Decider[Asked, Schedule, Event]:
    """Return the rules of schedules."""
    return Decider(Schedule(), decide, evolve)


def _of_an_existing(asked: Asked, schedule: Schedule) -> Sequence[Event]:  # noqa: PLR0911 - one a command
    if not schedule.exists:
        raise NoSchedule(
            f"no schedule {_name(asked)}: `flotilla schedules list` shows those there are"
        )
    match asked.command:
        case ChangeSchedule() as command:
            if schedule.terms == terms_of(command):
                return []
            return _change(asked, command, schedule)
        case PauseSchedule():
            if schedule.is_paused:
                return []
            return [*_settle_all(asked, schedule), _paused(asked)]
        case ResumeSchedule():
            return [_resumed(asked, schedule)] if schedule.is_paused else []
        case DeleteSchedule(schedule_id=name):
            return [ScheduleDeleted(schedule_id=name)]
        case FireSchedule():
            before = _settle_all(asked, schedule)
            return [*before, _fired_by_hand(asked, decider().fold(before, schedule))]
    raise AssertionError(asked)  # pragma: no cover - all commands are above


def _create(asked: Asked, command: Terms, schedule: Schedule) -> Sequence[Event]:
    terms = terms_of(command)
    if schedule.exists:
        if schedule.terms == terms:
            return []
        raise ScheduleExists(f"{_name(asked)} is there, on other terms: change it instead")
    first = _first(asked, terms, after=asked.now)
    fields = terms.model_dump()
    jitter_s = _jitter_s(asked, terms)
    return [ScheduleCreated(schedule_id=_name(asked), next=first, jitter_s=jitter_s, **fields)]


def _change(asked: Asked, command: Terms, schedule: Schedule) -> Sequence[Event]:
    terms, before = terms_of(command), _settle_all(asked, schedule)
    after = _not_before(asked, decider().fold(before, schedule))
    changed = ScheduleChanged(
        schedule_id=_name(asked),
        next=_first(asked, terms, after=after),
        jitter_s=_jitter_s(asked, terms),
        **terms.model_dump(),
    )
    return [*before, changed]


def _declare(asked: Asked, declared: Declared, schedule: Schedule) -> Sequence[Event]:
    if not schedule.exists:
        return _create(asked, declared, schedule)
    is_same = schedule.terms == terms_of(declared)
    changed = [] if is_same else _change(asked, declared, schedule)
    after = decider().fold(changed, schedule)
    return [*changed, _resumed(asked, after)] if schedule.is_undeclared else changed


def _resumed(asked: Asked, schedule: Schedule) -> ScheduleResumed:
    after, grid = _not_before(asked, schedule), schedule.grid or asked.now
    coming = occurrences(schedule.terms, after=after, grid=grid)
    return ScheduleResumed(schedule_id=_name(asked), next=next(coming, None))


def _fired_by_hand(asked: Asked, schedule: Schedule) -> ScheduleFired:
    return ScheduleFired(
        schedule_id=_name(asked),
        occurrence=asked.now,
        late_by_s=0.0,
        missed=0,
        manual=True,
        payload=schedule.terms.payload,
        next=schedule.next,
    )


def _paused(asked: Asked, *, undeclared: bool = False) -> SchedulePaused:
    return SchedulePaused(schedule_id=_name(asked), undeclared=undeclared)


def _settle(asked: Asked, schedule: Schedule) -> Sequence[Event]:
    """Return what is due by now: fired, or missed. More may be due afterwards: it is bounded."""
    if schedule.due is None or schedule.next is None or asked.now < schedule.due:
        return []
    jitter = timedelta(seconds=schedule.jitter_s)
    return settled(
        _name(asked), schedule.terms, schedule.next, asked.now - jitter, schedule.missed_since
    )


def _settle_all(asked: Asked, schedule: Schedule) -> Sequence[Event]:
    events = _settle(asked, schedule)
    after = decider().fold(events, schedule)
    if after.due and after.due <= asked.now:
        raise CatchingUp(f"{_name(asked)} has more due than one decision settles: try again soon")
    return events


def _not_before(asked: Asked, schedule: Schedule) -> datetime:
    """Return after which moment occurrences are still to be decided."""
    return max(asked.now, schedule.settled or asked.now)


def _first(asked: Asked, terms: Terms, *, after: datetime) -> datetime:
    check(terms)
    first = next(occurrences(terms, after=after, grid=after), None)
    if first is None:
        raise InThePast(
            f"{terms.at} is not after {asked.now}, by the store's clock: name a later moment"
        )
    return first


def _jitter_s(asked: Asked, terms: Terms) -> float:
    """Return how much later it fires: the same each time, and spread over all schedules."""
    drawn = int.from_bytes(hashlib.sha256(asked.stream.encode()).digest()[:8])
    return drawn % (terms.jitter_max_s * 1000) / 1000 if terms.jitter_max_s else 0.0


def terms_of(message: Terms) -> Terms:
    """Return the terms alone."""
    return Terms(**{name: getattr(message, name) for name in Terms.model_fields})


def _on_terms(schedule: Schedule, event: ScheduleCreated | ScheduleChanged) -> Schedule:
    told = replace(schedule, terms=terms_of(event), jitter_s=event.jitter_s, grid=None)
    return _next(told, event.next)


def _next(schedule: Schedule, at: datetime | None) -> Schedule:
    return replace(schedule, next=at, grid=at or schedule.grid)


def _name(asked: Asked) -> str:
    return asked.stream.split("/", 2)[2]
