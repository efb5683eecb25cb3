"""Quota use: how much of what a plan allows is taken. Tables, apply, query: one module a read model.

Limits are not kept: they are of the plan, and what a plan allows is agreed (`PLAN_LIMITS`).
"""

from collections.abc import Iterator, Sequence

from flotilla import LogEvent, StreamId, ViewSession, ViewStore
from flotilla_contracts.tenant import (
    SERVICE,
)
from flotilla_contracts.tenant_events import (
    MemberAdded,
    MemberInvited,
    MemberRemoved,
    PlanAssigned,
    QuotaConsumed,
    QuotaReleased,
    QuotasReset,
    TenantCreated,
)
from flotilla_contracts.tenant_views import PLAN_LIMITS, QuotaUse, QuotaUsePage
from svc_projector.tenant_events import Step, fold, read_event

NAME = "quota-use"

_SEEN = "update quota_tenant set version = $1 where tenant = $2 and version < $1"
_CREATE = """
insert into quota_tenant (tenant, plan, period, version) values ($1, $2, null, $3)
on conflict (tenant) do update set
    plan = excluded.plan, period = excluded.period, version = excluded.version
"""
_ASSIGN = "update quota_tenant set plan = $1 where tenant = $2"
_BEGIN = "update quota_tenant set period = $1 where tenant = $2"
_SET = """
insert into quota_use (tenant, quota, used) values ($1, $2, $3)
on conflict (tenant, quota) do update set used = excluded.used
"""
_COUNT = """
insert into quota_use (tenant, quota, used) values ($1, $2, $3)
on conflict (tenant, quota) do update set used = quota_use.used + excluded.used
"""
_FORGET = ("delete from quota_use where tenant = $1", "delete from quota_tenant where tenant = $1")
_GET = "select plan, period, version from quota_tenant where tenant = $1"
_USED = "select quota, used from quota_use where tenant = $1"


class QuotaUseView:
    """A row a tenant and quota of which something was taken; plan and day once a tenant."""

    name = NAME
    log = SERVICE
    staleness_budget_s = 5.0
    tables = (
        """
create table quota_use (
    tenant text not null,
    quota text not null,
    used bigint not null,
    primary key (tenant, quota)
);
create table quota_tenant (
    tenant text primary key,
    plan text not null,
    period text,
    version bigint not null
)
""",
    )

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Write what each event says, in order; then how far each tenant was seen."""
        await fold(view, batch, _steps, _SEEN)

    async def forget(self, view: ViewSession, tenant: str, _: StreamId | None) -> None:
        """Delete what a tenant uses: all of it is of one stream."""
        for sql in _FORGET:
            await view.execute_many(sql, [(tenant,)])


def _steps(event: LogEvent) -> Iterator[Step]:
    tenant = event.tenant
    match read_event(event):
        case TenantCreated(plan=plan):
            yield _CREATE, (tenant, plan, event.version)
        case PlanAssigned(plan=plan):
            yield _ASSIGN, (plan, tenant)
        case MemberAdded():
            yield _COUNT, (tenant, "members", 1)
        case MemberRemoved():
            yield _COUNT, (tenant, "members", -1)
        case MemberInvited():
            yield _COUNT, (tenant, "invitations", 1)
        case QuotaConsumed(quota=quota, used=used) | QuotaReleased(quota=quota, used=used):
            yield _SET, (tenant, quota, used)
        case QuotasReset(period=period):
            yield _SET, (tenant, "invitations", 0)
            yield _BEGIN, (period, tenant)
        case _:
            pass


async def seen_of_quotas(views: ViewStore, tenant: str) -> int:
    """Return up to which version a tenant was seen; 0 when it was not."""
    rows = await views.fetch_of(tenant, _GET)
    return int(rows[0][2]) if rows else 0


async def list_quota_use(
    views: ViewStore, tenant: str, *, after: str, limit: int
) -> QuotaUsePage | None:
    """Return up to `limit` of a tenant's quotas with names after `after`; None: no such tenant."""
    rows = await views.fetch_of(tenant, _GET)
    if not rows:
        return None
    plan, period, _ = rows[0]
    used: dict[str, int] = dict(await views.fetch_of(tenant, _USED))
    limits = sorted((quota, most) for quota, most in PLAN_LIMITS[plan].items() if quota > after)
    items = tuple(
        QuotaUse(quota=quota, used=used.get(quota, 0), limit=most) for quota, most in limits[:limit]
    )
    more = items[-1].quota if len(limits) > limit else None
    return QuotaUsePage(plan=plan, period=period, items=items, next_cursor=more)
