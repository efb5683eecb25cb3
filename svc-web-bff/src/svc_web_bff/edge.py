"""Around every request: its names, its span, its log line, its metrics, its last resort.

Wraps the ASGI app of Litestar, so that unknown routes and wrong methods are seen, too.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import structlog
from litestar.enums import ScopeType
from litestar.types import (
    ASGIApp,
    HTTPReceiveMessage,
    HTTPScope,
    Message,
    Receive,
    Scope,
    Send,
    WebSocketReceiveMessage,
)
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bind_contextvars, unbind_contextvars

from flotilla.clock import Clock, IdSource
from flotilla.errors import Unavailable
from flotilla_contracts import ErrorCode
from svc_web_bff.exchange import Exchange
from svc_web_bff.headers import Headers, correlation_id
from svc_web_bff.metrics import NO_ROUTE, HttpMetrics
from svc_web_bff.problems import Refusal, problem_reply
from svc_web_bff.reply import NO_STORE, Header

PATH_BYTES_MAX = 1024
GONE = 499
"""How the log and the metrics call a request that ended without an answer."""

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)
_LINGER_S = 1.0
_LINGER_MESSAGES_MAX = 64
_NO_SNIFFING: Header = (b"x-content-type-options", b"nosniff")
_PROPAGATOR = TraceContextTextMapPropagator()

_log = structlog.get_logger(__name__)


class Edge:
    """The outermost layer. `stop_now` ends what is still under way when the service stops."""

    def __init__(self, app: ASGIApp, *, clock: Clock, ids: IdSource, metrics: HttpMetrics) -> None:
        self._app = app
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._tracer = trace.get_tracer("svc_web_bff")
        self._under_way: set[asyncio.Task[object]] = set()
        self._stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        task = asyncio.current_task()
        if task is not None:
            self._under_way.add(task)
        try:
            await self._exchange(scope, receive, send)
        finally:
            if task is not None:
                self._under_way.discard(task)

    def stop_now(self) -> None:
        """Cancel the requests that are under way; their callers get a 503."""
        self._stopping = True
        for task in self._under_way:
            task.cancel()

    async def _exchange(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        started_s = self._clock.monotonic_s()
        headers = Headers(scope["headers"])
        exchange = Exchange(headers, correlation_id(headers) or str(self._ids()))
        exchange.attach(scope)
        span = self._tracer.start_span(
            _method(scope), context=_incoming(headers), kind=trace.SpanKind.SERVER
        )
        names = {"correlation_id": exchange.correlation_id, **_traced(span, exchange)}
        bind_contextvars(**names)
        token = attach(trace.set_span_in_context(span)) if exchange.traceparent else None
        try:
            await self._answer(scope, _watched(exchange, receive), _stamped(scope, exchange, send))
        finally:
            self._note(scope, exchange.status or GONE, span, started_s)
            unbind_contextvars("tenant", *names)
            if token is not None:
                detach(token)
        if exchange.status >= 400 and _leaves_a_body(exchange):  # noqa: PLR2004 - errors
            await _linger(receive)

    def _note(self, scope: HTTPScope, status: int, span: trace.Span, started_s: float) -> None:
        """Tell the trace, the metrics and the log how it went."""
        method, route = _method(scope), _route(scope)
        if span.is_recording():
            _describe(span, method, route, status)
        span.end()
        duration_s = self._clock.monotonic_s() - started_s
        self._metrics.observe(route, method, status, duration_s)
        _log.info(
            "http request",
            method=method,
            route=route,
            status=status,
            duration_ms=round(duration_s * 1000, 3),
        )

    async def _answer(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        path = scope.get("raw_path") or b""
        exchange = Exchange.of(scope)
        try:
            if len(path) > PATH_BYTES_MAX or b"%2f" in path.lower():
                # An encoded slash is part of a name, but frameworks decode it before they route.
                await problem_reply(_no_such_path(path))(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._stopping or exchange.status:
                raise
            await problem_reply(Unavailable("this server is stopping"))(scope, receive, send)
        except Exception as error:
            if exchange.status:
                raise
            await problem_reply(error)(scope, receive, send)


def _watched(exchange: Exchange, receive: Receive) -> Receive:
    """Return a `receive` that notes when the body is over."""

    async def watched() -> HTTPReceiveMessage | WebSocketReceiveMessage:
        message = await receive()
        exchange.is_body_over = not message.get("more_body")
        return message

    return watched


def _leaves_a_body(exchange: Exchange) -> bool:
    """Return whether there may be more of the request's body than anybody has read."""
    headers = exchange.headers
    declared = headers.get(b"content-length") or headers.get(b"transfer-encoding")
    return not exchange.is_body_over and declared not in (None, "0")


async def _linger(receive: Receive) -> None:
    """Let a client finish its sentence, within limits, so that it sees the answer.

    Closing a connection with unread data resets it, and the answer may be lost on the way.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            for _ in range(_LINGER_MESSAGES_MAX):
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return


def _method(scope: HTTPScope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "OTHER"


def _no_such_path(path: bytes) -> Refusal:
    reason = "too long" if len(path) > PATH_BYTES_MAX else "it has an encoded slash (%2F)"
    return Refusal(ErrorCode.ROUTE_NOT_FOUND, f"no route has this path: {reason}; see /docs")


def _stamped(scope: HTTPScope, exchange: Exchange, send: Send) -> Send:
    """Return a `send` that adds what every answer carries, and no body to the answer of a HEAD."""
    is_head = scope["method"] == "HEAD"
    correlation: Header = (b"x-correlation-id", exchange.correlation_id.encode())

    async def stamped(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            headers = [*message["headers"], _NO_SNIFFING, correlation]
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append(NO_STORE)
            message["headers"] = headers
        elif is_head and message["type"] == "http.response.body":
            message["body"] = b""
        await send(message)

    return stamped


def _incoming(headers: Headers) -> Context:
    """Return the trace that the caller is in, or an empty one: never that of another request."""
    traceparent = headers.get(b"traceparent")
    if traceparent is None:
        return Context()
    carrier = {"traceparent": traceparent, "tracestate": headers.get(b"tracestate") or ""}
    return _PROPAGATOR.extract(carrier, context=Context())


def _traced(span: trace.Span, exchange: Exchange) -> Mapping[str, str]:
    """Note the span as parent of what follows; return how the log names its trace."""
    span_context = span.get_span_context()
    if not span_context.is_valid:
        return {}
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context=trace.set_span_in_context(span, Context()))
    exchange.traceparent = carrier["traceparent"]
    return {"trace_id": trace.format_trace_id(span_context.trace_id)}


def _route(scope: HTTPScope) -> str:
    template = scope.get("path_template")
    return template if isinstance(template, str) else NO_ROUTE


def _describe(span: trace.Span, method: str, route: str, status: int) -> None:
    span.update_name(method if route == NO_ROUTE else f"{method} {route}")
    span.set_attributes(
        {"http.request.method": method, "http.route": route, "http.response.status_code": status}
    )
    if status >= 500:  # noqa: PLR2004 - server errors
        span.set_status(trace.StatusCode.ERROR)
