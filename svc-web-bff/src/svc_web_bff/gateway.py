"""How requests reach the services: for which tenant, and who of it may.

Two ways name a tenant. `X-Tenant-Id` does for everything in it; there membership is asked for when
the setting `members_only` says so. `/v1/tenants/{tenant_id}` does in its path; there it always is.
Nothing is remembered between requests: each one asks the tenant itself.
"""

from dataclasses import dataclass
from typing import Any

import structlog

import flotilla.bus
from flotilla.bus import Answer, Bus, Context
from flotilla_contracts import Command, ErrorCode, Query
from flotilla_contracts.tenant import (
    GetMembership,
    MembershipReply,
)
from svc_web_bff import headers as rules
from svc_web_bff.exchange import Exchange
from svc_web_bff.problems import NO_SUCH_TENANT, Refusal
from svc_web_bff.settings import Settings

NOBODY = "-"
"""What belongs to no tenant is asked for under this name; nobody may call a tenant so."""

_OVER = ("closed", "abandoned", "erased")


@dataclass(frozen=True, slots=True)
class Gateway:
    """How requests reach the services."""

    bus: Bus
    settings: Settings

    async def ask(self, message: Command | Query, context: Context) -> Answer:
        """Return the answer of whoever serves `message`."""
        return await self.bus.request(
            flotilla.bus.Request(message.subject, message.model_dump_json().encode(), context)
        )

    async def in_tenant(self, exchange: Exchange, **more: Any) -> Context:
        """Return what travels with a request in the tenant of `X-Tenant-Id`.

        Raises `Refusal` for who is not there (404), and for members while it is suspended (403).
        """
        tenant = rules.tenant(exchange.headers)
        context = self.context(exchange, tenant, **more)
        if self.settings.members_only:
            user = rules.user(exchange.headers)
            status = (await self.membership(exchange, tenant, user)).status
            if status in _OVER:
                raise no_such_tenant()
            if status == "suspended":
                raise Refusal(ErrorCode.TENANT_SUSPENDED, "an owner can resume it")
        return context

    async def membership(self, exchange: Exchange, tenant: str, user: str) -> MembershipReply:
        """Return what a user is in a tenant now. Who is nobody there gets one refusal for all."""
        answer = await self.ask(GetMembership(user_id=user), self.context(exchange, tenant))
        return MembershipReply.model_validate_json(answer.body)

    def context(self, exchange: Exchange, tenant: str, **more: Any) -> Context:
        """Return what travels with a request; its tenant is in every log line from here on."""
        structlog.contextvars.bind_contextvars(tenant=tenant)
        return Context(
            tenant=tenant,
            correlation_id=exchange.correlation_id,
            traceparent=exchange.traceparent,
            timeout_s=self.settings.request_timeout_s,
            **more,
        )


def no_such_tenant() -> Refusal:
    """Return the one answer for tenants that are not there, and for those of others."""
    return Refusal(ErrorCode.TENANT_NOT_FOUND, NO_SUCH_TENANT)
