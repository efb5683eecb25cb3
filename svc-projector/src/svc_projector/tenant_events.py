"""The events of tenants, as their read models read them."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter

from pydantic import TypeAdapter

from flotilla import LogEvent, ViewSession
from flotilla.projection import Row
from flotilla.store import aggregate_of
from flotilla_contracts.message import Event
from flotilla_contracts.tenant import EVENTS

type Step = tuple[str, Row]
"""What is written because of an event: a statement and its parameters."""

_KINDS: dict[str, type[Event]] = {kind.type: kind for kind in EVENTS}


async def fold(
    view: ViewSession,
    batch: Sequence[LogEvent],
    steps_of: Callable[[LogEvent], Iterator[Step]],
    seen: str,
) -> None:
    """Write what the events of tenants lead to, in order, and with `seen` (version, tenant) how far.

    What follows each other and is one statement is one round trip.
    """
    own = [event for event in batch if _is_about_a_tenant(event)]
    steps = [step for event in own for step in steps_of(event)]
    for sql, run in groupby(steps, key=itemgetter(0)):
        await view.execute_many(sql, [row for _, row in run])
    versions = {event.tenant: event.version for event in own}
    await view.execute_many(seen, [(version, of) for of, version in sorted(versions.items())])


def _is_about_a_tenant(event: LogEvent) -> bool:
    """Return whether it is an event of a tenant's own stream; its version is then the tenant's."""
    return aggregate_of(event.stream) == "tenant"


def read_event(event: LogEvent) -> Event | None:
    """Return what an event says; None for one of a type that is not known here.

    Raises `ValidationError` for one that does not say what its type promises.
    """
    kind = _KINDS.get(event.type)
    return None if kind is None else _adapter(kind).validate_json(event.payload)


@cache
def _adapter(kind: type[Event]) -> TypeAdapter[Event]:
    return TypeAdapter(kind)
