"""Tenants that are asked everything once, with answers that are the same after every run."""

import asyncio
import json
from typing import Any

from flotilla.bus import Bus, Context, Request
from flotilla_contracts.message import Ask
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
    GetMembership,
    GetQuotas,
    GetTenant,
    InviteMember,
    ListInvitations,
    ListMembers,
    ReleaseQuota,
    RemoveMember,
    RenameTenant,
    ResetQuotas,
    ResumeTenant,
    RevokeInvitation,
    SuspendTenant,
)
from flotilla_contracts.tenant_events import (
    SYSTEM,
)
from flotilla_contracts.tenant_views import (
    GetAuditHead,
    ListAudit,
    ListMemberships,
    ListQuotaUse,
    ListTenants,
)

LOOK_AGAIN_S = 0.05
EVENTS = 21
"""So many facts of `umbrella` come about here."""


async def use_tenants(bus: Bus) -> None:
    """Use all of it; whoever calls has a limit."""
    numbers = iter(range(1000))

    async def ask(kind: type[Ask], tenant: str = "umbrella", **body: Any) -> Any:
        context = Context(tenant, "emitted", idempotency_key=f"{kind.__name__}-{next(numbers)}")
        answer = await bus.request(Request(kind.subject, json.dumps(body).encode(), context))
        return json.loads(answer.body)

    async def as_ann(kind: type[Ask], tenant: str = "umbrella", **body: Any) -> Any:
        return await ask(kind, tenant, actor_id="ann", **body)

    async def as_system(kind: type[Ask], tenant: str = "umbrella", **body: Any) -> Any:
        return await ask(kind, tenant, actor_id=SYSTEM, **body)

    begun = {"owner_id": "ann", "owner_email": "ann@umbrella.example"}
    await as_ann(CreateTenant, name="Umbrella", **begun)
    await as_system(ActivateTenant)
    await as_ann(RenameTenant, name="Umbrella & Co")
    await as_ann(AssignPlan, plan="team")
    await as_system(ConsumeQuota, quota="counters", amount=2)
    await as_system(ReleaseQuota, quota="counters", amount=1)
    await as_system(ResetQuotas, period="2026-05-17")
    invited = await as_ann(InviteMember, email="bob@umbrella.example", role="member")
    await ask(
        AcceptInvitation,
        actor_id="bob",
        token=invited["token"],
        email="bob@umbrella.example",
        display_name="Bob",
    )
    other = await as_ann(InviteMember, email="eve@umbrella.example")
    await as_ann(ListInvitations)
    await as_ann(RevokeInvitation, invitation_id=other["invitation_id"])
    await as_system(AddMember, user_id="cid", role="member")
    await as_ann(ChangeRole, user_id="cid", role="admin")
    for kind in (GetTenant, GetQuotas, ListMembers):
        await as_ann(kind)
    await ask(GetMembership, user_id="bob")
    await as_ann(RemoveMember, user_id="bob")
    await as_ann(EraseMember, user_id="bob")
    await as_ann(SuspendTenant, reason="a bill")
    await as_ann(ResumeTenant)
    while len((await ask(ListAudit))["items"]) < EVENTS - 2:
        await asyncio.sleep(LOOK_AGAIN_S)
    await ask(GetAuditHead)
    await ask(ListMemberships, user_id="ann")
    await ask(ListQuotaUse)
    await ask(ListTenants, "-")
    await as_ann(CloseTenant)
    await as_ann(EraseTenant)
    await as_ann(CreateTenant, "failed", name="Failed", owner_id="ann")
    await as_system(AbandonTenant, "failed")
