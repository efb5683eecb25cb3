"""Declarations: all that an owner wants at once, such as the schedules of the workflows that there are.

    all it wanted or wants is remembered ──▶ each is created or changed ──▶ the rest is paused
                                                             ──▶ what it wants is remembered

If this dies anywhere, the same declaration made again does the rest: whoever declares does it at its
start, until it is answered. What is not declared any more is paused, and says so; declared again, it
goes on.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from flotilla import Answer, Decider, Decision, Done, Request, StreamId, Version, stream_id
from flotilla.commands import event_metadata, parse
from flotilla_contracts.scheduler import (
    Declared,
    DeclaredReply,
    DeclareSchedules,
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
        wanted = {declared.schedule_id: declared for declared in command.schedules}
        for declared in wanted.values():
            check(declared)
        stream = stream_id(request.context.tenant, AGGREGATE, command.owner)
        before = await self._before(stream)
        await self._remember(stream, command.owner, before | wanted.keys(), metadata)
        orders: list[tuple[str, Declared | Undeclare]] = [*wanted.items()]
        orders += [(name, Undeclare()) for name in sorted(before - wanted.keys())]
        for name, order in orders:
            asked = Asked(schedule_stream(request.context, name), await self.schedules.now(), order)
            await self.schedules.tell(asked, metadata)
        await self._remember(stream, command.owner, frozenset(wanted), metadata)
        reply = DeclaredReply(declared=len(wanted), paused=len(before - wanted.keys()))
        return Answer(reply.model_dump_json().encode())

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


def _no_reply(_: Ids, __: Version) -> bytes:
    return b""
