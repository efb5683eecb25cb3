"""Tenants, in their own words: who may do what, for whom, and how much of it.

The tenant of a message is the one that it travels for (`Context.tenant`): no command says it again.
Commands carry plain text of people; what happens, and is stored, has it sealed.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from flotilla_contracts.message import Command, Event, Identifier, Query, Reply
from flotilla_contracts.tenant_events import (
    PAGE_SIZE_MAX,
    SEPARATOR,
    Amount,
    ErasureRecorded,
    InvitationId,
    Life,
    Moment,
    Name,
    Period,
    PlainEmail,
    PlainName,
    Plan,
    Quota,
    Role,
    TenantEvent,
    Token,
    UserId,
)

SERVICE = "tenant"


# What is answered.


class TenantReply(Reply):
    """A tenant. `version` counts its events and is its ETag."""

    tenant_id: Identifier
    name: str
    status: Life
    plan: Plan
    members: int
    version: int


class MemberReply(Reply):
    """A member. What was erased, or never given, is null."""

    user_id: UserId
    role: Role
    email: str | None = None
    display_name: str | None = None
    version: int


class MemberRemovedReply(Reply):
    """Somebody is not a member (any more)."""

    user_id: UserId
    version: int


class MembershipReply(Reply):
    """What a user is in a tenant, and whether the tenant lives."""

    tenant_id: Identifier
    user_id: UserId
    role: Role
    status: Life
    version: int


class MemberPage(Reply):
    """Some of a tenant's members, by id. `next_cursor` is null on the last page."""

    items: tuple[MemberReply, ...]
    next_cursor: str | None


class InvitationReply(Reply):
    """An invitation. `token` is answered to who made it, and never again to anybody else."""

    invitation_id: InvitationId
    role: Role
    email: str | None
    expires_at: Moment
    token: str | None = None
    version: int


class InvitationsReply(Reply):
    """The invitations that wait for an answer, the oldest first; `PENDING_INVITATIONS_MAX` at most."""

    items: tuple[InvitationReply, ...]


class QuotaReply(Reply):
    """How much of a quota is taken."""

    quota: Quota
    used: int
    limit: int
    version: int


class QuotasReply(Reply):
    """All quotas of a tenant, and the day that those by the day are counted for."""

    plan: Plan
    period: str | None
    items: tuple[QuotaReply, ...]


class ErasedReply(Reply):
    """What was done: how many keys were destroyed, and where what is left of them remains how long."""

    keys: int
    remains: tuple[str, ...]
    version: int


# What may be asked. `actor_id` is who asks; what roles allow is decided here, not at the edge.


class TenantCommandMessage(Command):
    """Common to all."""

    reply: ClassVar[type[Reply]] = TenantReply

    actor_id: UserId


class CreateTenant(TenantCommandMessage):
    """Begin a tenant, with its owner, on a plan. It is `onboarding` until it is activated."""

    subject: ClassVar[str] = "cmd.tenant.create"

    name: Name
    owner_id: UserId
    owner_email: PlainEmail | None = None
    plan: Plan = "free"


class ActivateTenant(TenantCommandMessage):
    """End onboarding. For workflows."""

    subject: ClassVar[str] = "cmd.tenant.activate"


class AbandonTenant(TenantCommandMessage):
    """Take an onboarding back. For workflows."""

    subject: ClassVar[str] = "cmd.tenant.abandon"


class RenameTenant(TenantCommandMessage):
    """Give it another name. For owners and admins."""

    subject: ClassVar[str] = "cmd.tenant.rename"

    name: Name


class SuspendTenant(TenantCommandMessage):
    """Let nothing change until it is resumed. For owners."""

    subject: ClassVar[str] = "cmd.tenant.suspend"

    reason: PlainName


class ResumeTenant(TenantCommandMessage):
    """Let it go on. For owners."""

    subject: ClassVar[str] = "cmd.tenant.resume"


class CloseTenant(TenantCommandMessage):
    """End it for good. For owners."""

    subject: ClassVar[str] = "cmd.tenant.close"


class AssignPlan(TenantCommandMessage):
    """Change its limits; refused when more is used than the plan allows. For owners."""

    subject: ClassVar[str] = "cmd.tenant.assign-plan"

    plan: Plan


class AddMember(TenantCommandMessage):
    """Let a user belong to it, without an invitation. For workflows."""

    subject: ClassVar[str] = "cmd.tenant.add-member"
    reply: ClassVar[type[Reply]] = MemberReply

    user_id: UserId
    role: Role
    email: PlainEmail | None = None
    display_name: PlainName | None = None


class ChangeRole(TenantCommandMessage):
    """Let a member do something else. For owners; admins between admin and member."""

    subject: ClassVar[str] = "cmd.tenant.change-role"
    reply: ClassVar[type[Reply]] = MemberReply

    user_id: UserId
    role: Role


class RemoveMember(TenantCommandMessage):
    """Let a member go: oneself (to leave), or another for owners and admins."""

    subject: ClassVar[str] = "cmd.tenant.remove-member"
    reply: ClassVar[type[Reply]] = MemberRemovedReply

    user_id: UserId


class InviteMember(TenantCommandMessage):
    """Make an invitation; its token is in the answer, and nowhere else. For owners and admins."""

    subject: ClassVar[str] = "cmd.tenant.invite-member"
    reply: ClassVar[type[Reply]] = InvitationReply

    email: PlainEmail
    role: Role = "member"


class RevokeInvitation(TenantCommandMessage):
    """Make an invitation worthless. For owners and admins."""

    subject: ClassVar[str] = "cmd.tenant.revoke-invitation"

    invitation_id: InvitationId


class AcceptInvitation(TenantCommandMessage):
    """Become a member, by the token of an invitation."""

    subject: ClassVar[str] = "cmd.tenant.accept-invitation"
    reply: ClassVar[type[Reply]] = MemberReply

    token: Token
    email: PlainEmail | None = None
    display_name: PlainName | None = None


class ConsumeQuota(TenantCommandMessage):
    """Take some of a quota, or be refused. For workflows and services."""

    subject: ClassVar[str] = "cmd.tenant.consume-quota"
    reply: ClassVar[type[Reply]] = QuotaReply

    quota: Literal["counters"]
    amount: Amount = 1


class ReleaseQuota(TenantCommandMessage):
    """Give some of a quota back; never more than was taken. For workflows and services."""

    subject: ClassVar[str] = "cmd.tenant.release-quota"
    reply: ClassVar[type[Reply]] = QuotaReply

    quota: Literal["counters"]
    amount: Amount = 1


class ResetQuotas(TenantCommandMessage):
    """Begin to count a day; a day that was begun, or is past, changes nothing. For workflows."""

    subject: ClassVar[str] = "cmd.tenant.reset-quotas"

    period: Period


class EraseMember(TenantCommandMessage):
    """Make the personal data of who is no member unreadable for good. For owners."""

    subject: ClassVar[str] = "cmd.tenant.erase-member"
    reply: ClassVar[type[Reply]] = ErasedReply

    user_id: UserId


class EraseTenant(TenantCommandMessage):
    """Make all personal data of a closed tenant unreadable for good. For owners."""

    subject: ClassVar[str] = "cmd.tenant.erase"
    reply: ClassVar[type[Reply]] = ErasedReply


class GetTenant(Query):
    """The tenant, as it is, for a member of it."""

    subject: ClassVar[str] = "qry.tenant.get"
    reply: ClassVar[type[Reply]] = TenantReply

    actor_id: UserId


class GetMembership(Query):
    """What a user is in the tenant; not found for who is nobody there."""

    subject: ClassVar[str] = "qry.tenant.get-membership"
    reply: ClassVar[type[Reply]] = MembershipReply

    user_id: UserId


class ListMembers(Query):
    """The tenant's members with ids after `after`, in order of their ids, for a member."""

    subject: ClassVar[str] = "qry.tenant.list-members"
    reply: ClassVar[type[Reply]] = MemberPage

    actor_id: UserId
    after: UserId | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_SIZE_MAX)] = 50


class ListInvitations(Query):
    """The invitations that wait, for owners and admins."""

    subject: ClassVar[str] = "qry.tenant.list-invitations"
    reply: ClassVar[type[Reply]] = InvitationsReply

    actor_id: UserId


class GetQuotas(Query):
    """How much of each quota is taken, for a member."""

    subject: ClassVar[str] = "qry.tenant.get-quotas"
    reply: ClassVar[type[Reply]] = QuotasReply

    actor_id: UserId


TenantCommand = (
    CreateTenant
    | ActivateTenant
    | AbandonTenant
    | RenameTenant
    | SuspendTenant
    | ResumeTenant
    | CloseTenant
    | AssignPlan
    | AddMember
    | ChangeRole
    | RemoveMember
    | InviteMember
    | RevokeInvitation
    | AcceptInvitation
    | ConsumeQuota
    | ReleaseQuota
    | ResetQuotas
    | EraseMember
    | EraseTenant
)

TENANT_EVENTS: tuple[type[TenantEvent], ...] = TenantEvent.__args__
"""Those of a tenant's own stream."""
EVENTS: tuple[type[Event], ...] = (*TENANT_EVENTS, ErasureRecorded)
COMMANDS: tuple[type[TenantCommand], ...] = TenantCommand.__args__
QUERIES: tuple[type[Query], ...] = (
    GetTenant,
    GetMembership,
    ListMembers,
    ListInvitations,
    GetQuotas,
)


def token_of(tenant_id: str, invitation_id: str, secret: str) -> str:
    """Return the token of an invitation: it says where it is good, and proves it by its secret."""
    return SEPARATOR.join((tenant_id, invitation_id, secret))


def tenant_of_token(token: str) -> str | None:
    """Return for which tenant a token is meant; None for what is no token."""
    tenant_id, *rest = token.split(SEPARATOR)
    return tenant_id if tenant_id and len(rest) == 2 and all(rest) else None  # noqa: PLR2004 - id, secret
