from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from flotilla.bus import Answer, Request
from flotilla.buses.local import LocalBus
from svc_web_bff.testing import InMemoryFleet

TRACE = "0af7651916cd43dd8448eb211c80319c"
INCOMING = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
INCREMENT = "/v1/counters/visits/increment"
KEY = {"Idempotency-Key": "k1"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Finished spans; ask for it before `client`, which takes its tracer when it is built."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


async def test_a_request_is_a_server_span_in_the_callers_trace(
    spans: InMemorySpanExporter, client: httpx.AsyncClient, fleet: InMemoryFleet
) -> None:
    await client.post(INCREMENT, json={"by": 5}, headers=KEY | INCOMING)
    (span,) = spans.get_finished_spans()
    assert span.name == "POST /v1/counters/{counter_id}/increment"
    assert span.kind is trace.SpanKind.SERVER
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 200
    assert span.context is not None
    assert span.parent is not None
    assert trace.format_trace_id(span.context.trace_id) == TRACE
    assert trace.format_span_id(span.parent.span_id) == "b7ad6b7169203331"
    span_id = trace.format_span_id(span.context.span_id)
    assert fleet.requests[0].context.traceparent == f"00-{TRACE}-{span_id}-01"


async def test_without_a_callers_trace_a_new_one_begins(
    spans: InMemorySpanExporter, client: httpx.AsyncClient, fleet: InMemoryFleet
) -> None:
    for bad in ({}, {"traceparent": "nonsense"}, {"traceparent": f"00-{'0' * 32}-{'0' * 16}-01"}):
        await client.get("/v1/counters", headers=bad)
    traces = {span.context.trace_id for span in spans.get_finished_spans() if span.context}
    assert len(traces) == 3
    assert all(request.context.traceparent for request in fleet.requests)


async def test_a_failure_of_ours_is_an_error_in_the_trace(
    spans: InMemorySpanExporter, client: httpx.AsyncClient, fleet: InMemoryFleet
) -> None:
    fleet.failure = RuntimeError("boom")
    await client.post(INCREMENT, json={"by": 5}, headers=KEY)
    assert spans.get_finished_spans()[0].status.status_code is trace.StatusCode.ERROR


async def test_a_callers_trace_goes_on_even_where_nobody_records(
    client: httpx.AsyncClient, fleet: InMemoryFleet
) -> None:
    await client.post(INCREMENT, json={"by": 5}, headers=KEY | INCOMING)
    assert TRACE in (fleet.requests[0].context.traceparent or "")


async def test_one_line_a_request_and_it_names_tenant_trace_and_conversation(
    client: httpx.AsyncClient, bus: LocalBus
) -> None:
    inside: dict[str, Any] = {}

    async def look(_request: Request) -> Answer:
        inside.update(structlog.contextvars.get_contextvars())
        return Answer(b'{"counter_id":"visits","value":1,"version":2}')

    await bus.serve("cmd.counter.increment", look)
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        headers = KEY | INCOMING | {"X-Correlation-Id": "shop-42"}
        await client.post(INCREMENT, json={"by": 5}, headers=headers)
    (line,) = lines
    names = {"tenant": "acme", "trace_id": TRACE, "correlation_id": "shop-42"}
    assert inside == names
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "http request",
        "log_level": "info",
        "method": "POST",
        "route": "/v1/counters/{counter_id}/increment",
        "status": 200,
        **names,
    }
    assert structlog.contextvars.get_contextvars() == {}


async def test_a_bug_of_ours_is_in_the_log_and_not_in_the_answer(
    client: httpx.AsyncClient, bus: LocalBus
) -> None:
    async def nonsense(_request: Request) -> Answer:
        return Answer(b'{"secret":1}')

    await bus.serve("cmd.counter.increment", nonsense)
    with capture_logs() as lines:
        response = await client.post(INCREMENT, json={"by": 5}, headers=KEY)
    assert "secret" not in response.text
    (failed, _) = lines
    assert failed["log_level"] == "error"
    assert isinstance(failed["exc_info"], KeyError)
