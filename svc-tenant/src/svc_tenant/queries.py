"""What tenants can be asked: from their own events, so what was answered before is never missing."""

from bisect import bisect_right
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from flotilla import Answer, Request, StreamId, Version
from flotilla.commands import parse
from flotilla.privacy import Vault
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.tenant import (
    GetMembership,
    GetQuotas,
    GetTenant,
    InvitationsReply,
    ListInvitations,
    ListMembers,
    MemberPage,
    MembershipReply,
    QuotasReply,
)
from flotilla_contracts.tenant_events import (
    Quota,
    Role,
)
from svc_tenant.answers import (
    Opener,
    answer,
    invitation_reply,
    member_reply,
    quota_reply,
    tenant_reply,
)
from svc_tenant.domain.asked import not_found, rejected
from svc_tenant.domain.tenant import Tenant
from svc_tenant.streams import tenant_stream

QUOTAS: tuple[Quota, ...] = ("members", "invitations", "counters")


@dataclass(frozen=True, slots=True)
class Questions:
    """All queries. `look` returns a tenant as it is stored now, and its version."""

    look: Callable[[StreamId], Awaitable[tuple[Tenant, Version]]]
    vault: Vault

    async def tenant(self, request: Request) -> Answer:
        """Answer with the tenant."""
        query = parse(GetTenant, request)
        tenant, version, _ = await self._seen(request, query.actor_id)
        return answer(tenant_reply(request.context.tenant, tenant, version), version)

    async def membership(self, request: Request) -> Answer:
        """Answer with what a user is in the tenant."""
        query = parse(GetMembership, request)
        tenant, version, role = await self._seen(request, query.user_id)
        assert tenant.status != "none", "who is a member is one of something"  # noqa: S101 - as seen
        reply = MembershipReply(
            tenant_id=request.context.tenant,
            user_id=query.user_id,
            role=role,
            status=tenant.status,
            version=version,
        )
        return answer(reply, version)

    async def members(self, request: Request) -> Answer:
        """Answer with a page of members."""
        query = parse(ListMembers, request)
        tenant, version, _ = await self._seen(request, query.actor_id)
        users = sorted(tenant.members)
        first = bisect_right(users, query.after) if query.after is not None else 0
        page = users[first : first + query.limit]
        tell, name = Opener(self.vault).tell, request.context.tenant
        items = [await tell(name, member_reply(user, tenant, version)) for user in page]
        more = first + query.limit < len(users)
        return answer(MemberPage(items=tuple(items), next_cursor=page[-1] if more else None))

    async def invitations(self, request: Request) -> Answer:
        """Answer with the invitations that wait, without their tokens."""
        query = parse(ListInvitations, request)
        tenant, version, role = await self._seen(request, query.actor_id)
        if role == "member":
            raise rejected(ErrorCode.ROLE_NOT_ALLOWED, "it takes admin or owner; you are member")
        tell, name = Opener(self.vault).tell, request.context.tenant
        items = [await tell(name, invitation_reply(i, tenant, version)) for i in tenant.invitations]
        return answer(InvitationsReply(items=tuple(items)), version)

    async def quotas(self, request: Request) -> Answer:
        """Answer with how much of each quota is taken."""
        query = parse(GetQuotas, request)
        tenant, version, _ = await self._seen(request, query.actor_id)
        items = tuple(quota_reply(quota, tenant, version) for quota in QUOTAS)
        return answer(QuotasReply(plan=tenant.plan, period=tenant.period, items=items), version)

    async def _seen(self, request: Request, user: str) -> tuple[Tenant, Version, Role]:
        """Return the tenant as a member of it sees it; others see what is not there."""
        tenant, version = await self.look(tenant_stream(request.context.tenant))
        member = tenant.members.get(user)
        if member is None or tenant.status == "abandoned":
            raise not_found()
        return tenant, version, member.role
