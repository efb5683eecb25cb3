"""What happened in one stream of a running fleet: all of it, up to a moment, or between two versions.

Read from the store of the service whose log has the stream, page by page, so that a long stream costs
time and not memory. Events are shown as they are stored: nothing is decoded, and no event type has to
be known. Where a stream stands is looked up once, first; what is appended meanwhile is not shown.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from flotilla.errors import KernelError
from flotilla.store import EMPTY, EventStore, RecordedEvent, StreamId, Version
from flotilla.stores import open_store
from flotilla_platform.asking import Between, Wanted
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.runtime import Runtime

PAGE_EVENTS_MAX = 1000
_STORE_TIMEOUT_S = 5.0
_UNREADABLE = (KernelError, OSError, KeyError, ValueError)


class EventRow(BaseModel):
    """One stored event. The JSON of it is stable: fields are only added."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["event"] = "event"
    stream: str
    version: int
    recorded_at: AwareDatetime
    type: str
    event_id: str
    correlation: str | None
    """The conversation it belongs to."""
    causation: str | None
    """The message that caused it."""
    data: Any
    """Its payload."""


class Standing(BaseModel):
    """Where a stream stood at a moment, and where it stands now."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["standing"] = "standing"
    stream: str
    service: str
    version: int
    """0 when it had no events yet."""
    at: AwareDatetime | None
    """When its last event then was recorded; None when there was none."""
    type: str | None
    """What that event was."""
    head: int
    """The version of its newest event."""


class FieldChange(BaseModel):
    """A payload field that several events carry: what it was first, and what it was last."""

    model_config = ConfigDict(frozen=True)

    field: str
    events: int
    first_version: int
    first: Any
    last_version: int
    last: Any


class Changes(BaseModel):
    """What happened to the fields of a stream's payloads from one version to another."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["changes"] = "changes"
    stream: str
    from_version: int
    to_version: int
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True)
class History:
    """What was asked for: events, and where the stream stood or what changed."""

    events: tuple[EventRow, ...]
    more: int = 0
    """Events after these that the limit held back."""
    standing: Standing | None = None
    """Where the stream stood at the moment asked for."""
    changes: Changes | None = None
    """What changed between the versions asked for."""

    def lines(self) -> Iterator[str]:
        """Return what `--json` prints; `kind` tells the documents apart.

        All of it is ASCII, so that no terminal, and no half of a surrogate pair, is in the way.
        """
        for document in filter(None, (*self.events, self.changes, self.standing)):
            yield json.dumps(document.model_dump(mode="json"), separators=(",", ":"))


async def read_history(runtime: Runtime, wanted: Wanted) -> History:
    """Return what was asked for.

    Raises:
        Failure: no log has the stream, it has no such version, or a store cannot be read.

    """
    try:
        async with _find(runtime, wanted) as (service, store, head):
            _check_versions(wanted, head)
            return await _read_history(service, store, head, wanted)
    except TimeoutError as error:
        message = f"the store did not answer within {_STORE_TIMEOUT_S:g} s: try again"
        raise Failure(ExitCode.SERVER_FAILED, message) from error


async def _read_history(service: str, store: EventStore, head: Version, wanted: Wanted) -> History:
    if isinstance(wanted.moment, Between):
        first, last = wanted.moment.first, wanted.moment.last
        found = await _read(store, wanted.stream, Version(first - 1), last - first + 1)
        rows = tuple(map(row_of, found))
        return History(rows, changes=changes_of(rows))
    then = await _last_by(store, wanted, head)
    end = then.version if then else EMPTY
    shown = max(0, min(wanted.limit, end - wanted.after))
    found = await _read(store, wanted.stream, wanted.after, shown)
    standing = Standing(
        stream=wanted.stream,
        service=service,
        version=end,
        at=then.recorded_at if then else None,
        type=then.type if then else None,
        head=head,
    )
    return History(
        tuple(map(row_of, found)),
        more=max(0, end - wanted.after - shown),
        standing=None if wanted.moment is None else standing,
    )


def row_of(event: RecordedEvent) -> EventRow:
    """Return a stored event as it is shown."""
    return EventRow(
        stream=event.stream,
        version=event.version,
        recorded_at=event.recorded_at,
        type=event.type,
        event_id=event.event_id,
        correlation=event.metadata.get("correlation"),
        causation=event.metadata.get("causation"),
        data=data_of(event.payload),
    )


def data_of(payload: str) -> Any:
    """Return what a payload says; one that is no JSON is shown as text."""
    try:
        return json.loads(payload, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return payload


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number in JSON")
    return number


def changes_of(rows: Sequence[EventRow]) -> Changes:
    """Return the first and last value of every field that at least two of `rows` carry.

    `rows` are of one stream, in order, and not empty. Fields are in the order of their first event.
    """
    carriers: dict[str, list[EventRow]] = {}
    for row in rows:
        for field in row.data if isinstance(row.data, dict) else ():
            carriers.setdefault(field, []).append(row)
    return Changes(
        stream=rows[0].stream,
        from_version=rows[0].version,
        to_version=rows[-1].version,
        fields=tuple(
            FieldChange(
                field=field,
                events=len(events),
                first_version=events[0].version,
                first=events[0].data[field],
                last_version=events[-1].version,
                last=events[-1].data[field],
            )
            for field, events in carriers.items()
            if len(events) > 1
        ),
    )


@asynccontextmanager
async def _find(runtime: Runtime, wanted: Wanted) -> AsyncIterator[tuple[str, EventStore, Version]]:
    """Yield the service that has the stream, its store, and where the stream stands.

    A store that cannot be read is passed over; only when no other has the stream does it matter.
    """
    unreadable: list[str] = []
    candidates = _candidates(runtime, wanted.service)
    async with AsyncExitStack() as stack:
        for service in candidates:
            try:
                async with asyncio.timeout(_STORE_TIMEOUT_S):
                    opened = open_store(runtime.stores[service], service=service, migrate=False)
                    store = await stack.enter_async_context(opened)
                    head = await _head(store, wanted.stream)
            except _UNREADABLE as error:
                why = error if str(error) else type(error).__name__
                unreadable.append(f"the store of {service!r} cannot be read: {why}")
                continue
            if head:
                yield service, store, head
                return
    if unreadable:
        raise Failure(ExitCode.SERVER_FAILED, "; ".join(unreadable))
    raise Failure(
        ExitCode.NOT_FOUND,
        f"there is no stream {wanted.stream!r} (logs asked: {', '.join(candidates) or 'none'}): "
        "check the tenant, the aggregate and the key, capitals included",
    )


def _candidates(runtime: Runtime, service: str | None) -> tuple[str, ...]:
    if service is None:
        return runtime.logs
    if service not in runtime.logs:
        known = ", ".join(runtime.logs) or "nobody"
        raise Failure(
            ExitCode.USAGE,
            f"no service {service!r} publishes a log here: --service is one of {known}",
        )
    return (service,)


def _check_versions(wanted: Wanted, head: Version) -> None:
    """Refuse versions that the stream does not have yet, naming the option that asked for them."""
    asked: dict[str, int] = {"--after": wanted.after}
    match wanted.moment:
        case Between(_, last):
            asked["--diff"] = last
        case int(version):
            asked["--at-version"] = version
    for option, version in asked.items():
        if version > head:
            raise Failure(
                ExitCode.NOT_FOUND,
                f"{wanted.stream} has no version {version}: it stands at {head}, "
                f"so give {option} at most that",
            )


async def _last_by(store: EventStore, wanted: Wanted, head: Version) -> RecordedEvent | None:
    """Return the last event that had happened by the moment asked for; None before the first.

    For a time that is the one before the first event that was recorded later. Versions rule: should
    a clock have gone back, an event still did not happen before its predecessor.
    """
    moment = wanted.moment
    if not isinstance(moment, datetime):
        end = moment if isinstance(moment, int) else head
        return (await _read(store, wanted.stream, Version(end - 1), 1))[-1]
    last: RecordedEvent | None = None
    while (after := last.version if last else EMPTY) < head:
        for event in await _read(store, wanted.stream, after, min(PAGE_EVENTS_MAX, head - after)):
            if event.recorded_at > moment:
                return last
            last = event
    return last


async def _head(store: EventStore, stream: StreamId) -> Version:
    """Return the version of a stream's newest event, in about 2·log₂ of it small reads.

    Versions are dense: there is an event after `n` if and only if the stream is longer than `n`.
    """
    low, step = 0, 1
    while await _read(store, stream, Version(low + step - 1), 1):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        if await _read(store, stream, Version(middle - 1), 1):
            low = middle
        else:
            high = middle
    return Version(low)


async def _read(
    store: EventStore, stream: StreamId, after: Version, count: int
) -> list[RecordedEvent]:
    """Return `count` events after a version, fewer when there are not as many."""
    events: list[RecordedEvent] = []
    while len(events) < count:
        since = events[-1].version if events else after
        limit = min(PAGE_EVENTS_MAX, count - len(events))
        async with asyncio.timeout(_STORE_TIMEOUT_S):
            page = await store.read(stream, after=since, limit=limit)
        if not page:
            break
        events += page
    return events
