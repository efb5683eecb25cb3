"""Memberships by user: which tenants somebody belongs to, and as what. One module a read model.

It mixes tenants by design, and so it can only be asked for one user (`list_memberships`), across
tenants, in SQL that has the user in it: there is no other query. Whoever asks for somebody has to be
them, or to be a service that acts for them; the edge decides that, by its own authentication.
"""

from collections.abc import Iterator, Sequence

from flotilla import LogEvent, StreamId, ViewSession, ViewStore
from flotilla.clock import from_us, to_us
from flotilla_contracts.tenant import (
    SERVICE,
)
from flotilla_contracts.tenant_events import (
    MemberAdded,
    MemberRemoved,
    MemberRoleChanged,
    TenantCreated,
    TenantRenamed,
)
from flotilla_contracts.tenant_views import Membership, MembershipPage
from svc_projector.tenant_events import Step, fold, read_event
from svc_projector.tenants import LIVES

NAME = "memberships"

_SEEN = "update membership_tenant set version = $1 where tenant = $2 and version < $1"
_CREATE = """
insert into membership_tenant (tenant, name, status, version) values ($1, $2, 'onboarding', $3)
on conflict (tenant) do update set
    name = excluded.name, status = excluded.status, version = excluded.version
"""
_RENAME = "update membership_tenant set name = $1 where tenant = $2"
_LIVE = "update membership_tenant set status = $1 where tenant = $2"
_ADD = """
insert into membership (user_id, tenant, role, since_us) values ($1, $2, $3, $4)
on conflict (user_id, tenant) do update set role = excluded.role, since_us = excluded.since_us
"""
_CHANGE = "update membership set role = $1 where user_id = $2 and tenant = $3"
_REMOVE = "delete from membership where user_id = $1 and tenant = $2"
_FORGET = (
    "delete from membership where tenant = $1",
    "delete from membership_tenant where tenant = $1",
)
_SEEN_UPTO = "select version from membership_tenant where tenant = $1"
_LIST = """
select m.tenant, t.name, m.role, t.status, m.since_us
from membership m join membership_tenant t on t.tenant = m.tenant
where m.user_id = $1 and m.tenant > $2 order by m.tenant limit $3
"""


class Memberships:
    """A row a user and tenant; what a tenant is called, and whether it lives, once a tenant."""

    name = NAME
    log = SERVICE
    staleness_budget_s = 5.0
    tables = (
        """
create table membership (
    user_id text not null,
    tenant text not null,
    role text not null,
    since_us bigint not null,
    primary key (user_id, tenant)
);
create index membership_of_tenant on membership (tenant);
create table membership_tenant (
    tenant text primary key,
    name text not null,
    status text not null,
    version bigint not null
)
""",
    )

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Write what each event says, in order; then how far each tenant was seen."""
        await fold(view, batch, _steps, _SEEN)

    async def forget(self, view: ViewSession, tenant: str, _: StreamId | None) -> None:
        """Delete who belongs to a tenant: all of it is of one stream."""
        for sql in _FORGET:
            await view.execute_many(sql, [(tenant,)])


def _steps(event: LogEvent) -> Iterator[Step]:
    tenant = event.tenant
    match read_event(event):
        case TenantCreated(name=name):
            yield _CREATE, (tenant, name, event.version)
        case TenantRenamed(name=name):
            yield _RENAME, (name, tenant)
        case MemberAdded(user_id=user, role=role):
            at_us = to_us(event.recorded_at)
            yield _ADD, (user, tenant, role, at_us)
        case MemberRoleChanged(user_id=user, role=role):
            yield _CHANGE, (role, user, tenant)
        case MemberRemoved(user_id=user):
            yield _REMOVE, (user, tenant)
        case _ if event.type in LIVES:
            yield _LIVE, (LIVES[event.type], tenant)
        case _:
            pass


async def seen_of_memberships(views: ViewStore, tenant: str) -> int:
    """Return up to which version a tenant was seen; 0 when it was not."""
    rows = await views.fetch_of(tenant, _SEEN_UPTO)
    return int(rows[0][0]) if rows else 0


async def list_memberships(
    views: ViewStore, user_id: str, *, after: str, limit: int
) -> MembershipPage:
    """Return up to `limit` of one user's tenants with ids after `after`.

    Across tenants, since a user is in many; and of this user alone.
    """
    rows = await views.fetch_across(_LIST, user_id, after, limit + 1)
    items = tuple(
        Membership(
            tenant_id=tenant, tenant_name=name, role=role, status=status, since=from_us(since_us)
        )
        for tenant, name, role, status, since_us in rows[:limit]
    )
    return MembershipPage(
        items=items, next_cursor=items[-1].tenant_id if len(rows) > limit else None
    )
