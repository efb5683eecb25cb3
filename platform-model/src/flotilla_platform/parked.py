"""What projections have parked: read and discarded in their tables, tried again by who runs them.

A retry needs the projection's code, so it is asked for over the bus, a key at a time; whoever runs the
projection folds it. Everything here is safe beside a projector at work (`flotilla.parking`).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from flotilla.bus import Bus, Context, Request
from flotilla.errors import Rejected
from flotilla.parked import NotParked, ParkedEvent, discard, parked_events
from flotilla.parking import StillPoison
from flotilla.projection import ViewStore
from flotilla.stores import open_views
from flotilla_contracts.parked import RetriedReply, RetryParked, retry_subject
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.history import data_of
from flotilla_platform.model import OPERATOR
from flotilla_platform.runtime import Runtime

ALL = 1_000_000
"""As many as may ever be parked of a projection."""
_STORE_TIMEOUT_S = 10.0
_RETRY_TIMEOUT_S = 60.0
_NO_TENANT = "-"


class ParkedRow(BaseModel):
    """One parked event. `error` is empty when it only waits behind an earlier one of its key."""

    model_config = ConfigDict(frozen=True)

    projection: str
    log: str
    offset: int
    key: str
    tenant: str
    stream: str
    version: int
    type: str
    recorded_at: AwareDatetime
    parked_at: AwareDatetime
    tries: int
    error: str


class ParkedDetail(ParkedRow):
    """A parked event with its payload: JSON, or text where it is none."""

    format: Literal[1] = 1
    data: Any


class ParkedList(BaseModel):
    """What `flotilla parked list --json` prints; fields are only added."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    events: tuple[ParkedRow, ...]
    more: bool
    """Whether there are others that the limit held back."""


class RetriedKey(BaseModel):
    """What became of a key that was tried again."""

    model_config = ConfigDict(frozen=True)

    projection: str
    key: str
    folded: int
    """How many events; 0 when it stays parked."""
    error: str | None
    """Why it stays parked; None when it is free."""


class Retried(BaseModel):
    """What `flotilla parked retry --json` prints; fields are only added."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    keys: tuple[RetriedKey, ...]

    @property
    def is_free(self) -> bool:
        """Whether no key stays parked."""
        return all(key.error is None for key in self.keys)


async def read_parked(
    runtime: Runtime, *, projection: str | None, key: str | None, limit: int
) -> ParkedList:
    """Return up to `limit` parked events, by projection and offset."""
    rows = [row_of(parked) for _, parked in await _find(runtime, projection, key, limit=limit + 1)]
    return ParkedList(events=tuple(rows[:limit]), more=len(rows) > limit)


async def read_one(runtime: Runtime, projection: str, offset: int) -> ParkedDetail:
    """Return one parked event. Raises `Failure` (not found) when it is not parked."""
    found = await _find(runtime, projection, None, offset=offset, limit=1)
    if not found:
        raise _nothing(projection, None, offset)
    parked = found[0][1]
    payload = parked.event.payload.decode("utf-8", "backslashreplace")
    return ParkedDetail(**row_of(parked).model_dump(), data=data_of(payload))


async def retry_parked(runtime: Runtime, projection: str, key: str | None) -> Retried:
    """Try a key again, or all of a projection's, one after the other.

    Raises:
        Failure: nothing is parked.
        Unavailable: nobody runs the projection, or it is not known whether a key is free now.

    """
    found = await _find(runtime, projection, key)
    keys = {(service, of.projection, of.key): None for service, of in found}  # ordered as the log
    if not keys:
        raise _nothing(projection, key, None)
    from flotilla.buses.nats import NatsBus  # noqa: PLC0415 - brings FastStream, and only retry asks

    async with NatsBus(runtime.nats_url, name=OPERATOR) as bus:
        return Retried(keys=tuple([await _retry(bus, *which) for which in keys]))


async def _retry(bus: Bus, service: str, projection: str, key: str) -> RetriedKey:
    body = RetryParked(projection=projection, key=key).model_dump_json().encode()
    context = Context(_NO_TENANT, "flotilla-parked", timeout_s=_RETRY_TIMEOUT_S)
    folded, error = 0, None
    try:
        answer = await bus.request(Request(retry_subject(service), body, context))
        folded = RetriedReply.model_validate_json(answer.body).events
    except Rejected as refusal:
        if refusal.code not in {StillPoison.default_code, NotParked.default_code}:
            raise Failure(ExitCode.NOT_FOUND, str(refusal)) from refusal
        if refusal.code == StillPoison.default_code:
            error = str(refusal)
    return RetriedKey(projection=projection, key=key, folded=folded, error=error)


async def discard_parked(
    runtime: Runtime, projection: str, *, key: str | None, offset: int | None, sure: bool
) -> ParkedList:
    """Return what is discarded, or with `sure` false what would be.

    Raises `Failure` when nothing like that is parked, or somebody freed it meanwhile.
    """
    found = await _find(runtime, projection, key, offset=offset or 0)
    if not found:
        raise _nothing(projection, key, offset)
    events = [parked for _, parked in found]
    if sure:
        async with _views(runtime, found[0][0]) as views:
            try:
                await discard(views, events)
            except NotParked as error:
                message = f"{error}: nothing was discarded, look again with `flotilla parked list`"
                raise Failure(ExitCode.NOT_FOUND, message) from error
    return ParkedList(events=tuple(map(row_of, events)), more=False)


def row_of(parked: ParkedEvent) -> ParkedRow:
    """Return a parked event as it is shown."""
    event = parked.event
    return ParkedRow(
        projection=parked.projection,
        log=parked.log,
        offset=event.offset,
        key=parked.key,
        tenant=event.tenant,
        stream=event.stream,
        version=event.version,
        type=event.type,
        recorded_at=event.recorded_at,
        parked_at=parked.parked_at,
        tries=parked.tries,
        error=parked.error,
    )


async def _find(
    runtime: Runtime, projection: str | None, key: str | None, *, offset: int = 0, limit: int = ALL
) -> Sequence[tuple[str, ParkedEvent]]:
    """Return parked events, each with the service that keeps it."""
    found: list[tuple[str, ParkedEvent]] = []
    for service in runtime.views:
        async with _views(runtime, service) as views:
            events = await parked_events(
                views, projection=projection or "", key=key or "", offset=offset, limit=limit
            )
            found += [(service, parked) for parked in events]
    return found[:limit]


@asynccontextmanager
async def _views(runtime: Runtime, service: str) -> AsyncIterator[ViewStore]:
    try:
        async with (
            asyncio.timeout(_STORE_TIMEOUT_S),
            open_views(runtime.stores[service], service=service) as views,
        ):
            yield views
    except TimeoutError as error:
        message = f"the read models of {service!r} did not answer within {_STORE_TIMEOUT_S:g} s"
        raise Failure(ExitCode.SERVER_FAILED, message) from error


def _nothing(projection: str, key: str | None, offset: int | None) -> Failure:
    of = f" of key {key!r}" if key else f" at offset {offset}" if offset else ""
    return Failure(
        ExitCode.NOT_FOUND,
        f"nothing{of} is parked for projection {projection!r}: see `flotilla parked list`",
    )
