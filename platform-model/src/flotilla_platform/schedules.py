"""The schedules of a running fleet: asked for and told what to do, over its bus."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flotilla.bus import Bus, Context, Request
from flotilla.buses.nats import NatsBus
from flotilla.clock import uuid7
from flotilla.errors import Rejected
from flotilla_contracts.scheduler import (
    PAGE_SIZE_MAX,
    FireSchedule,
    GetSchedule,
    ListSchedules,
    Occurrence,
    OccurrencesReply,
    PauseSchedule,
    PreviewOccurrences,
    ResumeSchedule,
    ScheduleEntry,
    ScheduleErrorCode,
    SchedulePage,
    ScheduleReply,
)
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.model import OPERATOR
from flotilla_platform.runtime import Runtime

COMING = 5
"""How many occurrences `show` tells."""

Verb = Literal["pause", "resume", "fire"]


class ScheduleList(BaseModel):
    """What `flotilla schedules list --json` prints; fields are only added."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    schedules: tuple[ScheduleEntry, ...]
    more: bool
    """Whether there are others that the limit held back."""


class ScheduleDetail(BaseModel):
    """What `flotilla schedules show --json` prints; fields are only added."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    tenant: str
    schedule: ScheduleReply
    coming: tuple[Occurrence, ...]


@dataclass(frozen=True, slots=True)
class Schedules:
    """A tenant's schedules, over a bus."""

    bus: Bus
    tenant: str

    async def read(self, limit: int) -> ScheduleList:
        """Return up to `limit` of them, by id."""
        found: list[ScheduleEntry] = []
        after: str | None = None
        while len(found) < limit:
            query = ListSchedules(after=after, limit=min(PAGE_SIZE_MAX, limit - len(found)))
            body = query.model_dump_json().encode()
            answer = await self.bus.request(Request(ListSchedules.subject, body, self._context()))
            page = SchedulePage.model_validate_json(answer.body)
            found += page.items
            after = page.next_cursor
            if after is None:
                break
        return ScheduleList(schedules=tuple(found), more=after is not None)

    async def look(self, name: str) -> ScheduleDetail:
        """Return one of them, and when it fires next."""
        body = GetSchedule(schedule_id=name).model_dump_json().encode()
        with _told():
            answer = await self.bus.request(Request(GetSchedule.subject, body, self._context()))
        found = ScheduleReply.model_validate_json(answer.body)
        coming: Sequence[Occurrence] = ()
        if found.status == "active" and found.next and found.terms.cron:
            coming = await self._coming(found)
        return ScheduleDetail(tenant=self.tenant, schedule=found, coming=tuple(coming))

    async def tell(self, verb: Verb, name: str) -> ScheduleReply:
        """Tell one of them what to do; return where it stands then."""
        context = self._context(key=str(uuid7()))
        match verb:
            case "pause":
                body = PauseSchedule(schedule_id=name).model_dump_json().encode()
                request = Request(PauseSchedule.subject, body, context)
            case "resume":
                body = ResumeSchedule(schedule_id=name).model_dump_json().encode()
                request = Request(ResumeSchedule.subject, body, context)
            case "fire":
                body = FireSchedule(schedule_id=name).model_dump_json().encode()
                request = Request(FireSchedule.subject, body, context)
        with _told():
            answer = await self.bus.request(request)
        return ScheduleReply.model_validate_json(answer.body)

    async def _coming(self, found: ScheduleReply) -> Sequence[Occurrence]:
        terms = found.terms
        query = PreviewOccurrences(cron=terms.cron, time_zone=terms.time_zone, limit=COMING)
        body = query.model_dump_json().encode()
        answer = await self.bus.request(Request(PreviewOccurrences.subject, body, self._context()))
        return OccurrencesReply.model_validate_json(answer.body).items

    def _context(self, *, key: str | None = None) -> Context:
        return Context(self.tenant, "flotilla-schedules", idempotency_key=key)


@asynccontextmanager
async def schedules_of(runtime: Runtime, tenant: str) -> AsyncIterator[Schedules]:
    """Yield a tenant's schedules in a running fleet."""
    async with NatsBus(runtime.nats_url, name=OPERATOR) as bus:
        yield Schedules(bus, tenant)


@contextmanager
def _told() -> Iterator[None]:
    """Turn a refusal into a status."""
    try:
        yield
    except Rejected as refusal:
        is_missing = refusal.code == ScheduleErrorCode.NOT_FOUND
        code = ExitCode.NOT_FOUND if is_missing else ExitCode.REFUSED
        raise Failure(code, f"{refusal} ({refusal.code})") from refusal
