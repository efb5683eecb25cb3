"""What a tenant allows: to whom, in which life, and within its plan.

Whoever does not belong to a tenant is told what everybody is told of a tenant that does not exist.
"""

from collections.abc import Mapping, Sequence
from typing import assert_never

from flotilla import Decider
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.tenant import (
    AbandonTenant,
    AcceptInvitation,
    ActivateTenant,
    AddMember,
    AssignPlan,
    ChangeRole,
    CloseTenant,
    ConsumeQuota,
    CreateTenant,
    EraseMember,
    EraseTenant,
    InviteMember,
    ReleaseQuota,
    RemoveMember,
    RenameTenant,
    ResetQuotas,
    ResumeTenant,
    RevokeInvitation,
    SuspendTenant,
    TenantCommand,
)
from flotilla_contracts.tenant_events import (
    SYSTEM,
    MemberAdded,
    MemberErased,
    PlanAssigned,
    QuotaConsumed,
    QuotaReleased,
    QuotasReset,
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
from svc_tenant.domain.asked import Asked, Who, is_somebody, not_found, rejected, within
from svc_tenant.domain.people import about_people, accept
from svc_tenant.domain.plans import LIMITS
from svc_tenant.domain.tenant import Tenant, evolve

_WHO_AND_WHEN: tuple[tuple[type[TenantCommand], str, str], ...] = (
    (ActivateTenant, "system", "onboarding active"),
    (AbandonTenant, "system", "onboarding"),
    (RenameTenant, "owner admin", "active"),
    (SuspendTenant, "owner system", "active suspended"),
    (ResumeTenant, "owner system", "active suspended"),
    (CloseTenant, "owner system", "active suspended closed"),
    (AssignPlan, "owner system", "onboarding active"),
    (AddMember, "system", "onboarding active"),
    (ChangeRole, "owner admin", "active"),
    (RemoveMember, "owner admin member system", "onboarding active"),
    (InviteMember, "owner admin system", "active"),
    (RevokeInvitation, "owner admin system", "active"),
    (ConsumeQuota, "system", "onboarding active"),
    (ReleaseQuota, "system", "onboarding active suspended closed"),
    (ResetQuotas, "system", "onboarding active suspended closed erased"),
    (EraseMember, "owner system", "active suspended closed"),
    (EraseTenant, "owner system", "closed erased"),
)
"""Who may ask for it, and while the tenant is what. Creating and accepting have rules of their own."""
_ALLOWED: Mapping[type[TenantCommand], tuple[frozenset[str], frozenset[str]]] = {
    kind: (frozenset(who.split()), frozenset(lives.split())) for kind, who, lives in _WHO_AND_WHEN
}


def decide(asked: Asked, tenant: Tenant) -> Sequence[TenantEvent]:
    """Return what follows from a command; nothing, if it is already true."""
    command = asked.command
    match command:
        case CreateTenant():
            return _create(asked.tenant_id, command, tenant)
        case AcceptInvitation():
            return accept(asked, command, tenant)
        case _:
            pass
    if tenant.status in ("none", "abandoned"):
        if isinstance(command, AbandonTenant) and command.actor_id == SYSTEM:
            # Also what never began is taken back: a create that arrives late finds its id used.
            abandoned = TenantAbandoned(actor_id=SYSTEM)
            return [abandoned] if tenant.status == "none" else []
        raise not_found()
    who = _who(command.actor_id, tenant)
    allowed, lives = _ALLOWED[type(command)]
    if who not in allowed:
        raise rejected(ErrorCode.ROLE_NOT_ALLOWED, f"it takes {_or(allowed)}; you are {who}")
    if tenant.status not in lives:
        code = (
            ErrorCode.TENANT_NOT_CLOSED
            if isinstance(command, EraseTenant)
            else ErrorCode.TENANT_NOT_ACTIVE
        )
        raise rejected(code, f"the tenant is {tenant.status}; it has to be {_or(lives)}")
    match command:
        case AddMember() | ChangeRole() | RemoveMember() | InviteMember() | RevokeInvitation():
            return about_people(asked, command, who, tenant)
        case AssignPlan() | ConsumeQuota() | ReleaseQuota() | ResetQuotas():
            return _quotas(command, tenant)
        case _:
            return _life(command, tenant)


def _who(actor_id: str, tenant: Tenant) -> Who:
    if actor_id == SYSTEM:
        return "system"
    member = tenant.members.get(actor_id)
    if member is None:
        raise not_found()
    return member.role


def _create(tenant_id: str, command: CreateTenant, tenant: Tenant) -> Sequence[TenantEvent]:
    if tenant.status != "none":
        raise rejected(ErrorCode.TENANT_EXISTS, "this id was used before; take another one")
    actor = command.actor_id
    if actor not in (SYSTEM, command.owner_id):
        raise rejected(ErrorCode.ROLE_NOT_ALLOWED, "who begins a tenant owns it")
    is_somebody(command.owner_id)
    created = TenantCreated(
        tenant_id=tenant_id, name=command.name, plan=command.plan, actor_id=actor
    )
    owner = MemberAdded(
        user_id=command.owner_id, role="owner", email=command.owner_email, actor_id=actor
    )
    return [created, owner]


def _life(  # noqa: PLR0911 - a case a command
    command: ActivateTenant
    | AbandonTenant
    | RenameTenant
    | SuspendTenant
    | ResumeTenant
    | CloseTenant
    | EraseMember
    | EraseTenant,
    tenant: Tenant,
) -> Sequence[TenantEvent]:
    actor, status = command.actor_id, tenant.status
    match command:
        case ActivateTenant():
            return [] if status == "active" else [TenantActivated(actor_id=actor)]
        case AbandonTenant():
            return [TenantAbandoned(actor_id=actor)]
        case RenameTenant(name=name):
            renamed = TenantRenamed(name=name, previous_name=tenant.name, actor_id=actor)
            return [] if name == tenant.name else [renamed]
        case SuspendTenant(reason=reason):
            suspended = TenantSuspended(reason=reason, actor_id=actor)
            return [] if status == "suspended" else [suspended]
        case ResumeTenant():
            return [] if status == "active" else [TenantResumed(actor_id=actor)]
        case CloseTenant():
            return [] if status == "closed" else [TenantClosed(actor_id=actor)]
        case EraseMember(user_id=user):
            if user in tenant.members:
                raise rejected(ErrorCode.MEMBER_STAYS, f"{user} is a member: remove them first")
            return [] if user in tenant.erased else [MemberErased(user_id=user, actor_id=actor)]
        case EraseTenant():
            return [] if status == "erased" else [TenantErased(actor_id=actor)]
    assert_never(command)


def _quotas(
    command: AssignPlan | ConsumeQuota | ReleaseQuota | ResetQuotas, tenant: Tenant
) -> Sequence[TenantEvent]:
    actor = command.actor_id
    match command:
        case AssignPlan(plan=plan):
            for quota, limit in LIMITS[plan].items():
                if (used := tenant.used(quota)) > limit:
                    raise rejected(
                        ErrorCode.QUOTA_EXCEEDED, f"{used} {quota} are used; {plan} has {limit}"
                    )
            assigned = PlanAssigned(plan=plan, previous_plan=tenant.plan, actor_id=actor)
            return [] if plan == tenant.plan else [assigned]
        case ConsumeQuota(quota=quota, amount=amount):
            used, limit = within(quota, amount, tenant), tenant.limit(quota)
            consumed = QuotaConsumed(
                quota=quota, amount=amount, used=used, limit=limit, actor_id=actor
            )
            return [consumed]
        case ReleaseQuota(quota=quota):
            amount = min(command.amount, tenant.used(quota))
            if not amount:
                return []
            left = tenant.used(quota) - amount
            released = QuotaReleased(quota=quota, amount=amount, used=left, actor_id=actor)
            return [released]
        case ResetQuotas(period=period):
            begun = tenant.period is not None and period <= tenant.period
            over = tenant.status in ("closed", "erased")
            return [] if begun or over else [QuotasReset(period=period, actor_id=actor)]
    assert_never(command)


def _or(words: frozenset[str]) -> str:
    return " or ".join(sorted(words))


DECIDER: Decider[Asked, Tenant, TenantEvent] = Decider(Tenant(), decide, evolve)
"""The rules of tenants."""
