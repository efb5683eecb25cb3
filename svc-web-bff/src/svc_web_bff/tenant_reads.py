"""What members see of their tenants, and users of all that they belong to.

A tenant answers for itself, always up to date. Across tenants, and of the past, views are read:
these know no members, so it is asked first who they are.
"""

from collections.abc import Mapping

from litestar import HttpMethod, route
from litestar.handlers import HTTPRouteHandler
from pydantic_core import from_json

from flotilla.bus import Answer
from flotilla.errors import Rejected
from flotilla_contracts import ErrorCode, Query
from flotilla_contracts.tenant import (
    GetQuotas,
    GetTenant,
    ListInvitations,
    ListMembers,
)
from flotilla_contracts.tenant_views import ListAudit, ListMemberships
from svc_web_bff import headers as rules
from svc_web_bff.bodies import JsonObject
from svc_web_bff.exchange import AnyRequest, Exchange
from svc_web_bff.gateway import NOBODY, Gateway
from svc_web_bff.messages import message, version_in
from svc_web_bff.problems import Refusal
from svc_web_bff.queries import decode_cursor, encode_cursor, integers, parameters
from svc_web_bff.reply import NO_STORE, PER_USER, REVALIDATE, Header, NotModified, Reply, json_reply
from svc_web_bff.tenants import AGGREGATE, ONE, named_in, template

WHOLE: Mapping[str, type[Query]] = {"/invitations": ListInvitations, "/quotas": GetQuotas}
"""What is bounded so that it needs no pages."""

_READ = [HttpMethod.GET, HttpMethod.HEAD]


def tenant_read_routes(gateway: Gateway) -> list[HTTPRouteHandler]:
    """Return the routes that change nothing."""
    return [
        _mine_route(gateway),
        _get_route(gateway),
        _members_route(gateway),
        *(_whole_route(gateway, path, kind) for path, kind in WHOLE.items()),
        _audit_route(gateway),
    ]


def _mine_route(gateway: Gateway) -> HTTPRouteHandler:
    @route("/v1/tenants", http_method=_READ, name="list-tenants")
    async def mine(request: AnyRequest) -> Reply:
        exchange = Exchange.of(request.scope)
        user = rules.user(exchange.headers)
        fields = _page_of(request)
        tenant, token = await _token_of_mine(gateway, exchange, user)
        context = gateway.context(exchange, tenant, consistency_token=token)
        asked = message(ListMemberships, fields, given={"user_id": user})
        return _page(await gateway.ask(asked, context))

    return mine


def _get_route(gateway: Gateway) -> HTTPRouteHandler:
    @route(template(ONE), http_method=_READ, name="get-tenant")
    async def get_tenant(request: AnyRequest) -> Reply:
        exchange = Exchange.of(request.scope)
        user = rules.user(exchange.headers)
        tenant, _ = named_in(request.scope)
        parameters(request.scope["query_string"])
        answer = await gateway.ask(GetTenant(actor_id=user), gateway.context(exchange, tenant))
        etag = rules.etag_of(version_in(answer.body))
        cached: tuple[Header, ...] = ((b"etag", etag), REVALIDATE, PER_USER)
        if rules.is_known(exchange.headers.joined(b"if-none-match"), etag):
            return NotModified(*cached)
        return Reply(answer.body, *cached)

    return get_tenant


def _members_route(gateway: Gateway) -> HTTPRouteHandler:
    @route(template(f"{ONE}/members"), http_method=_READ, name="list-members")
    async def members(request: AnyRequest) -> Reply:
        exchange = Exchange.of(request.scope)
        user = rules.user(exchange.headers)
        tenant, _ = named_in(request.scope)
        asked = message(ListMembers, _page_of(request), given={"actor_id": user})
        return _page(await gateway.ask(asked, gateway.context(exchange, tenant)))

    return members


def _whole_route(gateway: Gateway, path: str, kind: type[Query]) -> HTTPRouteHandler:
    @route(template(ONE + path), http_method=_READ, name=kind.subject)
    async def whole(request: AnyRequest) -> Reply:
        exchange = Exchange.of(request.scope)
        user = rules.user(exchange.headers)
        tenant, _ = named_in(request.scope)
        parameters(request.scope["query_string"])
        asked = message(kind, {}, given={"actor_id": user})
        answer = await gateway.ask(asked, gateway.context(exchange, tenant))
        return Reply(answer.body, NO_STORE)

    return whole


def _audit_route(gateway: Gateway) -> HTTPRouteHandler:
    @route(template(f"{ONE}/audit"), http_method=_READ, name="list-audit")
    async def audit(request: AnyRequest) -> Reply:
        exchange = Exchange.of(request.scope)
        user = rules.user(exchange.headers)
        tenant, _ = named_in(request.scope)
        given = parameters(request.scope["query_string"], "limit", "before")
        asked = message(ListAudit, integers(given, "limit", "before"))
        token = rules.consistency_token(exchange.headers, tenant, AGGREGATE)
        # The view knows no roles; who was invited, for one, is for owners and admins everywhere.
        if (await gateway.membership(exchange, tenant, user)).role == "member":
            raise Refusal(ErrorCode.ROLE_NOT_ALLOWED, "it takes admin or owner; you are member")
        context = gateway.context(exchange, tenant, consistency_token=token)
        return Reply((await gateway.ask(asked, context)).body, NO_STORE)

    return audit


async def _token_of_mine(gateway: Gateway, exchange: Exchange, user: str) -> tuple[str, str | None]:
    """Return the token, with the tenant that it is of: one that the user is in.

    Of another, waiting for it would tell whether there is one, and how much has happened in it.
    """
    value = exchange.headers.get(b"x-consistency-token")
    if value is None:
        return NOBODY, None
    tenant = value.partition("/")[0]
    token = rules.consistency_token(exchange.headers, tenant, AGGREGATE)
    try:
        await gateway.membership(exchange, tenant, user)
    except Rejected as error:
        raise rules.no_token_of_yours() from error
    return tenant, token


def _page_of(request: AnyRequest) -> JsonObject:
    given = parameters(request.scope["query_string"], "limit", "cursor")
    fields: JsonObject = dict(integers(given, "limit"))
    if (cursor := given.get("cursor")) is not None:
        fields["after"] = decode_cursor(cursor)
    return fields


def _page(answer: Answer) -> Reply:
    page = from_json(answer.body)
    if page["next_cursor"] is None:
        return Reply(answer.body, NO_STORE)
    return json_reply({**page, "next_cursor": encode_cursor(page["next_cursor"])}, NO_STORE)
