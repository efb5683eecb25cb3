"""A tenant as it is remembered: its life, its members, who was invited, and what is used.

One aggregate, so that all of its invariants are one decision (docs/adr/0023-tenants.md); bounded by
its plan, so that it stays small. Personal fields are sealed text here, as they are in its events.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from flotilla_contracts.tenant_events import (
    InvitationAccepted,
    InvitationRevoked,
    Life,
    MemberAdded,
    MemberErased,
    MemberInvited,
    MemberRemoved,
    MemberRoleChanged,
    Moment,
    Plan,
    PlanAssigned,
    Quota,
    QuotaConsumed,
    QuotaReleased,
    QuotasReset,
    Role,
    TenantAbandoned,
    TenantActivated,
    TenantClosed,
    TenantCreated,
    TenantErased,
    TenantEvent,
    TenantRenamed,
    TenantResumed,
    TenantSuspended,
)
from svc_tenant.domain.plans import LIMITS


@dataclass(frozen=True, slots=True)
class Member:
    """What a user is here; `email` and `display_name` are sealed."""

    role: Role
    email: str | None = None
    display_name: str | None = None


@dataclass(frozen=True, slots=True)
class Invitation:
    """Waits for its token; `email` is sealed."""

    role: Role
    email: str
    token_sha256: str
    expires_at: Moment


@dataclass(frozen=True, slots=True)
class Tenant:
    """Just enough to decide, and to answer who belongs to it."""

    status: Life | Literal["none"] = "none"
    name: str = ""
    plan: Plan = "free"
    members: Mapping[str, Member] = field(default_factory=dict)
    invitations: Mapping[str, Invitation] = field(default_factory=dict)
    """Those that were neither accepted nor revoked, by id, the oldest first."""
    invited: int = 0
    """Invitations made since `period` began."""
    counters: int = 0
    period: str | None = None
    erased: frozenset[str] = frozenset()
    """Users whose personal data is gone."""

    def used(self, quota: Quota) -> int:
        """Return how much of `quota` is taken now."""
        match quota:
            case "members":
                return len(self.members)
            case "invitations":
                return self.invited
            case "counters":
                return self.counters
        assert_never(quota)

    def limit(self, quota: Quota) -> int:
        """Return how much of `quota` the plan allows."""
        return LIMITS[self.plan][quota]

    @property
    def owners(self) -> int:
        """Return how many owners there are."""
        return sum(member.role == "owner" for member in self.members.values())


def evolve(tenant: Tenant, event: TenantEvent) -> Tenant:  # noqa: C901, PLR0911, PLR0912 - a case a fact
    """Apply one fact. Never refuses: it already happened."""
    match event:
        case TenantCreated(name=name, plan=plan):
            return replace(tenant, status="onboarding", name=name, plan=plan)
        case TenantActivated() | TenantResumed():
            return replace(tenant, status="active")
        case TenantAbandoned():
            return replace(tenant, status="abandoned")
        case TenantSuspended():
            return replace(tenant, status="suspended")
        case TenantClosed():
            return replace(tenant, status="closed")
        case TenantErased():
            return replace(tenant, status="erased")
        case TenantRenamed(name=name):
            return replace(tenant, name=name)
        case PlanAssigned(plan=plan):
            return replace(tenant, plan=plan)
        case MemberAdded(user_id=user, role=role, email=email, display_name=display_name):
            member = Member(role, email, display_name)
            return replace(tenant, members={**tenant.members, user: member})
        case MemberRoleChanged(user_id=user, role=role):
            member = replace(tenant.members[user], role=role)
            return replace(tenant, members={**tenant.members, user: member})
        case MemberRemoved(user_id=user):
            return replace(tenant, members=_without(tenant.members, user))
        case MemberInvited(invitation_id=name):
            invitation = Invitation(event.role, event.email, event.token_sha256, event.expires_at)
            invitations = {**tenant.invitations, name: invitation}
            return replace(tenant, invitations=invitations, invited=tenant.invited + 1)
        case InvitationAccepted(invitation_id=name) | InvitationRevoked(invitation_id=name):
            return replace(tenant, invitations=_without(tenant.invitations, name))
        case QuotaConsumed(used=used) | QuotaReleased(used=used):
            return replace(tenant, counters=used)
        case QuotasReset(period=period):
            return replace(tenant, period=period, invited=0)
        case MemberErased(user_id=user):
            return replace(tenant, erased=tenant.erased | {user})
    assert_never(event)


def _without[T](items: Mapping[str, T], name: str) -> Mapping[str, T]:
    return {key: item for key, item in items.items() if key != name}
