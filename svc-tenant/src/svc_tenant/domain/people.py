"""Who belongs to a tenant, and who is invited."""

import hmac
from collections.abc import Sequence
from typing import assert_never

from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.tenant import (
    AcceptInvitation,
    AddMember,
    ChangeRole,
    InviteMember,
    RemoveMember,
    RevokeInvitation,
)
from flotilla_contracts.tenant_events import (
    PENDING_INVITATIONS_MAX,
    SYSTEM,
    InvitationAccepted,
    InvitationRevoked,
    MemberAdded,
    MemberInvited,
    MemberRemoved,
    MemberRoleChanged,
    Role,
    TenantEvent,
)
from svc_tenant.domain.asked import Asked, Who, is_somebody, rejected, within
from svc_tenant.domain.tenant import Tenant


def about_people(
    asked: Asked,
    command: AddMember | ChangeRole | RemoveMember | InviteMember | RevokeInvitation,
    who: Who,
    tenant: Tenant,
) -> Sequence[TenantEvent]:
    """Return what follows from a command about members or invitations."""
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


def _added(
    user: str, role: Role, command: AddMember | AcceptInvitation, tenant: Tenant
) -> MemberAdded:
    is_somebody(user)
    if user in tenant.members:
        raise rejected(ErrorCode.MEMBER_EXISTS, f"{user} is a member already")
    within("members", 1, tenant)
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
    within("invitations", 1, tenant)
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


def accept(asked: Asked, command: AcceptInvitation, tenant: Tenant) -> Sequence[TenantEvent]:
    """Wrong, late, revoked or used: all the same to whoever shows the token."""
    found = tenant.invitations.get(asked.shown_id)
    shown = hmac.compare_digest(found.token_sha256 if found else "", asked.shown_sha256)
    if found is None or not shown or found.expires_at <= asked.at or tenant.status != "active":
        raise rejected(ErrorCode.INVITATION_NOT_FOUND, "there is no such invitation")
    accepted = InvitationAccepted(invitation_id=asked.shown_id, user_id=command.actor_id)
    return [accepted, _added(command.actor_id, found.role, command, tenant)]


def _member_role(user: str, tenant: Tenant) -> Role:
    member = tenant.members.get(user)
    if member is None:
        raise rejected(ErrorCode.MEMBER_NOT_FOUND, f"there is no member {user}")
    return member.role


def _may_touch(who: Who, roles: set[Role]) -> None:
    if who == "admin" and "owner" in roles:
        raise rejected(ErrorCode.ROLE_NOT_ALLOWED, "only owners make, change or remove owners")


def _keeps_an_owner(was: Role, tenant: Tenant) -> None:
    if was == "owner" and tenant.owners == 1:
        raise rejected(ErrorCode.LAST_OWNER, "make another member an owner first")


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
