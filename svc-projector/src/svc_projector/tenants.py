"""The tenant directory: every tenant there is, for operators. Tables, apply, query: one module.

A tenant reads its own row alone; all of them are read by `list_tenants`, which no edge may ask for.
"""

from collections.abc import Iterator, Sequence

from flotilla import LogEvent, StreamId, ViewSession, ViewStore
from flotilla.clock import from_us, to_us
from flotilla_contracts.tenant import (
    SERVICE,
)
from flotilla_contracts.tenant_events import (
    Life,
    MemberAdded,
    MemberRemoved,
    PlanAssigned,
    TenantAbandoned,
    TenantActivated,
    TenantClosed,
    TenantCreated,
    TenantErased,
    TenantRenamed,
    TenantResumed,
    TenantSuspended,
)
from flotilla_contracts.tenant_views import TenantEntry, TenantPage
from svc_projector.tenant_events import Step, fold, read_event

NAME = "tenant-directory"
LIVES: dict[str, Life] = {
    TenantActivated.type: "active",
    TenantResumed.type: "active",
    TenantSuspended.type: "suspended",
    TenantClosed.type: "closed",
    TenantAbandoned.type: "abandoned",
    TenantErased.type: "erased",
}
"""What a tenant is after such an event."""

_SEEN = "update tenant_directory set version = $1 where tenant = $2 and version < $1"
_CREATE = """
insert into tenant_directory (tenant, name, status, plan, members, since_us, version)
values ($1, $2, 'onboarding', $3, 0, $4, $5)
on conflict (tenant) do update set
    name = excluded.name, status = excluded.status, plan = excluded.plan,
    members = excluded.members, since_us = excluded.since_us, version = excluded.version
"""
_RENAME = "update tenant_directory set name = $1 where tenant = $2"
_LIVE = "update tenant_directory set status = $1 where tenant = $2"
_ASSIGN = "update tenant_directory set plan = $1 where tenant = $2"
_COUNT = "update tenant_directory set members = members + $1 where tenant = $2"
_FORGET = "delete from tenant_directory where tenant = $1"
_SEEN_UPTO = "select version from tenant_directory where tenant = $1"
_LIST = """
select tenant, name, status, plan, members, since_us, version from tenant_directory
where tenant > $1 order by tenant limit $2
"""


class TenantDirectory:
    """A row a tenant: what it is called, whether it lives, its plan, and how many belong to it."""

    name = NAME
    log = SERVICE
    staleness_budget_s = 5.0
    tables = (
        """
create table tenant_directory (
    tenant text primary key,
    name text not null,
    status text not null,
    plan text not null,
    members bigint not null,
    since_us bigint not null,
    version bigint not null
)
""",
    )

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Write what each event says, in order; then how far each tenant was seen."""
        await fold(view, batch, _steps, _SEEN)

    async def forget(self, view: ViewSession, tenant: str, _: StreamId | None) -> None:
        """Delete a tenant's row: it is of one stream."""
        await view.execute_many(_FORGET, [(tenant,)])


def _steps(event: LogEvent) -> Iterator[Step]:
    tenant = event.tenant
    match read_event(event):
        case TenantCreated(name=name, plan=plan):
            at_us = to_us(event.recorded_at)
            yield _CREATE, (tenant, name, plan, at_us, event.version)
        case TenantRenamed(name=name):
            yield _RENAME, (name, tenant)
        case PlanAssigned(plan=plan):
            yield _ASSIGN, (plan, tenant)
        case MemberAdded():
            yield _COUNT, (1, tenant)
        case MemberRemoved():
            yield _COUNT, (-1, tenant)
        case _ if event.type in LIVES:
            yield _LIVE, (LIVES[event.type], tenant)
        case _:
            pass


async def seen_of_directory(views: ViewStore, tenant: str) -> int:
    """Return up to which version a tenant was seen; 0 when it was not."""
    rows = await views.fetch_of(tenant, _SEEN_UPTO)
    return int(rows[0][0]) if rows else 0


async def list_tenants(views: ViewStore, *, after: str, limit: int) -> TenantPage:
    """Return up to `limit` of all tenants with ids after `after`: for operators alone."""
    rows = await views.fetch_across(_LIST, after, limit + 1)
    items = tuple(
        TenantEntry(
            tenant_id=tenant,
            name=name,
            status=status,
            plan=plan,
            members=members,
            since=from_us(since_us),
            version=version,
        )
        for tenant, name, status, plan, members, since_us, version in rows[:limit]
    )
    return TenantPage(items=items, next_cursor=items[-1].tenant_id if len(rows) > limit else None)
