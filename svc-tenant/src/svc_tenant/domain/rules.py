"""What a tenant allows: to whom, in which life, and within its plan.

Whoever does not belong to a tenant is told what everybody is told of a tenant that does not exist.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from flotilla import Decider, Rejected
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.tenant import (
    PENDING_INVITATIONS_MAX,
    SYSTEM,
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
    InvitationAccepted,
    InvitationRevoked,
    InviteMember,
    MemberAdded,
    MemberErased,
    MemberInvited,
    MemberRemoved,
    MemberRoleChanged,
    Moment,
    PlanAssigned,
    Quota,
    QuotaConsumed,
    QuotaReleased,
    QuotasReset,
    ReleaseQuota,
    RemoveMember,
    RenameTenant,
    ResetQuotas,
    ResumeTenant,
    RevokeInvitation,
    Role,
    SuspendTenant,
    TenantAbandoned,
    TenantActivated,
    TenantClosed,
    TenantCommand,
    TenantCreated,
    TenantErased,
    TenantEvent,
    TenantRenamed,
    TenantResumed,
    TenantSuspended,
)
from svc_tenant.domain.plans import LIMITS
from svc_tenant.domain.tenant import Tenant, evolve


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a new invitation needs from chance and clock, and is the same whenever it is decided."""

    invitation_id: str
    token_sha256: str
    expires_at: Moment


@dataclass(frozen=True, slots=True)
class Asked:
    """A command with sealed personal fields, whose tenant it is about, and when it is asked."""

    command: TenantCommand
    tenant_id: str
    at: Moment
    drawn: Drawn | None = None
    """For `InviteMember`."""
    shown_sha256: str = ""
    """For `AcceptInvitation`: the hash of the token."""
    shown_id: str = ""
    """And the invitation that it names."""


Who = Role | Literal["system"]
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


def rejected(code: ErrorCode, detail: str) -> Rejected:
    """Return a refusal."""
    return Rejected(detail, code=code)


def not_found() -> Rejected:
    """Return the one answer for whoever does not belong, whether the tenant exists or not."""
    return rejected(ErrorCode.TENANT_NOT_FOUND, "there is no such tenant")


def decide(asked: Asked, tenant: Tenant) -> Sequence[TenantEvent]:
    """Return what follows from a command; nothing, if it is already true."""
    command = asked.command
    match command:
        case CreateTenant():
            return _create(asked.tenant_id, command, tenant)
        case AcceptInvitation():
            return _accept(asked, command, tenant)
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
            return _people(asked, command, who, tenant)
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
    _is_somebody(command.owner_id)
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


def _people(
    asked: Asked,
    command: AddMember | ChangeRole | RemoveMember | InviteMember | RevokeInvitation,
    who: Who,
    tenant: Tenant,
) -> Sequence[TenantEvent]:
    match command:
        case AddMember(user_id=user):
            return [_added(user, command.role, command, tenant)]
        case ChangeRole(user_id=user, role=role):
            was = _member_role(user, tenant)
            if was == role:
                return []
            _may_touch(who, {was, role})
            _keeps_an_owner(was, tenant)
            changed = MemberRoleChanged(
                user_id=user, role=role, previous_role=was, actor_id=command.actor_id
            )
            return [changed]
        case RemoveMember():
            return _remove(command, who, tenant)
        case InviteMember():
            _may_touch(who, {command.role})
            return _invite(asked, command, tenant)
        case RevokeInvitation(invitation_id=name):
            if name not in tenant.invitations:
                raise rejected(ErrorCode.INVITATION_NOT_FOUND, "there is no such invitation")
            return [InvitationRevoked(invitation_id=name, actor_id=command.actor_id)]
    assert_never(command)


def _remove(command: RemoveMember, who: Who, tenant: Tenant) -> Sequence[TenantEvent]:
    user, actor = command.user_id, command.actor_id
    if who == "system" and user not in tenant.members:
        return []
    was = _member_role(user, tenant)
    if user != actor:
        if who == "member":
            raise rejected(ErrorCode.ROLE_NOT_ALLOWED, "members can only leave themselves")
        _may_touch(who, {was})
    _keeps_an_owner(was, tenant)
    return [MemberRemoved(user_id=user, role=was, actor_id=actor)]


def _added(
    user: str, role: Role, command: AddMember | AcceptInvitation, tenant: Tenant
) -> MemberAdded:
    _is_somebody(user)
    if user in tenant.members:
        raise rejected(ErrorCode.MEMBER_EXISTS, f"{user} is a member already")
    _within("members", 1, tenant)
    return MemberAdded(
        user_id=user,
        role=role,
        email=command.email,
        display_name=command.display_name,
        actor_id=command.actor_id,
    )


def _invite(asked: Asked, command: InviteMember, tenant: Tenant) -> Sequence[TenantEvent]:
    assert asked.drawn is not None, "whoever asks to invite has drawn a token"  # noqa: S101 - a contract
    late = [name for name, kept in tenant.invitations.items() if kept.expires_at <= asked.at]
    if len(tenant.invitations) - len(late) >= PENDING_INVITATIONS_MAX:
        raise rejected(
            ErrorCode.INVITATIONS_TOO_MANY,
            f"{PENDING_INVITATIONS_MAX} invitations wait for an answer: revoke some",
        )
    _within("invitations", 1, tenant)
    gone = [InvitationRevoked(invitation_id=name, actor_id=SYSTEM) for name in late]
    invited = MemberInvited(
        invitation_id=asked.drawn.invitation_id,
        role=command.role,
        email=command.email,
        token_sha256=asked.drawn.token_sha256,
        expires_at=asked.drawn.expires_at,
        actor_id=command.actor_id,
    )
    return [*gone, invited]


def _accept(asked: Asked, command: AcceptInvitation, tenant: Tenant) -> Sequence[TenantEvent]:
    """Wrong, late, revoked or used: all the same to whoever shows the token."""
    found = tenant.invitations.get(asked.shown_id)
    shown = hmac.compare_digest(found.token_sha256 if found else "", asked.shown_sha256)
    if found is None or not shown or found.expires_at <= asked.at or tenant.status != "active":
        raise rejected(ErrorCode.INVITATION_NOT_FOUND, "there is no such invitation")
    accepted = InvitationAccepted(invitation_id=asked.shown_id, user_id=command.actor_id)
    return [accepted, _added(command.actor_id, found.role, command, tenant)]


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
            used, limit = _within(quota, amount, tenant), tenant.limit(quota)
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


def _within(quota: Quota, amount: int, tenant: Tenant) -> int:
    """Return how much is used with `amount` more; refuse what the plan does not allow."""
    used, limit = tenant.used(quota) + amount, tenant.limit(quota)
    if used > limit:
        raise rejected(
            ErrorCode.QUOTA_EXCEEDED, f"{tenant.plan} has {limit} {quota}; it would be {used}"
        )
    return used


def _member_role(user: str, tenant: Tenant) -> Role:
    member = tenant.members.get(user)
    if member is None:
        raise rejected(ErrorCode.MEMBER_NOT_FOUND, f"there is no member {user}")
    return member.role


def _is_somebody(user: str) -> None:
    if user == SYSTEM:
        raise rejected(
            ErrorCode.USER_INVALID, f"`{SYSTEM}` is the name of workflows, not of a user"
        )


def _may_touch(who: Who, roles: set[Role]) -> None:
    if who == "admin" and "owner" in roles:
        raise rejected(ErrorCode.ROLE_NOT_ALLOWED, "only owners make, change or remove owners")


def _keeps_an_owner(was: Role, tenant: Tenant) -> None:
    if was == "owner" and tenant.owners == 1:
        raise rejected(ErrorCode.LAST_OWNER, "make another member an owner first")


def _or(words: frozenset[str]) -> str:
    return " or ".join(sorted(words))


DECIDER: Decider[Asked, Tenant, TenantEvent] = Decider(Tenant(), decide, evolve)
"""The rules of tenants."""
