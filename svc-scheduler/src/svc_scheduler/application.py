"""What this service can be asked, over the bus. No rule lives here."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice

from flotilla import (
    Answer,
    Decider,
    Decision,
    Done,
    Handler,
    Rejected,
    Request,
    StreamId,
    Version,
    stream_id,
)
from flotilla.aggregate import Claim
from flotilla.commands import claim_for, event_metadata, parse
from flotilla.due import DueStore
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.scheduler import (
    GetSchedule,
    Occurrence,
    OccurrencesReply,
    PreviewOccurrences,
    ScheduleCommand,
    ScheduleReply,
)
from svc_scheduler.domain.occurrences import check, local, occurrences
from svc_scheduler.domain.schedule import Asked, Event, NoSchedule, Schedule

AGGREGATE = "schedule"


@dataclass(frozen=True, slots=True)
class Schedules:
    """All use cases. `settle` makes a decision durable (see `flotilla.lanes`); `due` has the time."""

    decider: Decider[Asked, Schedule, Event]
    settle: Callable[[StreamId, Decision[Schedule, Event]], Awaitable[Done]]
    due: DueStore
    idempotency_ttl_s: int

    def command_handler(self, kind: type[ScheduleCommand]) -> Handler:
        """Return what answers commands of one kind."""

        async def handle(request: Request) -> Answer:
            command, context = parse(kind, request), request.context
            claim = claim_for(request, command, scope=AGGREGATE, ttl_s=self.idempotency_ttl_s)
            stream = schedule_stream(context.tenant, command.schedule_id)
            asked = Asked(stream, await self.now(), command)
            done = await self.tell(
                asked, event_metadata(context), claim=claim, expected=context.expected_version
            )
            return Answer(done.reply, done.version, done.replayed)

        return handle

    async def tell(
        self,
        asked: Asked,
        metadata: dict[str, str],
        *,
        claim: Claim | None = None,
        expected: Version | None = None,
    ) -> Done:
        """Decide what is asked of a schedule and make durable what follows."""
        decision = Decision(
            decide=partial(self.decider.decide, asked),
            reply=partial(_reply, asked.stream),
            metadata=metadata,
            claim=claim,
            expected=expected,
        )
        return await self.settle(asked.stream, decision)

    async def get(self, request: Request) -> Answer:
        """Answer with a schedule as its store has it."""
        query = parse(GetSchedule, request)
        done = await self.look(schedule_stream(request.context.tenant, query.schedule_id))
        if ScheduleReply.model_validate_json(done.reply).status == "deleted":
            raise NoSchedule(f"no schedule {query.schedule_id}")
        return Answer(done.reply, done.version)

    async def look(self, stream: StreamId) -> Done:
        """Return where a schedule stands."""

        def look(_: Schedule) -> Sequence[Event]:
            return ()

        return await self.settle(stream, Decision(look, partial(_reply, stream), {}))

    async def preview(self, request: Request) -> Answer:
        """Answer with the next occurrences of a timing."""
        query = parse(PreviewOccurrences, request)
        check(query)
        after = query.after or await self.now()
        coming = islice(occurrences(query, after=after, grid=after), query.limit)
        items = tuple(Occurrence(at=at, local=local(at, query)) for at in coming)
        return Answer(OccurrencesReply(items=items).model_dump_json().encode())

    async def now(self) -> datetime:
        """Return the store's time."""
        return (await self.due.claim(AGGREGATE, limit=0, lease_s=1.0)).now


def schedule_stream(tenant: str, schedule_id: str) -> StreamId:
    """Return the stream of a tenant's schedule; raises `Rejected` when that can be no tenant."""
    try:
        return stream_id(tenant, AGGREGATE, schedule_id)
    except ValueError as error:
        raise Rejected(str(error), code=ErrorCode.TENANT_INVALID) from None


def _reply(stream: StreamId, schedule: Schedule, version: Version) -> bytes:
    reply = ScheduleReply(
        schedule_id=stream.split("/", 2)[2],
        status=schedule.status,
        terms=schedule.terms,
        next=schedule.next if schedule.status == "active" else None,
        last=schedule.last,
        fired=schedule.fired,
        missed=schedule.missed,
        version=version,
    )
    return reply.model_dump_json().encode()
