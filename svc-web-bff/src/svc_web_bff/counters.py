"""Counters over HTTP: each route parses, builds a contract message, calls, and answers.

Reply bodies go out to the byte as they came in, so that a replayed command is the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import structlog
from litestar import HttpMethod, post, route
from litestar.handlers import HTTPRouteHandler
from pydantic import ValidationError
from pydantic_core import from_json

import flotilla.bus
from flotilla.bus import Answer, Bus, Context
from flotilla_contracts import Command, ErrorCode, FieldError, Query
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
from svc_web_bff.bodies import JsonObject, pointer_to, read_object
from svc_web_bff.exchange import AnyRequest, Exchange
from svc_web_bff.headers import IDENTIFIER_RULE
from svc_web_bff.problems import Refusal
from svc_web_bff.queries import decode_cursor, encode_cursor, integers, parameters
from svc_web_bff.reply import (
    NO_STORE,
    PER_TENANT,
    REVALIDATE,
    Header,
    NotModified,
    Reply,
    allowed,
    json_reply,
)
from svc_web_bff.settings import Settings

COMMANDS: Mapping[str, type[Command]] = {
    "increment": IncrementCounter,
    "decrement": DecrementCounter,
    "reset": ResetCounter,
}
_PATH_FIELD = "counter_id"
_READ = [HttpMethod.GET, HttpMethod.HEAD]


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

    def context(self, exchange: Exchange, **more: Any) -> Context:
        """Return what travels with a request; its tenant is in every log line from here on."""
        tenant = rules.tenant(exchange.headers)
        structlog.contextvars.bind_contextvars(tenant=tenant)
        return Context(
            tenant=tenant,
            correlation_id=exchange.correlation_id,
            traceparent=exchange.traceparent,
            timeout_s=self.settings.request_timeout_s,
            **more,
        )


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
        context = gateway.context(
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
        answer = await gateway.ask(_message(kind, counter_id, body), context)
        version = _version_in(answer.body)
        token = rules.token_of(context.tenant, counter_id, version)
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
        context = _reading(gateway, exchange)
        parameters(scope["query_string"])
        query = _message(GetCounter, scope["path_params"][_PATH_FIELD], {})
        answer = await gateway.ask(query, context)
        etag = rules.etag_of(_version_in(answer.body))
        cached: tuple[Header, ...] = ((b"etag", etag), REVALIDATE, PER_TENANT)
        if rules.is_known(exchange.headers.joined(b"if-none-match"), etag):
            return NotModified(*cached)
        return Reply(answer.body, *cached)

    return get_counter


def _list_route(gateway: Gateway) -> HTTPRouteHandler:
    @route("/v1/counters", http_method=_READ, name="list-counters")
    async def list_counters(request: AnyRequest) -> Reply:
        scope = request.scope
        context = _reading(gateway, Exchange.of(scope))
        given = parameters(scope["query_string"], "limit", "cursor")
        fields: JsonObject = dict(integers(given, "limit"))
        if (cursor := given.get("cursor")) is not None:
            fields["after"] = decode_cursor(cursor)
        answer = await gateway.ask(_message(ListCounters, None, fields), context)
        page = from_json(answer.body)
        if page["next_cursor"] is None:
            return Reply(answer.body, NO_STORE)
        return json_reply({**page, "next_cursor": encode_cursor(page["next_cursor"])}, NO_STORE)

    return list_counters


def _history_route(gateway: Gateway) -> HTTPRouteHandler:
    @route("/v1/counters/{counter_id:str}/history", http_method=_READ, name="get-history")
    async def get_history(request: AnyRequest) -> Reply:
        scope = request.scope
        context = gateway.context(Exchange.of(scope))
        given = parameters(scope["query_string"], "after", "limit")
        fields = integers(given, "after", "limit")
        query = _message(GetCounterHistory, scope["path_params"][_PATH_FIELD], fields)
        answer = await gateway.ask(query, context)
        return Reply(answer.body, NO_STORE)

    return get_history


def _totals_route(gateway: Gateway) -> HTTPRouteHandler:
    @route("/v1/totals", http_method=_READ, name="get-totals")
    async def get_totals(request: AnyRequest) -> Reply:
        scope = request.scope
        context = gateway.context(Exchange.of(scope))
        parameters(scope["query_string"])
        answer = await gateway.ask(_message(GetTenantTotals, None, {}), context)
        return Reply(answer.body, NO_STORE)

    return get_totals


def _activity_route(gateway: Gateway) -> HTTPRouteHandler:
    @route("/v1/activity", http_method=_READ, name="list-activity")
    async def list_activity(request: AnyRequest) -> Reply:
        scope = request.scope
        context = gateway.context(Exchange.of(scope))
        given = parameters(scope["query_string"], "limit", "before")
        fields = integers(given, "limit", "before")
        answer = await gateway.ask(_message(ListActivity, None, fields), context)
        return Reply(answer.body, NO_STORE)

    return list_activity


def _reading(gateway: Gateway, exchange: Exchange) -> Context:
    """Return the context of a query of the read model, which may be asked to wait for a command."""
    headers = exchange.headers
    token = rules.consistency_token(headers, rules.tenant(headers))
    return gateway.context(exchange, consistency_token=token)


def _message(
    kind: type[Command] | type[Query], counter_id: str | None, fields: Mapping[str, Any]
) -> Command | Query:
    """Return the contract message, or refuse with every part of the request that is wrong."""
    if _PATH_FIELD in fields:
        _refuse(
            kind, [{"loc": (_PATH_FIELD,), "type": "extra_forbidden", "msg": ""}], in_path=False
        )
    try:
        if counter_id is None:
            return kind.model_validate(fields)
        return kind.model_validate({**fields, _PATH_FIELD: counter_id})
    except ValidationError as error:
        lines = error.errors(include_url=False, include_context=False, include_input=False)
        _refuse(kind, cast("list[Mapping[str, Any]]", lines))


def _refuse(
    kind: type[Command] | type[Query], lines: list[Mapping[str, Any]], *, in_path: bool = True
) -> NoReturn:
    fields = [name for name in kind.model_fields if name != _PATH_FIELD]
    errors = []
    for line in lines:
        field = line["loc"][0] if line["loc"] else ""
        detail = str(line["msg"])
        if field == _PATH_FIELD and in_path:
            pointer, detail = f"path:{_PATH_FIELD}", f"expected {IDENTIFIER_RULE}"
        elif issubclass(kind, Query):
            pointer = f"query:{field}"
        else:
            pointer = pointer_to(field)
        if line["type"] == "extra_forbidden":
            detail = f"there is no such field; allowed: {allowed(fields)}"
        errors.append(FieldError(pointer=pointer, detail=detail))
    summary = "; ".join(f"{error.pointer}: {error.detail}" for error in errors[:3])
    raise Refusal(ErrorCode.INVALID_REQUEST, summary, errors=errors)


def _version_in(body: bytes) -> int:
    """Return the version that a reply names: of the very bytes we pass on."""
    return int(from_json(body)["version"])
