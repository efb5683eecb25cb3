"""Counters over HTTP: each route parses, builds a contract message, calls, and answers.

Reply bodies go out to the byte as they came in, so that a replayed command is the same bytes.
"""

from collections.abc import Mapping

from litestar import HttpMethod, post, route
from litestar.handlers import HTTPRouteHandler
from pydantic_core import from_json

from flotilla.bus import Context
from flotilla_contracts import Command
from flotilla_contracts.counter import (
    DecrementCounter,
    GetCounter,
    GetCounterHistory,
    GetTenantTotals,
    IncrementCounter,
    ListActivity,
    ListCounters,
    ResetCounter,
)
from svc_web_bff import headers as rules
from svc_web_bff.bodies import JsonObject, read_object
from svc_web_bff.exchange import AnyRequest, Exchange
from svc_web_bff.gateway import Gateway
from svc_web_bff.messages import message, version_in
from svc_web_bff.queries import decode_cursor, encode_cursor, integers, parameters
from svc_web_bff.reply import (
    NO_STORE,
    PER_TENANT,
    REVALIDATE,
    Header,
    NotModified,
    Reply,
    json_reply,
)

COMMANDS: Mapping[str, type[Command]] = {
    "increment": IncrementCounter,
    "decrement": DecrementCounter,
    "reset": ResetCounter,
}
AGGREGATE = "counter"
_PATH_FIELD = "counter_id"
_READ = [HttpMethod.GET, HttpMethod.HEAD]


def counter_routes(gateway: Gateway) -> list[HTTPRouteHandler]:
    """Return the routes of counters, one or all of a tenant's."""
    return [
        *(_command_route(gateway, verb, kind) for verb, kind in COMMANDS.items()),
        _get_route(gateway),
        _list_route(gateway),
        _history_route(gateway),
        _totals_route(gateway),
        _activity_route(gateway),
    ]


def _command_route(gateway: Gateway, verb: str, kind: type[Command]) -> HTTPRouteHandler:
    settings = gateway.settings
    takes_fields = len(kind.model_fields) > 1

    @post(f"/v1/counters/{{counter_id:str}}/{verb}", name=verb)
    async def command(request: AnyRequest) -> Reply:
        scope = request.scope
        exchange = Exchange.of(scope)
        headers = exchange.headers
        context = await gateway.in_tenant(
            exchange,
            idempotency_key=rules.idempotency_key(headers),
            expected_version=rules.expected_version(headers),
        )
        parameters(scope["query_string"])
        body = await read_object(
            headers,
            request.receive,
            bytes_max=settings.body_bytes_max,
            timeout_s=settings.body_timeout_s,
            may_be_empty=not takes_fields,
        )
        counter_id = scope["path_params"][_PATH_FIELD]
        answer = await gateway.ask(message(kind, body, {_PATH_FIELD: counter_id}), context)
        version = version_in(answer.body)
        token = rules.token_of(context.tenant, AGGREGATE, counter_id, version)
        more = [(b"idempotency-replayed", b"true")] if answer.replayed else []
        return Reply(
            answer.body,
            (b"etag", rules.etag_of(version)),
            (b"x-consistency-token", token),
            NO_STORE,
            *more,
        )

    return command


def _get_route(gateway: Gateway) -> HTTPRouteHandler:
    @route("/v1/counters/{counter_id:str}", http_method=_READ, name="get-counter")
    async def get_counter(request: AnyRequest) -> Reply:
        scope = request.scope
        exchange = Exchange.of(scope)
        context = await _reading(gateway, exchange)
        parameters(scope["query_string"])
        query = message(GetCounter, {}, scope["path_params"])
        answer = await gateway.ask(query, context)
        etag = rules.etag_of(version_in(answer.body))
        cached: tuple[Header, ...] = ((b"etag", etag), REVALIDATE, PER_TENANT)
        if rules.is_known(exchange.headers.joined(b"if-none-match"), etag):
            return NotModified(*cached)
        return Reply(answer.body, *cached)

    return get_counter


def _list_route(gateway: Gateway) -> HTTPRouteHandler:
    @route("/v1/counters", http_method=_READ, name="list-counters")
    async def list_counters(request: AnyRequest) -> Reply:
        scope = request.scope
        context = await _reading(gateway, Exchange.of(scope))
        given = parameters(scope["query_string"], "limit", "cursor")
        fields: JsonObject = dict(integers(given, "limit"))
        if (cursor := given.get("cursor")) is not None:
            fields["after"] = decode_cursor(cursor)
        answer = await gateway.ask(message(ListCounters, fields), context)
        page = from_json(answer.body)
        if page["next_cursor"] is None:
            return Reply(answer.body, NO_STORE)
        return json_reply({**page, "next_cursor": encode_cursor(page["next_cursor"])}, NO_STORE)

    return list_counters


def _history_route(gateway: Gateway) -> HTTPRouteHandler:
    @route("/v1/counters/{counter_id:str}/history", http_method=_READ, name="get-history")
    async def get_history(request: AnyRequest) -> Reply:
        scope = request.scope
        context = await gateway.in_tenant(Exchange.of(scope))
        given = parameters(scope["query_string"], "after", "limit")
        fields = integers(given, "after", "limit")
        query = message(GetCounterHistory, fields, scope["path_params"])
        answer = await gateway.ask(query, context)
        return Reply(answer.body, NO_STORE)

    return get_history


def _totals_route(gateway: Gateway) -> HTTPRouteHandler:
    @route("/v1/totals", http_method=_READ, name="get-totals")
    async def get_totals(request: AnyRequest) -> Reply:
        scope = request.scope
        context = await gateway.in_tenant(Exchange.of(scope))
        parameters(scope["query_string"])
        answer = await gateway.ask(message(GetTenantTotals, {}), context)
        return Reply(answer.body, NO_STORE)

    return get_totals


def _activity_route(gateway: Gateway) -> HTTPRouteHandler:
    @route("/v1/activity", http_method=_READ, name="list-activity")
    async def list_activity(request: AnyRequest) -> Reply:
        scope = request.scope
        context = await gateway.in_tenant(Exchange.of(scope))
        given = parameters(scope["query_string"], "limit", "before")
        fields = integers(given, "limit", "before")
        answer = await gateway.ask(message(ListActivity, fields), context)
        return Reply(answer.body, NO_STORE)

    return list_activity


async def _reading(gateway: Gateway, exchange: Exchange) -> Context:
    """Return the context of a query of the read model, which may be asked to wait for a command."""
    headers = exchange.headers
    token = rules.consistency_token(headers, rules.tenant(headers), AGGREGATE)
    return await gateway.in_tenant(exchange, consistency_token=token)
