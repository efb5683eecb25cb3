"""Logs and traces: configured once, by a composition root, before anything else.

    telemetry.configure("svc-counter", otlp_endpoint="http://collector:4318")
    try:
        ...
    finally:
        telemetry.shutdown()

Every line on stderr has one shape, whoever wrote it (structlog, or the standard library's logging,
through which granian, FastStream, nats-py and Litestar speak), and no secret in it that its key or
its form gives away. Without an endpoint nothing is traced: `span` then only hands a caller's
`traceparent` on. Metrics are in `flotilla.metrics`.
"""

import logging
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from structlog.typing import EventDict, Processor, WrappedLogger

from flotilla.errors import Rejected

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

SHUTDOWN_TIMEOUT_S = 5.0
"""How long the last spans may take to leave; a collector that is away must not keep us here."""

LogFormat = Literal["auto", "json", "pretty"]
"""`auto` is pretty on a terminal and JSON everywhere else."""

_MASK = "***"
_NESTING_MAX = 6
_SECRET_WORDS = re.compile(
    r"(?:^|[_\-.\s])(?:passwords?|passwd|pwd|secrets?|tokens?|authorization|cookies?|credentials?"
    r"|api[_\-]?keys?|private[_\-]?keys?)(?:$|[_\-.\s])",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_SECRETS = frozenset({"consistency_token", "consistency-token", "x-consistency-token"})
# `user:password` or `token`; a password may wrongly hold a slash, so from its colon on, more goes.
_URL_CREDENTIALS = re.compile(r"(?<=://)(?:[^\s/?#@:\"'<>]*:[^\s\"'<>]*|[^\s/?#\"'<>]+)(?=@)")
_FOREIGN = ("_granian", "granian.access", "faststream", "nats", "litestar")
_TRACES_PATH = "/v1/traces"

tracer: trace.Tracer = trace.get_tracer("flotilla")
_propagator = TraceContextTextMapPropagator()
_provider: "TracerProvider | None" = None
_UNTRACED = nullcontext(trace.INVALID_SPAN)

about: ContextVar[Mapping[str, str]] = ContextVar("flotilla_about")
"""What every line logged in this context is about: a request's tenant and correlation id.

One variable, since it is set for every request: structlog's own are one a name, and
cost seven times more.
"""


def configure(
    service: str,
    *,
    log_format: LogFormat = "auto",
    log_level: str = "info",
    otlp_endpoint: str | None = None,
) -> None:
    """Set up logging, and tracing when there is an endpoint (OTLP over HTTP: `http://host:4318`).

    `service` names this deployable in every line and span. Logging may be configured again.

    Raises:
        ValueError: there is no such level or format.
        ImportError: an endpoint without the extra `otlp`.
        RuntimeError: traces are configured already; OpenTelemetry allows that once a process.

    """
    _configure_logging(service, log_format, log_level)
    if otlp_endpoint:
        _configure_traces(service, _otlp_exporter(otlp_endpoint))


def shutdown(timeout_s: float = SHUTDOWN_TIMEOUT_S) -> bool:
    """Send the last spans; return False when that did not work out within `timeout_s` seconds.

    Blocks: from a coroutine, call it in a thread.
    """
    if _provider is None:
        return True
    # The SDK's own limits are not kept while an export is being retried.
    last = threading.Thread(target=_provider.shutdown, name="telemetry-shutdown", daemon=True)
    last.start()
    last.join(timeout_s)
    return not last.is_alive()


def granian_log_config() -> dict[str, Any]:
    """Return granian's `log_dictconfig`, so that its lines take our way and not its own."""
    ours = {"handlers": [], "propagate": True}
    return {"loggers": {"_granian": dict(ours), "granian.access": dict(ours)}}


# Traces.


def span(
    name: str,
    *,
    traceparent: str | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    **attributes: AttributeValue,
) -> AbstractContextManager[Span]:
    """Do something as a span: of the trace in `traceparent` (W3C), else of the current one.

    An error marks it as failed; a `Rejected` does not, since saying no is no failure. A
    `traceparent` that is none begins a new trace. Costs nothing where there is nothing to trace.
    """
    if not traceparent and _provider is None and isinstance(tracer, trace.ProxyTracer):
        return _UNTRACED
    return _span(name, traceparent, kind, attributes)


@contextmanager
def _span(
    name: str,
    traceparent: str | None,
    kind: SpanKind,
    attributes: Mapping[str, AttributeValue],
) -> Iterator[Span]:
    parent = _propagator.extract({"traceparent": traceparent}, Context()) if traceparent else None
    current = tracer.start_span(name, context=parent, kind=kind, attributes=attributes)
    with trace.use_span(
        current, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        try:
            yield current
        except Rejected as refusal:
            current.set_attribute("flotilla.rejected", refusal.code)
            raise
        except Exception as error:
            current.record_exception(error)
            current.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
            raise


def mark(name: str, traceparents: Iterable[str | None]) -> None:
    """Leave a span in each of these traces: what was done for many requests at once.

    Costs nothing while no traces are exported.
    """
    if _provider is None:
        return
    for traceparent in traceparents:
        if traceparent:
            with span(name, traceparent=traceparent):
                pass


def current_traceparent() -> str | None:
    """Return the W3C `traceparent` of the current span, to send along; None outside of any."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _configure_traces(service: str, exporter: "SpanExporter") -> None:
    global _provider  # noqa: PLW0603 - OpenTelemetry has one provider a process, and so have we
    if _provider is not None:
        raise RuntimeError("traces are configured already")
    # The SDK costs every process a tenth of a second at its start, and few export.
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - see above

    _provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    _provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(_provider)


def _otlp_exporter(endpoint: str) -> "SpanExporter":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - extra
            OTLPSpanExporter,
        )
    except ImportError as error:
        raise ImportError(
            "an OTLP endpoint is configured, but its exporter is missing: install flotilla[otlp]"
        ) from error
    base = endpoint.rstrip("/")
    return OTLPSpanExporter(base if base.endswith(_TRACES_PATH) else base + _TRACES_PATH)


# Logs.


def _configure_logging(service: str, log_format: LogFormat, log_level: str) -> None:
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise ValueError(f"no log level {log_level!r}: debug, info, warning, error or critical")
    if log_format not in {"auto", "json", "pretty"}:
        raise ValueError(f"no log format {log_format!r}: auto, json or pretty")
    terminal = sys.stderr.isatty()
    pretty = log_format == "pretty" or (log_format == "auto" and terminal)

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_about,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
        _add_trace,
        structlog.processors.StackInfoRenderer(),
    ]
    render: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=terminal, exception_formatter=structlog.dev.plain_traceback
        )
        if pretty
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _StderrHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                mask_secrets,  # last: exceptions are text by now, and talk as well
                render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _FOREIGN:
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True
    logging.captureWarnings(capture=True)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment: test runners exchange it and close the old one."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # StreamHandler's own would keep the stream

    @property
    def stream(self) -> TextIO:  # type: ignore[override] # an attribute there
        return sys.stderr


def add_about(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add what this context is about; what the line says itself counts more."""
    return {**about.get({}), **event}


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace values whose key names a secret, and what stands before the @ of an address.

    A net, not a licence: a password in the middle of a sentence gets through.
    """
    return _masked_items(event, depth=0)


def _masked_items(items: Mapping[Any, Any], depth: int) -> MutableMapping[str, Any]:
    return {
        key: _MASK if isinstance(key, str) and _is_secret(key) else _masked(value, depth + 1)
        for key, value in items.items()
    }


def _masked(value: object, depth: int) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping() if depth <= _NESTING_MAX:
            return _masked_items(value, depth)
        case list() | tuple() | set() | frozenset() if depth <= _NESTING_MAX:
            return [_masked(item, depth + 1) for item in value]
        case _:
            # Anything else becomes text here, before the renderer does it behind our back.
            text = repr(value) if isinstance(value, bytes | BaseException) else str(value)
            return _URL_CREDENTIALS.sub(_MASK, text) if "://" in text else text


def _is_secret(key: str) -> bool:
    return key.lower() not in _NO_SECRETS and bool(_SECRET_WORDS.search(_CAMEL.sub("_", key)))
