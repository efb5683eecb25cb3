"""What is read of tenants across them, or with patience: directory, memberships, quotas, audit.

Read models of the projector. None of them has a personal field: who wants a name or an address asks the
tenant itself (`tenant.ListMembers`). Whether somebody may ask is decided at the edge, before.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar

from pydantic import AwareDatetime, Field

from flotilla_contracts.message import Identifier, Query, Reply
from flotilla_contracts.tenant_events import (
    MEMBERS_MAX,
    PAGE_SIZE_MAX,
    Hash,
    Life,
    Period,
    Plan,
    Quota,
    Role,
    UserId,
)

PLAN_LIMITS: Mapping[Plan, Mapping[Quota, int]] = MappingProxyType(
    {
        "free": {"members": 5, "invitations": 10, "counters": 10},
        "team": {"members": 50, "invitations": 100, "counters": 1_000},
        "business": {"members": MEMBERS_MAX, "invitations": 1_000, "counters": 100_000},
    }
)
"""What each plan allows: `members` and `counters` at a time, `invitations` a day (UTC)."""

PageSize = Annotated[int, Field(ge=1, le=PAGE_SIZE_MAX)]


class TenantEntry(Reply):
    """A tenant, as the directory has it."""

    tenant_id: Identifier
    name: str
    status: Life
    plan: Plan
    members: int
    since: AwareDatetime
    version: int


class TenantPage(Reply):
    """Some of all tenants, by id. `next_cursor` is null on the last page."""

    items: tuple[TenantEntry, ...]
    next_cursor: str | None


class Membership(Reply):
    """A tenant that a user belongs to, what they are there, and whether it lives."""

    tenant_id: Identifier
    tenant_name: str
    role: Role
    status: Life
    since: AwareDatetime


class MembershipPage(Reply):
    """Some of a user's tenants, by id. `next_cursor` is null on the last page."""

    items: tuple[Membership, ...]
    next_cursor: str | None


class QuotaUse(Reply):
    """How much of a quota is taken, of how much."""

    quota: Quota
    used: int
    limit: int


class QuotaUsePage(Reply):
    """Some of a tenant's quotas, by name, and the day that those by the day are counted for."""

    plan: Plan
    period: Period | None
    items: tuple[QuotaUse, ...]
    next_cursor: str | None


class AuditEntry(Reply):
    """One change of a tenant. `hash` continues that of the entry before it (ADR 0028)."""

    number: int
    offset: int
    stream: str
    version: int
    event_id: str
    type: str
    actor_id: str | None
    about: str | None
    recorded_at: AwareDatetime
    hash: Hash


class AuditPage(Reply):
    """Some of what happened to a tenant, the newest first."""

    items: tuple[AuditEntry, ...]
    next_before: int | None
    """Ask for what is before this offset; null: there is no more."""


class AuditHead(Reply):
    """The end of a tenant's chain: who keeps the hash elsewhere can prove what was before it."""

    tenant_id: Identifier
    entries: int
    offset: int
    hash: Hash


class ListTenants(Query):
    """All tenants with ids after `after`, in order of their ids. For operators, and nobody's tenant."""

    subject: ClassVar[str] = "qry.projector.list-tenants"
    reply: ClassVar[type[Reply]] = TenantPage

    after: Identifier | None = None
    limit: PageSize = 50


class ListMemberships(Query):
    """The tenants that one user belongs to, with ids after `after`; the edge asks for who is there."""

    subject: ClassVar[str] = "qry.projector.list-memberships"
    reply: ClassVar[type[Reply]] = MembershipPage

    user_id: UserId
    after: Identifier | None = None
    limit: PageSize = 50


class ListQuotaUse(Query):
    """The tenant's quotas with names after `after`."""

    subject: ClassVar[str] = "qry.projector.list-quota-use"
    reply: ClassVar[type[Reply]] = QuotaUsePage

    after: Identifier | None = None
    limit: PageSize = 50


class ListAudit(Query):
    """What happened to the tenant at offsets smaller than `before`, the newest first."""

    subject: ClassVar[str] = "qry.projector.list-audit"
    reply: ClassVar[type[Reply]] = AuditPage

    before: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = None
    limit: PageSize = 50


class GetAuditHead(Query):
    """Where the tenant's audit chain ends."""

    subject: ClassVar[str] = "qry.projector.get-audit-head"
    reply: ClassVar[type[Reply]] = AuditHead


QUERIES: tuple[type[Query], ...] = (
    ListTenants,
    ListMemberships,
    ListQuotaUse,
    ListAudit,
    GetAuditHead,
)
