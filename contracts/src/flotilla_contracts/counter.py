"""Counters, in their own words: asked → happened → answered."""

from typing import Annotated, ClassVar

from pydantic import AwareDatetime, Field

from flotilla_contracts.message import Command, Event, Identifier, Query, Reply

SERVICE = "counter"
BY_MAX = 1_000_000_000
PAGE_SIZE_MAX = 200

Step = Annotated[int, Field(ge=1, le=BY_MAX, description="How far to move; 1 to 10^9.")]
CounterId = Identifier


# What happened. Stored forever: add optional fields, never rename them.


class CounterOpened(Event):
    """The counter was used for the first time; it starts at 0."""

    type: ClassVar[str] = "counter.opened.v1"

    counter_id: CounterId


class CounterIncremented(Event):
    """The counter went up. `value` is where it stands after this event."""

    type: ClassVar[str] = "counter.incremented.v1"

    counter_id: CounterId
    by: Step
    value: int


class CounterDecremented(Event):
    """The counter went down. `value` is where it stands after this event."""

    type: ClassVar[str] = "counter.decremented.v1"

    counter_id: CounterId
    by: Step
    value: int


class CounterReset(Event):
    """The counter was set back to 0 from `previous_value`, which was not 0."""

    type: ClassVar[str] = "counter.reset.v1"

    counter_id: CounterId
    previous_value: int


CounterEvent = CounterOpened | CounterIncremented | CounterDecremented | CounterReset


# What is answered.


class CounterReply(Reply):
    """Where a counter stands. `version` counts its events and is its ETag."""

    counter_id: CounterId
    value: int
    version: int


class CounterPage(Reply):
    """Some of a tenant's counters, by id. `next_cursor` is null on the last page."""

    items: tuple[CounterReply, ...]
    next_cursor: str | None


class TenantTotals(Reply):
    """A tenant's counters together. `events` is how many of their events have been counted in."""

    counters: int
    value_sum: int
    events: int


class ActivityEntry(Reply):
    """Something that happened to a counter. `offset` is its place in the log of all counters."""

    offset: int
    counter_id: CounterId
    type: str
    recorded_at: Annotated[AwareDatetime, Field(strict=False)]


class ActivityPage(Reply):
    """Some of what happened to a tenant's counters, newest first. `next_before` is null on the last."""

    items: tuple[ActivityEntry, ...]
    next_before: int | None


class HistoryEntry(Reply):
    """One stored event of a counter, as it was stored."""

    version: int
    type: str
    recorded_at: Annotated[AwareDatetime, Field(strict=False)]
    data: dict[str, str | int]


class HistoryPage(Reply):
    """Some of a counter's events, oldest first. `next_after` is null on the last page."""

    items: tuple[HistoryEntry, ...]
    next_after: int | None


# What may be asked.


class IncrementCounter(Command):
    """Count up."""

    subject: ClassVar[str] = "cmd.counter.increment"
    reply: ClassVar[type[Reply]] = CounterReply

    counter_id: CounterId
    by: Step


class DecrementCounter(Command):
    """Count down."""

    subject: ClassVar[str] = "cmd.counter.decrement"
    reply: ClassVar[type[Reply]] = CounterReply

    counter_id: CounterId
    by: Step


class ResetCounter(Command):
    """Go back to 0. A counter that is at 0 stays as it is."""

    subject: ClassVar[str] = "cmd.counter.reset"
    reply: ClassVar[type[Reply]] = CounterReply

    counter_id: CounterId


class GetCounter(Query):
    """One counter, from the read model."""

    subject: ClassVar[str] = "qry.projector.get-counter"
    reply: ClassVar[type[Reply]] = CounterReply

    counter_id: CounterId


class ListCounters(Query):
    """The tenant's counters with ids after `after`, in order of their ids."""

    subject: ClassVar[str] = "qry.projector.list-counters"
    reply: ClassVar[type[Reply]] = CounterPage

    after: CounterId | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_SIZE_MAX)] = 50


class GetCounterHistory(Query):
    """A counter's stored events with versions greater than `after`, from its own store."""

    subject: ClassVar[str] = "qry.counter.get-history"
    reply: ClassVar[type[Reply]] = HistoryPage

    counter_id: CounterId
    after: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    limit: Annotated[int, Field(ge=1, le=PAGE_SIZE_MAX)] = 50


class GetTenantTotals(Query):
    """How many counters the tenant has, and how far they have counted together."""

    subject: ClassVar[str] = "qry.projector.get-tenant-totals"
    reply: ClassVar[type[Reply]] = TenantTotals


class ListActivity(Query):
    """What happened last to the tenant's counters, at offsets smaller than `before`, newest first."""

    subject: ClassVar[str] = "qry.projector.list-activity"
    reply: ClassVar[type[Reply]] = ActivityPage

    before: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_SIZE_MAX)] = 50


CounterCommand = IncrementCounter | DecrementCounter | ResetCounter

EVENTS: tuple[type[CounterEvent], ...] = (
    CounterOpened,
    CounterIncremented,
    CounterDecremented,
    CounterReset,
)
COMMANDS: tuple[type[CounterCommand], ...] = (IncrementCounter, DecrementCounter, ResetCounter)
QUERIES: tuple[type[Query], ...] = (
    GetCounter,
    ListCounters,
    GetTenantTotals,
    ListActivity,
    GetCounterHistory,
)
