"""What `flotilla events` was asked for, checked before anything is opened. Pure: text in, value out."""

import re
from dataclasses import dataclass
from datetime import datetime

from flotilla.store import StreamId, Version, stream_id
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.limits import EVENTS_MAX, LIMIT_EVENTS

_SPAN = re.compile(r"([0-9]{1,16})\.\.([0-9]{1,16})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Between:
    """Two versions of a stream, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stream, which part of it, and as of when: now, a version, a moment, or between versions."""

    stream: StreamId
    service: str | None = None
    after: Version = Version(0)  # noqa: RUF009 - a NewType call is the number itself
    limit: int = LIMIT_EVENTS
    moment: int | datetime | Between | None = None


def understand(
    stream: str,
    *,
    service: str | None = None,
    after: int | None = None,
    limit: int | None = None,
    at_version: int | None = None,
    at_time: str | None = None,
    diff: str | None = None,
) -> Wanted:
    """Return what is wanted.

    Raises:
        Failure: something cannot be read, or two options say different things (`USAGE`).

    """
    moments = {"--at-version": at_version, "--at-time": at_time, "--diff": diff}
    given = [name for name, value in moments.items() if value is not None]
    if len(given) > 1:
        raise _usage(f"{' and '.join(given)} are different questions: ask one of them")
    if diff is not None and not (after is None and limit is None):
        raise _usage("--diff names its events itself: leave out --after and --limit")
    found = as_stream(stream)
    if diff is not None:
        span = _between(diff)
        return Wanted(found, service, limit=span.last - span.first + 1, moment=span)
    return Wanted(
        found,
        service,
        after=Version(after or 0),
        limit=LIMIT_EVENTS if limit is None else limit,
        moment=as_moment("--at-time", at_time) if at_time is not None else at_version,
    )


def as_stream(text: str) -> StreamId:
    """Return the stream that is meant; raises `Failure` when it is none."""
    try:
        text.encode()
        tenant, aggregate, key = text.split("/")
        return stream_id(tenant, aggregate, key)
    except ValueError as error:
        raise _usage(
            f"{text!r} is no stream: write <tenant>/<aggregate>/<key>, such as acme/counter/visits"
        ) from error


def _between(text: str) -> Between:
    match = _SPAN.fullmatch(text)
    first, last = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= last:
        raise _usage(f"--diff {text!r} is no span: write two versions, as in 3..7 (1 is the first)")
    if last - first >= EVENTS_MAX:
        raise _usage(f"--diff {text!r} is more than {EVENTS_MAX} events: ask for fewer")
    return Between(first, last)


def as_moment(option: str, text: str) -> datetime:
    """Return the moment that `option` names; raises `Failure` when it is none."""
    example = "write ISO 8601 with a time zone, as in 2026-05-17T12:00:00Z"
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise _usage(f"{option} {text!r} says no time zone, and so no moment: {example}")
        moment.timestamp()
    except (ValueError, OverflowError) as error:
        raise _usage(f"{option} {text!r} is no time: {example}") from error
    return moment


def _usage(message: str) -> Failure:
    return Failure(ExitCode.USAGE, message)
