"""What the projector answers over the bus, from its views, and waiting for a view to catch up."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from flotilla import Answer, Rejected, Request, ViewStore
from flotilla.commands import parse
from flotilla.partition import partition_of
from flotilla_contracts.counter import (
    CounterReply,
    GetCounter,
    GetTenantTotals,
    ListActivity,
    ListCounters,
)
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.message import IDENTIFIER_PATTERN
from svc_projector.activity import list_activity
from svc_projector.counters import get_counter, list_counters
from svc_projector.projector import Projector
from svc_projector.totals import get_totals
from svc_projector.waiting import until, wait_limit_s

_VERSION = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class CounterQueries:
    """Answers about counters. A request may carry a consistency token: then it waits, bounded."""

    views: ViewStore
    projectors: Sequence[Projector]
    """Those of the counter view's partitions, by number."""
    wait_max_s: float

    async def get(self, request: Request) -> Answer:
        """Answer with one counter."""
        query, tenant = parse(GetCounter, request), request.context.tenant
        await self._wait(request)
        found = await get_counter(self.views, tenant, query.counter_id)
        if found is None:
            raise Rejected(f"no counter {query.counter_id}", code=ErrorCode.COUNTER_NOT_FOUND)
        return Answer(found.model_dump_json().encode(), found.version)

    async def list(self, request: Request) -> Answer:
        """Answer with a page of the tenant's counters."""
        query, tenant = parse(ListCounters, request), request.context.tenant
        await self._wait(request)
        page = await list_counters(self.views, tenant, after=query.after or "", limit=query.limit)
        return Answer(page.model_dump_json().encode())

    async def _wait(self, request: Request) -> None:
        token = request.context.consistency_token
        if token is None:
            return
        counter_id, version = _parse_token(token, request.context.tenant)

        async def caught_up() -> bool:
            found: CounterReply | None = await get_counter(
                self.views, request.context.tenant, counter_id
            )
            return found is not None and found.version >= version

        limit_s = wait_limit_s(request.context, self.wait_max_s)
        stream = token.rpartition("@")[0]
        moved = self.projectors[partition_of(stream, len(self.projectors))].moved
        await until(caught_up, moved, token, limit_s)


async def answer_totals(views: ViewStore, request: Request) -> Answer:
    """Answer with the tenant's totals."""
    parse(GetTenantTotals, request)
    found = await get_totals(views, request.context.tenant)
    return Answer(found.model_dump_json().encode())


async def answer_activity(views: ViewStore, request: Request) -> Answer:
    """Answer with a page of what happened to the tenant's counters."""
    query = parse(ListActivity, request)
    page = await list_activity(
        views, request.context.tenant, before=query.before, limit=query.limit
    )
    return Answer(page.model_dump_json().encode())


def _parse_token(token: str, tenant: str) -> tuple[str, int]:
    """Return (counter id, version) of `<tenant>/counter/<counter id>@<version>`."""
    stream, _, version = token.rpartition("@")
    match stream.split("/"):
        case [owner, "counter", counter_id] if (
            owner == tenant
            and re.fullmatch(IDENTIFIER_PATTERN, counter_id)
            and _VERSION.fullmatch(version)
        ):
            return counter_id, int(version)
    raise Rejected("not a consistency token of this tenant", code="consistency-token-invalid")
