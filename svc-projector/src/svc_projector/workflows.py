"""The list of workflows: what `flotilla workflows list` shows. Tables, apply, query: one module.

A row an instance. Events that only move its steps change when it last changed, and nothing else; so the
list stays right when a newer version of the workflows writes events that are not known here.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from flotilla import Answer, LogEvent, Rejected, Request, ViewSession, ViewStore
from flotilla.commands import parse
from flotilla.metrics import WORKFLOW_INSTANCES
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.workflow import (
    SERVICE,
    CompensationBegun,
    ListWorkflows,
    WorkflowCancelled,
    WorkflowCompensated,
    WorkflowCompleted,
    WorkflowForked,
    WorkflowPage,
    WorkflowResumed,
    WorkflowRow,
    WorkflowStarted,
    WorkflowStatus,
    WorkflowStuck,
)

NAME = "workflows"
STATUSES = ("running", "compensating", "completed", "compensated", "stuck", "cancelled")
REASON_LENGTH_MAX = 500

_START = """
insert into workflow_instance
    (stream, tenant, workflow, version, key, status, before, reason, started_at, changed_at)
values ($1, $2, $3, $4, $5, 'running', 'running', '', $6, $6)
on conflict (stream) do nothing
"""
_TOUCH = "update workflow_instance set changed_at = $1 where stream = $2"
_MOVE = """
update workflow_instance set status = $1, reason = $2, changed_at = $3 where stream = $4
"""
_UNDO = """
update workflow_instance
set status = 'compensating', before = 'compensating', reason = $1, changed_at = $2
where stream = $3
"""
_RESUME = "update workflow_instance set status = before, changed_at = $1 where stream = $2"
_FORK = """
update workflow_instance
set status = 'running', before = 'running', reason = '', version = $1, changed_at = $2
where stream = $3
"""
_LIST = """
select tenant, stream, workflow, version, key, status, reason, started_at, changed_at
from workflow_instance
where {whose} and ($2 = '' or status = $2) and ($3 = '' or workflow = $3)
  and ($4 = '' or started_at >= $4)
  and ($5 = '' or started_at < $5 or (started_at = $5 and stream > $6))
order by started_at desc, stream
limit $7
"""
_OF_TENANT, _OF_ALL = _LIST.format(whose="tenant = $1"), _LIST.format(whose="$1 = ''")
_COUNT = "select status, count(*) from workflow_instance group by status"


class WorkflowsView:
    """A row an instance, of all tenants."""

    name = NAME
    log = SERVICE
    staleness_budget_s = 5.0
    tables = (
        """
create table workflow_instance (
    stream text primary key,
    tenant text not null,
    workflow text not null,
    version bigint not null,
    key text not null,
    status text not null,
    before text not null,
    reason text not null,
    started_at text not null,
    changed_at text not null
)
""",
        "create index workflow_instance_started on workflow_instance (started_at desc, stream)",
        "create index workflow_instance_tenant on workflow_instance (tenant, started_at desc)",
        "create index workflow_instance_status on workflow_instance (status, started_at desc)",
    )

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Write what changes where instances stand, in order; the last of the rest once a stream."""
        touched: dict[str, str] = {}
        for event in batch:
            if not event.type.startswith("workflow."):
                continue
            change = _change(event)
            if change is None:
                touched[event.stream] = _moment(event)
            else:
                touched.pop(event.stream, None)
                sql, row = change
                await view.execute_many(sql, [row])
        await view.execute_many(_TOUCH, [(at, stream) for stream, at in sorted(touched.items())])


def _moment(event: LogEvent) -> str:
    """Return when it was recorded: of one length, so that texts are ordered as moments are."""
    return event.recorded_at.isoformat(timespec="microseconds")


def _change(event: LogEvent) -> tuple[str, tuple[Any, ...]] | None:  # noqa: PLR0911 - a case an event
    """Return how an event changes where its instance stands; None when it does not."""
    stream, at = event.stream, _moment(event)
    match event.type:
        case WorkflowStarted.type:
            s = WorkflowStarted.model_validate_json(event.payload)
            return _START, (stream, event.tenant, s.name, s.version, s.key, at)
        case WorkflowCompleted.type:
            return _MOVE, ("completed", "", at, stream)
        case WorkflowCompensated.type:
            done = WorkflowCompensated.model_validate_json(event.payload)
            return _MOVE, ("compensated", _short(done.reason), at, stream)
        case WorkflowStuck.type:
            stuck = WorkflowStuck.model_validate_json(event.payload)
            return _MOVE, ("stuck", _short(f"{stuck.step}: {stuck.message}"), at, stream)
        case WorkflowCancelled.type:
            ended = WorkflowCancelled.model_validate_json(event.payload)
            return _MOVE, ("cancelled", _short(ended.reason), at, stream)
        case CompensationBegun.type:
            begun = CompensationBegun.model_validate_json(event.payload)
            return _UNDO, (_short(begun.reason), at, stream)
        case WorkflowResumed.type:
            return _RESUME, (at, stream)
        case WorkflowForked.type:
            forked = WorkflowForked.model_validate_json(event.payload)
            return _FORK, (forked.version, at, stream)
    return None


def _short(text: str) -> str:
    return text if len(text) <= REASON_LENGTH_MAX else text[: REASON_LENGTH_MAX - 1] + "…"


@dataclass(frozen=True, slots=True)
class WorkflowQueries:
    """Answers about all workflows."""

    views: ViewStore

    async def list(self, request: Request) -> Answer:
        """Answer with a page of instances, the last started first."""
        query = parse(ListWorkflows, request)
        started_at, stream = _cursor(query.after) if query.after else ("", "")
        since = (
            query.since.astimezone(UTC).isoformat(timespec="microseconds") if query.since else ""
        )
        asked = (query.status or "", query.workflow or "", since)
        wanted = (*asked, started_at, stream, query.limit + 1)
        if query.every_tenant:  # only operators may ask this query, by policy
            rows = await self.views.fetch_across(_OF_ALL, "", *wanted)
        else:
            rows = await self.views.fetch_of(request.context.tenant, _OF_TENANT, *wanted)
        items = tuple(_row(row) for row in rows[: query.limit])
        last = rows[query.limit - 1] if len(rows) > query.limit else None
        cursor = _cursor_of(str(last[7]), str(last[1])) if last else None
        page = WorkflowPage(items=items, next_cursor=cursor)
        return Answer(page.model_dump_json().encode())


def _row(row: Sequence[Any]) -> WorkflowRow:
    tenant, stream, workflow, version, key, status, reason, started_at, changed_at = row
    return WorkflowRow(
        tenant=tenant,
        instance=stream.split("/", 2)[2],
        workflow=workflow,
        version=version,
        key=key,
        status=cast("WorkflowStatus", status),
        reason=reason,
        started_at=datetime.fromisoformat(started_at),
        changed_at=datetime.fromisoformat(changed_at),
    )


def _cursor_of(started_at: str, stream: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([started_at, stream]).encode()).decode()


def _cursor(text: str) -> tuple[str, str]:
    try:
        started_at, stream = json.loads(base64.urlsafe_b64decode(text))
        return str(started_at), str(stream)
    except ValueError:
        raise Rejected("this is no cursor of ours", code=ErrorCode.CURSOR_INVALID) from None


async def show_counts(views: ViewStore) -> None:
    """Show how many instances stand where: `flotilla_workflow_instances`."""
    rows = await views.fetch_across(_COUNT)  # a metric names no tenant
    found = {str(status): int(count) for status, count in rows}
    for status in STATUSES:
        WORKFLOW_INSTANCES.labels(status).set(found.get(status, 0))
