"""The examples of tenants in the OpenAPI document: Ann's tenant, and Bob in it."""

from typing import Any

from flotilla_contracts.message import Reply
from flotilla_contracts.tenant import (
    InvitationReply,
    InvitationsReply,
    MemberPage,
    MemberRemovedReply,
    MemberReply,
    QuotasReply,
    TenantReply,
)
from flotilla_contracts.tenant_views import AuditPage, MembershipPage
from svc_web_bff.openapi_examples import CURSOR, TENANT

USER, OTHER_USER = "ann", "bob"
INVITATION = "01a2067dcb87dc28dd0d06afe0c5bb5"
TOKEN = f"{TENANT}:{INVITATION}:pQ0mS1tVbJk8YxZr3w5uAqLh7fNdGc2E"
_AT = "2026-11-22T17:04:05.123456Z"
_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

_TENANT: dict[str, Any] = {
    "tenant_id": TENANT,
    "name": "Acme & Sons",
    "status": "active",
    "plan": "team",
    "members": 2,
    "version": 7,
}
_MEMBER: dict[str, Any] = {
    "user_id": OTHER_USER,
    "role": "admin",
    "email": "bob@example.org",
    "display_name": "Bob",
    "version": 7,
}
_MEMBERS: dict[str, Any] = {"items": [_MEMBER], "next_cursor": None}
_REMOVED: dict[str, Any] = {"user_id": OTHER_USER, "version": 7}
_INVITATION: dict[str, Any] = {
    "invitation_id": INVITATION,
    "role": "member",
    "email": "carol@example.org",
    "expires_at": "2026-11-29T17:04:05.123456Z",
    "token": TOKEN,
    "version": 7,
}
_INVITATIONS: dict[str, Any] = {"items": [_INVITATION | {"token": None}]}
_QUOTAS: dict[str, Any] = {
    "plan": "team",
    "period": "2026-11-22",
    "items": [{"quota": "members", "used": 2, "limit": 50, "version": 7}],
}
_TENANTS: dict[str, Any] = {
    "items": [
        {
            "tenant_id": TENANT,
            "tenant_name": "Acme & Sons",
            "role": "owner",
            "status": "active",
            "since": _AT,
        }
    ],
    "next_cursor": CURSOR,
}
_AUDIT: dict[str, Any] = {
    "items": [
        {
            "number": 7,
            "offset": 4711,
            "stream": f"{TENANT}/tenant/{TENANT}",
            "version": 7,
            "event_id": "0193a5c1-7c1e-7d3a-9c53-0f6a3c2b1d4e",
            "type": "tenant.renamed.v1",
            "actor_id": USER,
            "about": None,
            "recorded_at": _AT,
            "hash": _HASH,
        }
    ],
    "next_before": None,
}

EXAMPLES: dict[type[Reply], dict[str, Any]] = {
    TenantReply: _TENANT,
    MemberReply: _MEMBER,
    MemberRemovedReply: _REMOVED,
    InvitationReply: _INVITATION,
    InvitationsReply: _INVITATIONS,
    MemberPage: _MEMBERS,
    QuotasReply: _QUOTAS,
    MembershipPage: _TENANTS,
    AuditPage: _AUDIT,
}
"""What is answered about tenants, each with its example."""
