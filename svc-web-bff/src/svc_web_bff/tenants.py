"""Tenants over HTTP: begin one, and what its members may do with it.

The path names the tenant, `X-User-Id` who asks. Whoever is not a member is told what everybody is
told of a tenant that does not exist, before anything else is looked at that only the tenant knows;
what a member's role allows, the tenant decides.

Idempotency keys are the user's own here. So nobody learns by a key whether another used it, and who
left can still repeat the request that they left with.
"""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from litestar import post
from litestar.handlers import HTTPRouteHandler

from flotilla.bus import Answer, Context
from flotilla_contracts import Command, ErrorCode
from flotilla_contracts.tenant import (
    AcceptInvitation,
    AssignPlan,
    ChangeRole,
    CloseTenant,
    CreateTenant,
    InviteMember,
    RemoveMember,
    RenameTenant,
    ResumeTenant,
    RevokeInvitation,
    SuspendTenant,
    tenant_of_token,
)
from svc_web_bff import headers as rules
from svc_web_bff.bodies import JsonObject, read_object
from svc_web_bff.exchange import AnyRequest, Exchange
from svc_web_bff.gateway import NOBODY, Gateway, no_such_tenant
from svc_web_bff.headers import Headers, is_identifier
from svc_web_bff.messages import message, version_in
from svc_web_bff.problems import Refusal
from svc_web_bff.queries import parameters
from svc_web_bff.reply import NO_STORE, Header, Reply

AGGREGATE = "tenant"
ONE = "/v1/tenants/{tenant_id}"
ACCEPT = "/v1/invitations/accept"
COMMANDS: Mapping[str, type[Command]] = {
    "/rename": RenameTenant,
    "/suspend": SuspendTenant,
    "/resume": ResumeTenant,
    "/close": CloseTenant,
    "/plan": AssignPlan,
    "/members/{user_id}/role": ChangeRole,
    "/members/{user_id}/remove": RemoveMember,
    "/invitations": InviteMember,
    "/invitations/{invitation_id}/revoke": RevokeInvitation,
}
"""What members tell a tenant, by the path below it. Fields are in the path or in the body."""

_OF_TENANTS = uuid.UUID("6f9ce2d8-3c0b-5a55-9f0e-6c1c9d1f4b1e")


def tenant_command_routes(gateway: Gateway) -> list[HTTPRouteHandler]:
    """Return the routes that change tenants."""
    return [
        _create_route(gateway),
        *(_command_route(gateway, path, kind) for path, kind in COMMANDS.items()),
        _leave_route(gateway),
        _accept_route(gateway),
    ]


def named_in(scope: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the tenant of a path, and what else is in it. What cannot be a tenant is none."""
    path = dict(scope["path_params"])
    tenant = path.pop("tenant_id")
    if not is_identifier(tenant) or tenant == NOBODY:
        raise no_such_tenant()
    return tenant, path


def template(path: str) -> str:
    """Return a path as the framework wants it: every part in braces is text."""
    return path.replace("}", ":str}")


def _create_route(gateway: Gateway) -> HTTPRouteHandler:
    @post("/v1/tenants", name="create-tenant")
    async def create(request: AnyRequest) -> Reply:
        exchange = Exchange.of(request.scope)
        actor = rules.user(exchange.headers)
        tenant = _new_tenant(actor, rules.idempotency_key(exchange.headers))
        context = _context(gateway, exchange, tenant, actor)
        body = await _body(gateway, request)
        asked = message(CreateTenant, body, given={"actor_id": actor, "owner_id": actor})
        # What is missing until it is active follows from the event: the workflow `tenant-onboarding`.
        answer = await gateway.ask(asked, context)
        return _done(answer, tenant, (b"location", f"/v1/tenants/{tenant}".encode()), status=201)

    return create


def _command_route(gateway: Gateway, path: str, kind: type[Command]) -> HTTPRouteHandler:
    said = {"actor_id", *(name for name in kind.model_fields if f"{{{name}}}" in path)}
    takes_fields = bool(kind.model_fields.keys() - said)

    @post(template(ONE + path), name=kind.subject)
    async def command(request: AnyRequest) -> Reply:
        exchange = Exchange.of(request.scope)
        actor = rules.user(exchange.headers)
        tenant, path = named_in(request.scope)
        context = _context(gateway, exchange, tenant, actor)
        body = await _body(gateway, request, may_be_empty=not takes_fields)
        asked = message(kind, body, path, {"actor_id": actor})
        await gateway.membership(exchange, tenant, actor)
        return _done(await gateway.ask(asked, context), tenant)

    return command


def _leave_route(gateway: Gateway) -> HTTPRouteHandler:
    """Return the one route that is not for members only: who left may say so again."""

    @post(template(f"{ONE}/leave"), name="leave-tenant")
    async def leave(request: AnyRequest) -> Reply:
        exchange = Exchange.of(request.scope)
        actor = rules.user(exchange.headers)
        tenant, _ = named_in(request.scope)
        context = _context(gateway, exchange, tenant, actor)
        body = await _body(gateway, request, may_be_empty=True)
        asked = message(RemoveMember, body, given={"actor_id": actor, "user_id": actor})
        return _done(await gateway.ask(asked, context), tenant)

    return leave


def _accept_route(gateway: Gateway) -> HTTPRouteHandler:
    @post(ACCEPT, name="accept-invitation")
    async def accept(request: AnyRequest) -> Reply:
        exchange = Exchange.of(request.scope)
        actor = rules.user(exchange.headers)
        body = await _body(gateway, request)
        asked = message(AcceptInvitation, body, given={"actor_id": actor})
        tenant = tenant_of_token(asked.token) or NOBODY
        context = _context(gateway, exchange, tenant, actor)
        if not is_identifier(tenant) or tenant == NOBODY:
            raise Refusal(ErrorCode.INVITATION_NOT_FOUND, "there is no such invitation")
        return _done(await gateway.ask(asked, context), tenant)

    return accept


def _context(gateway: Gateway, exchange: Exchange, tenant: str, actor: str) -> Context:
    headers = exchange.headers
    return gateway.context(
        exchange,
        tenant,
        idempotency_key=_users_own(actor, headers),
        expected_version=rules.expected_version(headers),
    )


async def _body(gateway: Gateway, request: AnyRequest, *, may_be_empty: bool = False) -> JsonObject:
    parameters(request.scope["query_string"])
    settings = gateway.settings
    return await read_object(
        Exchange.of(request.scope).headers,
        request.receive,
        bytes_max=settings.body_bytes_max,
        timeout_s=settings.body_timeout_s,
        may_be_empty=may_be_empty,
    )


def _done(answer: Answer, tenant: str, *more: Header, status: int = 200) -> Reply:
    version = version_in(answer.body)
    replayed: list[Header] = [(b"idempotency-replayed", b"true")] if answer.replayed else []
    return Reply(
        answer.body,
        (b"etag", rules.etag_of(version)),
        (b"x-consistency-token", rules.token_of(tenant, AGGREGATE, tenant, version)),
        NO_STORE,
        *replayed,
        *more,
        status=status,
    )


def _users_own(actor: str, headers: Headers) -> str:
    """Return the key that only this user has: no user's id has a line break."""
    return hashlib.sha256(f"{actor}\n{rules.idempotency_key(headers)}".encode()).hexdigest()


def _new_tenant(actor: str, key: str) -> str:
    """Return the id of the tenant that this wish is for: the same, however often it is sent.

    Nobody chooses an id, so nobody can find out which ones are taken.
    """
    return str(uuid.uuid5(_OF_TENANTS, f"{actor}\n{key}"))
