"""What this service can be asked, over the bus. No rule lives here."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from flotilla import (
    Answer,
    Context,
    Decider,
    Decision,
    Done,
    EventStore,
    Handler,
    Rejected,
    Request,
    StreamId,
    Version,
    stream_id,
)
from flotilla.commands import claim_for, event_metadata, parse
from flotilla_contracts.counter import (
    CounterReply,
    GetCounterHistory,
    HistoryEntry,
    HistoryPage,
)
from flotilla_contracts.errors import ErrorCode
from svc_counter.domain.counter import Command, Counter, Event

AGGREGATE = "counter"


@dataclass(frozen=True, slots=True)
class Counters:
    """All use cases. `settle` makes a decision durable (see `flotilla.lanes`)."""

    decider: Decider[Command, Counter, Event]
    settle: Callable[[StreamId, Decision[Counter, Event]], Awaitable[Done]]
    store: EventStore
    idempotency_ttl_s: int

    def command_handler(self, kind: type[Command]) -> Handler:
        """Return what answers commands of one kind."""

        async def handle(request: Request) -> Answer:
            return await self.answer(parse(kind, request), request)

        return handle

    async def answer(self, command: Command, request: Request) -> Answer:
        """Decide `command`, make what follows durable, and answer with the counter."""
        decision = Decision(
            decide=partial(self.decider.decide, command),
            reply=partial(_reply, command.counter_id),
            metadata=event_metadata(request.context),
            claim=claim_for(request, command, scope=AGGREGATE, ttl_s=self.idempotency_ttl_s),
            expected=request.context.expected_version,
        )
        done = await self.settle(_stream(request.context, command.counter_id), decision)
        return Answer(done.reply, done.version, done.replayed)

    async def history(self, request: Request) -> Answer:
        """Answer with a page of a counter's events, as they were stored."""
        query = parse(GetCounterHistory, request)
        stream = _stream(request.context, query.counter_id)
        events = await self.store.read(stream, after=Version(query.after), limit=query.limit + 1)
        if not events and not await self.store.read(stream, limit=1):
            raise Rejected(f"no counter {query.counter_id}", code=ErrorCode.COUNTER_NOT_FOUND)
        page = events[: query.limit]
        items = tuple(
            HistoryEntry(
                version=event.version,
                type=event.type,
                recorded_at=event.recorded_at,
                data=json.loads(event.payload),
            )
            for event in page
        )
        more = len(events) > len(page)
        reply = HistoryPage(items=items, next_after=page[-1].version if more else None)
        return Answer(reply.model_dump_json().encode())


def _reply(counter_id: str, counter: Counter, version: Version) -> bytes:
    reply = CounterReply(counter_id=counter_id, value=counter.value, version=version)
    return reply.model_dump_json().encode()


def _stream(context: Context, counter_id: str) -> StreamId:
    try:
        return stream_id(context.tenant, AGGREGATE, counter_id)
    except ValueError as error:
        raise Rejected(str(error), code=ErrorCode.TENANT_INVALID) from None
