"""Declarations: all that an owner wants at once, such as the schedules of the workflows that there are.

    all it wanted or wants is remembered ──▶ each is created or changed ──▶ the rest is paused
                                                             ──▶ what it wants is remembered

If this dies anywhere, the same declaration made again does the rest: whoever declares does it at its
start, until it is answered. What is not declared any more is paused, and says so; declared again, it
goes on.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from flotilla import (
    Answer,
    Decider,
    Decision,
    Done,
    Rejected,
    Request,
    StreamId,
    Version,
    stream_id,
)
from flotilla.commands import event_metadata, parse
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.scheduler import (
    Declared,
    DeclaredReply,
    DeclareSchedules,
    ScheduleErrorCode,
    SchedulesDeclared,
)
from svc_scheduler.application import Schedules, schedule_stream
from svc_scheduler.domain.occurrences import check
from svc_scheduler.domain.schedule import Asked, Undeclare

AGGREGATE = "declaration"

Ids = frozenset[str]
Declaring = Decider[SchedulesDeclared, Ids, SchedulesDeclared]


def decider() -> Declaring:
    """Return the rules: what was declared last counts."""

    def decide(declared: SchedulesDeclared, ids: Ids) -> Sequence[SchedulesDeclared]:
        return [] if ids == frozenset(declared.schedule_ids) else [declared]

    return Decider(frozenset(), decide, lambda _, event: frozenset(event.schedule_ids))


@dataclass(frozen=True, slots=True)
class Declarations:
    """`remember` makes durable what an owner wants."""

    schedules: Schedules
    remember: Callable[[StreamId, Decision[Ids, SchedulesDeclared]], Awaitable[Done]]

    async def declare(self, request: Request) -> Answer:
        """Answer when everything is as declared."""
        command, metadata = parse(DeclareSchedules, request), event_metadata(request.context)
        reply = await self.apply(request.context.tenant, command, metadata)
        return Answer(reply.model_dump_json().encode())

    async def apply(
        self, tenant: str, command: DeclareSchedules, metadata: dict[str, str]
    ) -> DeclaredReply:
        """Return when everything is as declared; refuses all of it when a timing cannot be meant."""
        wanted = {declared.schedule_id: declared for declared in command.schedules}
        for declared in wanted.values():
            check(declared)
        stream = declaration_stream(tenant, command.owner)
        before = await self._before(stream)
        await self._remember(stream, command.owner, before | wanted.keys(), metadata)
        orders: list[tuple[str, Declared | Undeclare]] = [*wanted.items()]
        orders += [(name, Undeclare()) for name in sorted(before - wanted.keys())]
        for name, order in orders:
            asked = Asked(schedule_stream(tenant, name), await self.schedules.now(), order)
            await self.schedules.tell(asked, metadata)
        await self._remember(stream, command.owner, frozenset(wanted), metadata)
        return DeclaredReply(declared=len(wanted), paused=len(before - wanted.keys()))

    async def _before(self, stream: StreamId) -> Ids:
        """Return what its owner wanted so far."""
        found: list[Ids] = []

        def look(ids: Ids) -> Sequence[SchedulesDeclared]:
            found.append(ids)
            return ()

        await self.remember(stream, Decision(look, _no_reply, {}))
        return found[-1]

    async def _remember(
        self, stream: StreamId, owner: str, ids: Ids, metadata: dict[str, str]
    ) -> None:
        declared = SchedulesDeclared(owner=owner, schedule_ids=tuple(sorted(ids)))
        rules = decider()
        await self.remember(
            stream, Decision(lambda known: rules.decide(declared, known), _no_reply, metadata)
        )


def of_workflows(documents: Mapping[str, Any]) -> DeclareSchedules:
    """Return what the workflows of the model want: a schedule for each that has times.

    Raises:
        Rejected: the times of one are none; says whose.

    """
    wanted: list[Declared] = []
    for where, document in sorted(documents.items()):
        trigger = document.get("trigger") if isinstance(document, Mapping) else None
        times = trigger.get("schedule") if isinstance(trigger, Mapping) else None
        if times is None:
            continue
        try:
            wanted.append(Declared(schedule_id=f"workflow.{document['name']}", **times))
            check(wanted[-1])
        except (Rejected, ValidationError, KeyError, TypeError) as error:
            said = f"{where}: the schedule of this workflow: {error}"
            raise Rejected(said, code=ScheduleErrorCode.TIMING_INVALID) from error
    return DeclareSchedules(owner="workflows", schedules=tuple(wanted))


def declaration_stream(tenant: str, owner: str) -> StreamId:
    """Return the stream of what an owner wants; raises `Rejected` when that can be no tenant."""
    try:
        return stream_id(tenant, AGGREGATE, owner)
    except ValueError as error:
        raise Rejected(str(error), code=ErrorCode.TENANT_INVALID) from None


def _no_reply(_: Ids, __: Version) -> bytes:
    return b""
