"""What is answered to whom: replies as they are stored, with sealed text, and as they are told."""

from dataclasses import dataclass

from flotilla import Answer, Version
from flotilla.privacy import Vault
from flotilla_contracts.message import Reply
from flotilla_contracts.tenant import (
    AcceptInvitation,
    AddMember,
    ChangeRole,
    ConsumeQuota,
    ErasedReply,
    EraseMember,
    EraseTenant,
    InvitationReply,
    InviteMember,
    MemberRemovedReply,
    MemberReply,
    QuotaReply,
    ReleaseQuota,
    RemoveMember,
    TenantReply,
)
from flotilla_contracts.tenant_events import (
    Quota,
)
from svc_tenant.domain.asked import Asked
from svc_tenant.domain.tenant import Tenant

_SEALED = ("email", "display_name", "token")


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens what is sealed in a reply; what was erased is null."""

    vault: Vault

    async def tell[R: Reply](self, tenant: str, reply: R) -> R:
        """Return `reply` as it is told."""
        sealed = {name: getattr(reply, name, None) for name in _SEALED}
        opened = {
            name: await self.vault.open(tenant, text) for name, text in sealed.items() if text
        }
        return reply.model_copy(update=opened)


def answer(reply: Reply, version: Version | None = None, *, replayed: bool = False) -> Answer:
    """Return `reply` as it goes over the bus."""
    return Answer(reply.model_dump_json().encode(), version, replayed)


def reply_to(asked: Asked, sealed_token: str | None, tenant: Tenant, version: Version) -> bytes:
    """Return what a command is answered once it is durable, with sealed text."""
    return _reply(asked, sealed_token, tenant, version).model_dump_json().encode()


def _reply(asked: Asked, sealed_token: str | None, tenant: Tenant, version: Version) -> Reply:  # noqa: PLR0911 - a case a command
    match asked.command:
        case AddMember(user_id=user) | ChangeRole(user_id=user):
            return member_reply(user, tenant, version)
        case AcceptInvitation(actor_id=user):
            return member_reply(user, tenant, version)
        case RemoveMember(user_id=user):
            return MemberRemovedReply(user_id=user, version=version)
        case InviteMember() if asked.drawn:
            invited = invitation_reply(asked.drawn.invitation_id, tenant, version)
            return invited.model_copy(update={"token": sealed_token})
        case ConsumeQuota(quota=quota) | ReleaseQuota(quota=quota):
            return quota_reply(quota, tenant, version)
        case EraseMember() | EraseTenant():
            return ErasedReply(keys=0, remains=(), version=version)
        case _:
            return tenant_reply(asked.tenant_id, tenant, version)


def tenant_reply(tenant_id: str, tenant: Tenant, version: Version) -> TenantReply:
    """Return what a tenant is."""
    assert tenant.status != "none", "nobody is answered about nothing"  # noqa: S101 - a contract
    return TenantReply(
        tenant_id=tenant_id,
        name=tenant.name,
        status=tenant.status,
        plan=tenant.plan,
        members=len(tenant.members),
        version=version,
    )


def member_reply(user: str, tenant: Tenant, version: Version) -> MemberReply:
    """Return what a member is, with sealed text."""
    member = tenant.members[user]
    return MemberReply(
        user_id=user,
        role=member.role,
        email=member.email,
        display_name=member.display_name,
        version=version,
    )


def invitation_reply(name: str, tenant: Tenant, version: Version) -> InvitationReply:
    """Return an invitation without its token, with sealed text."""
    kept = tenant.invitations[name]
    return InvitationReply(
        invitation_id=name,
        role=kept.role,
        email=kept.email,
        expires_at=kept.expires_at,
        version=version,
    )


def quota_reply(quota: Quota, tenant: Tenant, version: Version) -> QuotaReply:
    """Return how much of a quota is taken."""
    return QuotaReply(
        quota=quota, used=tenant.used(quota), limit=tenant.limit(quota), version=version
    )
