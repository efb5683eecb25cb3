"""Tenants in memory, as far as the edge can tell them from real ones.

They know who is a member and what was told them, and answer each contract with its example. What
roles, plans and lives allow is not their business: a test says which refusal is next.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flotilla.bus import Answer, Request
from flotilla.errors import KeyReused, Rejected, Unavailable, VersionMismatch
from flotilla_contracts.message import Ask, Reply
from flotilla_contracts.tenant import (
    COMMANDS,
    QUERIES,
    AcceptInvitation,
    CreateTenant,
    GetMembership,
    MembershipReply,
    RemoveMember,
    TenantCommandMessage,
)
from flotilla_contracts.tenant_events import (
    Life,
    Role,
)
from flotilla_contracts.tenant_views import ListAudit, ListMemberships
from svc_web_bff.openapi_tenant_examples import EXAMPLES


@dataclass(slots=True)
class InMemoryTenant:
    """Who belongs to a tenant, what it is, and how much happened to it."""

    members: dict[str, Role] = field(default_factory=dict)
    status: Life = "active"
    version: int = 7


class InMemoryTenants:
    """Answers commands and queries of tenants, and the views of them."""

    def __init__(self) -> None:
        self.known = {"acme": InMemoryTenant({"ann": "owner", "bob": "admin", "mia": "member"})}
        self.refusal: Rejected | None = None
        """What the next commands of members are refused with, while it is set."""
        self._replies: dict[tuple[str, str], tuple[bytes, Answer]] = {}

    def handlers(self) -> dict[str, Callable[[Request], Answer]]:
        """Return what answers each subject."""
        found: dict[str, Callable[[Request], Answer]] = {
            kind.subject: self._command(kind) for kind in COMMANDS if kind.reply in EXAMPLES
        }
        found |= {kind.subject: self._query(kind) for kind in QUERIES if kind.reply in EXAMPLES}
        found |= {kind.subject: self._view(kind) for kind in (ListAudit, ListMemberships)}
        return found | {GetMembership.subject: self._membership}

    def _command(self, kind: type[TenantCommandMessage]) -> Callable[[Request], Answer]:
        def answer(request: Request) -> Answer:
            asked = kind.model_validate_json(request.body)
            context = request.context
            claim = context.tenant, context.idempotency_key or ""
            content = request.subject.encode() + request.body
            if claim in self._replies:
                known, reply = self._replies[claim]
                if known != content:
                    raise KeyReused("this key was used for something else")
                return replace(reply, replayed=True)
            tenant = self._decided(asked, request)
            reply = _example(kind.reply, tenant.version)
            self._replies[claim] = content, reply
            return reply

        return answer

    def _decided(self, asked: TenantCommandMessage, request: Request) -> InMemoryTenant:
        name, actor = request.context.tenant, asked.actor_id
        match asked:
            case CreateTenant():
                tenant = InMemoryTenant({actor: "owner"}, "onboarding", 1)
            case AcceptInvitation():
                tenant = self.known.get(name, InMemoryTenant())
                if name not in self.known or not asked.token.startswith(f"{name}:"):
                    raise Rejected("there is no such invitation", code="invitation-not-found")
            case _:
                tenant, _ = self._seen(request, actor)
        if self.refusal is not None:
            raise self.refusal
        expected = request.context.expected_version
        if expected not in (None, tenant.version):
            raise VersionMismatch(f"expected version {expected}, it is {tenant.version}")
        if isinstance(asked, AcceptInvitation):
            tenant.members[actor] = "member"
        if isinstance(asked, RemoveMember) and asked.user_id == actor:
            del tenant.members[actor]
        tenant.version += 1
        self.known[name] = tenant
        return tenant

    def _query(self, kind: type[Ask]) -> Callable[[Request], Answer]:
        def answer(request: Request) -> Answer:
            asked = kind.model_validate_json(request.body)
            tenant, _ = self._seen(request, asked.model_dump()["actor_id"])
            return _example(kind.reply, tenant.version)

        return answer

    def _view(self, kind: type[Ask]) -> Callable[[Request], Answer]:
        def answer(request: Request) -> Answer:
            kind.model_validate_json(request.body)
            if token := request.context.consistency_token:
                stream, version = token.rsplit("@", 1)
                if self.known[stream.split("/")[0]].version < int(version):
                    raise Unavailable("the view is behind", code="view-behind")
            return _example(kind.reply, 0)

        return answer

    def _membership(self, request: Request) -> Answer:
        user = GetMembership.model_validate_json(request.body).user_id
        tenant, role = self._seen(request, user)
        reply = MembershipReply(
            tenant_id=request.context.tenant,
            user_id=user,
            role=role,
            status=tenant.status,
            version=tenant.version,
        )
        return Answer(reply.model_dump_json().encode())

    def _seen(self, request: Request, user: str) -> tuple[InMemoryTenant, Role]:
        tenant = self.known.get(request.context.tenant, InMemoryTenant())
        if (role := tenant.members.get(user)) is None:
            raise Rejected(f"there is no {request.context.tenant}", code="tenant-not-found")
        return tenant, role


def _example(kind: type[Reply], version: int) -> Answer:
    fields = dict(EXAMPLES[kind])
    if "version" in fields:
        fields["version"] = version
    return Answer(kind.model_validate_json(json.dumps(fields)).model_dump_json().encode(), version)
