"""Schedules, in their own words: asked → happened → answered.

What a schedule is for is its payload, and whoever hears `schedule.fired.v1` knows what to do with it.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from flotilla_contracts.message import Command, Event, Identifier, Query, Reply

SERVICE = "scheduler"
PLATFORM_TENANT = "-"
"""Whose schedules those are that the platform itself declares. No caller from outside has this name."""
YEAR_S = 366 * 86_400
MISSED_MAX = 100
DECLARED_MAX = 500
PAGE_SIZE_MAX = 200
PREVIEW_MAX = 100


class ScheduleErrorCode(StrEnum):
    """Why a schedule refuses, for programs. They travel on the bus; none is answered over HTTP yet."""

    NOT_FOUND = "schedule-not-found"
    EXISTS = "schedule-exists"
    TIMING_INVALID = "schedule-timing-invalid"
    CRON_INVALID = "schedule-cron-invalid"
    ZONE_UNKNOWN = "schedule-zone-unknown"
    IN_THE_PAST = "schedule-in-the-past"
    NEVER_FIRES = "schedule-never-fires"
    CATCHING_UP = "schedule-catching-up"


ScheduleId = Identifier
Moment = Annotated[AwareDatetime, Field(strict=False)]
PayloadValue = Annotated[str, Field(max_length=1024)] | int | float | bool
Payload = Annotated[dict[Identifier, PayloadValue], Field(max_length=50)]
MissedPolicy = Literal["skip", "once", "all"]
Status = Literal["active", "paused", "done", "deleted"]


class Timing(BaseModel):
    """When: exactly one of `cron` (by the clocks of `time_zone`), `at` and `every_s`."""

    model_config = ConfigDict(frozen=True, strict=True)

    cron: Annotated[
        str | None,
        Field(
            max_length=100, description="Minute, hour, day of the month, month, day of the week."
        ),
    ] = None
    time_zone: Annotated[
        str, Field(max_length=64, description="Whose clocks a cron goes by: an IANA name.")
    ] = "UTC"
    at: Annotated[Moment | None, Field(description="Once, at this moment.")] = None
    every_s: Annotated[int | None, Field(ge=1, le=YEAR_S, description="Again and again.")] = None


class Terms(Timing):
    """When a schedule fires, what becomes of occurrences that it missed, and what it says."""

    missed: Annotated[
        MissedPolicy,
        Field(
            description="Of occurrences that are later than `grace_s`: none fires, the last one does,"
            " or the last `missed_max` do."
        ),
    ] = "once"
    grace_s: Annotated[int, Field(ge=0, le=YEAR_S, description="Late by so much is on time.")] = 60
    missed_max: Annotated[int, Field(ge=1, le=MISSED_MAX)] = 10
    jitter_max_s: Annotated[
        int,
        Field(ge=0, le=86_400, description="Fires later by less than this; always by the same."),
    ] = 0
    payload: Payload = Field(default_factory=dict)


# What happened. Stored forever: add optional fields, never rename them.


class ScheduleCreated(Terms, Event):
    """There is a schedule. `next` is its first occurrence; it is due `jitter_s` after it."""

    type: ClassVar[str] = "schedule.created.v1"

    schedule_id: ScheduleId
    next: Moment | None
    jitter_s: float = 0.0


class ScheduleChanged(Terms, Event):
    """It has other terms, from here on. `next` is the first occurrence by them."""

    type: ClassVar[str] = "schedule.changed.v1"

    schedule_id: ScheduleId
    next: Moment | None
    jitter_s: float = 0.0


class SchedulePaused(Event):
    """It does not fire until it is resumed. `undeclared`: because nobody declares it any more."""

    type: ClassVar[str] = "schedule.paused.v1"

    schedule_id: ScheduleId
    undeclared: bool = False


class ScheduleResumed(Event):
    """It fires again. What lay in the pause was not missed; `next` is null when nothing comes."""

    type: ClassVar[str] = "schedule.resumed.v1"

    schedule_id: ScheduleId
    next: Moment | None


class ScheduleDeleted(Event):
    """There is no such schedule any more."""

    type: ClassVar[str] = "schedule.deleted.v1"

    schedule_id: ScheduleId


class ScheduleFired(Event):
    """An occurrence came: once each, in order.

    `occurrence` is when it was planned, `late_by_s` how long after it was due this was decided,
    `missed` how many occurrences before it did not fire, since the last one that did. A `manual` one
    was asked for. `next` is null after the last.
    """

    type: ClassVar[str] = "schedule.fired.v1"

    schedule_id: ScheduleId
    occurrence: Moment
    late_by_s: float
    missed: int
    manual: bool = False
    payload: Payload
    next: Moment | None


class ScheduleMissed(Event):
    """Occurrences from `first` to `last` came and did not fire: too late, by the schedule's policy."""

    type: ClassVar[str] = "schedule.missed.v1"

    schedule_id: ScheduleId
    count: int
    first: Moment
    last: Moment
    next: Moment | None


class SchedulesDeclared(Event):
    """These are all that `owner` declares, from here on."""

    type: ClassVar[str] = "declaration.made.v1"

    owner: Identifier
    schedule_ids: tuple[ScheduleId, ...]


ScheduleEvent = (
    ScheduleCreated
    | ScheduleChanged
    | SchedulePaused
    | ScheduleResumed
    | ScheduleDeleted
    | ScheduleFired
    | ScheduleMissed
)


# What is answered.


class ScheduleReply(Reply):
    """A schedule and where it stands. `version` counts its events and is its ETag."""

    schedule_id: ScheduleId
    status: Status
    terms: Terms
    next: Moment | None
    last: Moment | None
    """The occurrence that fired last."""
    fired: int
    missed: int
    """Occurrences that did not fire, ever."""
    version: int


class ScheduleEntry(Reply):
    """A schedule in a list."""

    schedule_id: ScheduleId
    status: Status
    timing: str
    """Such as `0 3 * * * Europe/Vienna`, `every 60 s`, `at 2026-05-17T12:00:00Z`."""
    next: Moment | None
    last: Moment | None
    fired: int
    missed: int
    version: int


class SchedulePage(Reply):
    """Some of a tenant's schedules, by id. `next_cursor` is null on the last page."""

    items: tuple[ScheduleEntry, ...]
    next_cursor: str | None


class Occurrence(Reply):
    """A moment at which a schedule fires, and what clocks of its time zone show then."""

    at: Moment
    local: str


class OccurrencesReply(Reply):
    """The next occurrences; fewer than asked for when there are no more."""

    items: tuple[Occurrence, ...]


class DeclaredReply(Reply):
    """What became of a declaration: schedules that are now as declared, and those paused."""

    declared: int
    paused: int


# What may be asked.


class CreateSchedule(Terms, Command):
    """Let there be a schedule. One that is there already, on the same terms, stays as it is."""

    subject: ClassVar[str] = "cmd.scheduler.create-schedule"
    reply: ClassVar[type[Reply]] = ScheduleReply

    schedule_id: ScheduleId


class ChangeSchedule(Terms, Command):
    """Give it other terms: all of them. What was due before is settled by the old ones."""

    subject: ClassVar[str] = "cmd.scheduler.change-schedule"
    reply: ClassVar[type[Reply]] = ScheduleReply

    schedule_id: ScheduleId


class PauseSchedule(Command):
    """Let it fire no more until it is resumed."""

    subject: ClassVar[str] = "cmd.scheduler.pause-schedule"
    reply: ClassVar[type[Reply]] = ScheduleReply

    schedule_id: ScheduleId


class ResumeSchedule(Command):
    """Let it fire again, from now on."""

    subject: ClassVar[str] = "cmd.scheduler.resume-schedule"
    reply: ClassVar[type[Reply]] = ScheduleReply

    schedule_id: ScheduleId


class DeleteSchedule(Command):
    """Let there be no such schedule any more."""

    subject: ClassVar[str] = "cmd.scheduler.delete-schedule"
    reply: ClassVar[type[Reply]] = ScheduleReply

    schedule_id: ScheduleId


class FireSchedule(Command):
    """Fire it now, once more than planned; its plan stays as it is."""

    subject: ClassVar[str] = "cmd.scheduler.fire-schedule"
    reply: ClassVar[type[Reply]] = ScheduleReply

    schedule_id: ScheduleId


class Declared(Terms):
    """A schedule as its owner wants it."""

    model_config = ConfigDict(extra="forbid")

    schedule_id: ScheduleId


class DeclareSchedules(Command):
    """These are all that `owner` wants: created or changed; those it wanted before are paused."""

    subject: ClassVar[str] = "cmd.scheduler.declare-schedules"
    reply: ClassVar[type[Reply]] = DeclaredReply

    owner: Identifier
    schedules: Annotated[tuple[Declared, ...], Field(max_length=DECLARED_MAX, strict=False)]


class GetSchedule(Query):
    """One schedule, from its own store."""

    subject: ClassVar[str] = "qry.scheduler.get-schedule"
    reply: ClassVar[type[Reply]] = ScheduleReply

    schedule_id: ScheduleId


class PreviewOccurrences(Timing, Query):
    """When this would fire; nothing is stored."""

    subject: ClassVar[str] = "qry.scheduler.preview-occurrences"
    reply: ClassVar[type[Reply]] = OccurrencesReply

    after: Annotated[Moment | None, Field(description="Later than this; null: than now.")] = None
    limit: Annotated[int, Field(ge=1, le=PREVIEW_MAX)] = 10


class ListSchedules(Query):
    """The tenant's schedules with ids after `after`, in order of their ids, from a read model."""

    subject: ClassVar[str] = "qry.projector.list-schedules"
    reply: ClassVar[type[Reply]] = SchedulePage

    after: ScheduleId | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_SIZE_MAX)] = 50


ScheduleCommand = (
    CreateSchedule | ChangeSchedule | PauseSchedule | ResumeSchedule | DeleteSchedule | FireSchedule
)

EVENTS: tuple[type[ScheduleEvent | SchedulesDeclared], ...] = (
    ScheduleCreated,
    ScheduleChanged,
    SchedulePaused,
    ScheduleResumed,
    ScheduleDeleted,
    ScheduleFired,
    ScheduleMissed,
    SchedulesDeclared,
)
SCHEDULE_COMMANDS: tuple[type[ScheduleCommand], ...] = (
    CreateSchedule,
    ChangeSchedule,
    PauseSchedule,
    ResumeSchedule,
    DeleteSchedule,
    FireSchedule,
)
COMMANDS: tuple[type[Command], ...] = (*SCHEDULE_COMMANDS, DeclareSchedules)
QUERIES: tuple[type[Query], ...] = (GetSchedule, PreviewOccurrences, ListSchedules)
