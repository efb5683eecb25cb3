"""What the projector answers about tenants, from their read models, and waiting for them to catch up."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from flotilla import Answer, Handler, Rejected, Request, ViewStore
from flotilla.audit import AuditEntry
from flotilla.commands import parse
from flotilla_contracts import tenant_views as contract
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.message import Reply
from svc_projector.audit import NAME as AUDIT
from svc_projector.audit import list_audit, seen_of_audit
from svc_projector.memberships import NAME as MEMBERSHIPS
from svc_projector.memberships import list_memberships, seen_of_memberships
from svc_projector.projector import Projector
from svc_projector.quotas import NAME as QUOTAS
from svc_projector.quotas import list_quota_use, seen_of_quotas
from svc_projector.tenants import NAME as DIRECTORY
from svc_projector.tenants import list_tenants, seen_of_directory
from svc_projector.waiting import until, wait_limit_s

_VERSION = re.compile(r"[0-9]{1,18}")
_SEEN: Mapping[str, Callable[[ViewStore, str], Awaitable[int]]] = {
    DIRECTORY: seen_of_directory,
    MEMBERSHIPS: seen_of_memberships,
    QUOTAS: seen_of_quotas,
    AUDIT: seen_of_audit,
}
"""By read model: up to which version it has seen a tenant."""


@dataclass(frozen=True, slots=True)
class TenantQueries:
    """Answers about tenants. A request may carry a consistency token: then it waits, bounded."""

    views: ViewStore
    projectors: Mapping[str, Projector]
    """By the read model that they fold."""
    wait_max_s: float

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Return who answers what."""
        return {
            contract.ListTenants.subject: self.tenants,
            contract.ListMemberships.subject: self.memberships,
            contract.ListQuotaUse.subject: self.quotas,
            contract.ListAudit.subject: self.audit,
            contract.GetAuditHead.subject: self.audit_head,
        }

    async def tenants(self, request: Request) -> Answer:
        """Answer with a page of all tenants: whoever may ask is an operator."""
        query = parse(contract.ListTenants, request)
        await self._wait(DIRECTORY, request)
        return _answer(await list_tenants(self.views, after=query.after or "", limit=query.limit))

    async def memberships(self, request: Request) -> Answer:
        """Answer with a page of one user's tenants."""
        query = parse(contract.ListMemberships, request)
        await self._wait(MEMBERSHIPS, request)
        after = query.after or ""
        page = await list_memberships(self.views, query.user_id, after=after, limit=query.limit)
        return _answer(page)

    async def quotas(self, request: Request) -> Answer:
        """Answer with a page of what the tenant uses."""
        query, tenant = parse(contract.ListQuotaUse, request), request.context.tenant
        await self._wait(QUOTAS, request)
        page = await list_quota_use(self.views, tenant, after=query.after or "", limit=query.limit)
        if page is None:
            raise Rejected("there is no such tenant", code=ErrorCode.TENANT_NOT_FOUND)
        return _answer(page)

    async def audit(self, request: Request) -> Answer:
        """Answer with a page of what happened to the tenant."""
        query, tenant = parse(contract.ListAudit, request), request.context.tenant
        await self._wait(AUDIT, request)
        limit = query.limit
        found = await list_audit(self.views, tenant, before=query.before, limit=limit + 1)
        items = tuple(map(_entry, found[:limit]))
        more = items[-1].offset if len(found) > limit else None
        return _answer(contract.AuditPage(items=items, next_before=more))

    async def audit_head(self, request: Request) -> Answer:
        """Answer with the end of the tenant's chain."""
        parse(contract.GetAuditHead, request)
        tenant = request.context.tenant
        await self._wait(AUDIT, request)
        for last in await list_audit(self.views, tenant, before=None, limit=1):
            return _answer(
                contract.AuditHead(
                    tenant_id=tenant, entries=last.number, offset=last.offset, hash=last.hash
                )
            )
        raise Rejected("there is no such tenant", code=ErrorCode.TENANT_NOT_FOUND)

    async def _wait(self, view: str, request: Request) -> None:
        token, tenant = request.context.consistency_token, request.context.tenant
        if token is None:
            return
        version = _parse_token(token, tenant)

        async def caught_up() -> bool:
            return await _SEEN[view](self.views, tenant) >= version

        limit_s = wait_limit_s(request.context, self.wait_max_s)
        await until(caught_up, self.projectors[view].moved, token, limit_s)


def _answer(reply: Reply) -> Answer:
    return Answer(reply.model_dump_json().encode())


def _entry(entry: AuditEntry) -> contract.AuditEntry:
    return contract.AuditEntry(
        number=entry.number,
        offset=entry.offset,
        stream=entry.stream,
        version=entry.version,
        event_id=entry.event_id,
        type=entry.type,
        actor_id=entry.actor_id,
        about=entry.about,
        recorded_at=entry.recorded_at,
        hash=entry.hash,
    )


def _parse_token(token: str, tenant: str) -> int:
    """Return the version of `<tenant>/tenant/<tenant>@<version>`."""
    stream, _, version = token.rpartition("@")
    if stream != f"{tenant}/tenant/{tenant}" or not _VERSION.fullmatch(version):
        raise Rejected("not a consistency token of this tenant", code="consistency-token-invalid")
    return int(version)
