"""What a handler and a store did can be seen, and seeing it changes nothing."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

import prometheus_client
import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flotilla import telemetry
from flotilla.bus import Answer, Context, Request
from flotilla.errors import Conflict, Corrupt, KernelError, Rejected, Unavailable
from flotilla.observe import ObservedStore, observed
from flotilla.store import Committed, Conflicted, Failed, Replayed, Reused, Unit
from flotilla.stores.memory import MemoryStore
from flotilla.testing.store import A, B, append, record

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def subject() -> str:
    """Metrics are for the whole process: each test looks at a subject of its own."""
    return f"cmd.test.{uuid4().hex}"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[ReadableSpan, ...]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("flotilla"))
    return exporter.get_finished_spans


def asked(subject: str, traceparent: str | None = None) -> Request:
    return Request(subject, b"{}", Context("acme", "c-1", traceparent=traceparent))


def sample(name: str, **labels: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0


def counted(subject: str) -> dict[str, float]:
    """Return how often each result was counted."""
    return {
        sample.labels["result"]: sample.value
        for metric in prometheus_client.REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "flotilla_commands_total" and sample.labels["subject"] == subject
    }


@pytest.mark.parametrize(
    ("answer", "result"),
    [(Answer(b"x", version=1), "ok"), (Answer(b"x", replayed=True), "replayed")],
)
async def test_an_answer_is_counted_timed_and_passed_on(
    subject: str, answer: Answer, result: str
) -> None:
    async def handler(_: Request) -> Answer:
        return answer

    assert answer == await observed(handler)(asked(subject))

    assert {result: 1.0} == counted(subject)
    assert 1.0 == sample("flotilla_command_duration_seconds_count", subject=subject)


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (Rejected("no"), "rejected"),
        (Conflict("late"), "conflict"),
        (Unavailable("away"), "unavailable"),
        (Corrupt("broken"), "corrupt"),
        (ZeroDivisionError("a bug"), "failed"),
        (asyncio.CancelledError(), "failed"),
    ],
)
async def test_an_error_is_counted_by_its_family_and_passed_on(
    subject: str, error: BaseException, result: str
) -> None:
    async def handler(_: Request) -> Answer:
        raise error

    with pytest.raises(type(error)) as caught:
        await observed(handler)(asked(subject))

    assert error is caught.value
    assert {result: 1.0} == counted(subject)
    assert 1.0 == sample("flotilla_command_duration_seconds_count", subject=subject)


@pytest.mark.parametrize("error", [Rejected("no"), Unavailable("away")])
async def test_only_a_broken_promise_wakes_somebody(subject: str, error: KernelError) -> None:
    raised: list[KernelError] = [error, Corrupt("a hole in acme/thing/a")]

    async def handler(_: Request) -> Answer:
        raise raised.pop(0)

    with structlog.testing.capture_logs() as lines:
        for kind in (type(error), Corrupt):
            with pytest.raises(kind):
                await observed(handler)(asked(subject))

    assert [("handler.corrupt", "critical", subject, "a hole in acme/thing/a")] == [
        (line["event"], line["log_level"], line["subject"], line["error"]) for line in lines
    ]


async def test_the_handlers_own_lines_say_whose_request_it_was(subject: str) -> None:
    seen: dict[str, object] = {}

    async def handler(_: Request) -> Answer:
        seen.update(telemetry.add_about(None, "info", {"event": "hello"}))
        return Answer(b"")

    await observed(handler)(asked(subject))

    assert {"tenant": "acme", "correlation_id": "c-1", "event": "hello"} == seen
    assert {} == structlog.contextvars.get_contextvars()


async def test_what_the_handler_causes_belongs_to_its_span(
    subject: str, spans: Callable[[], tuple[ReadableSpan, ...]]
) -> None:
    """So that a stored event points to the very work that made it, within the caller's trace."""
    received: list[str | None] = []

    async def handler(request: Request) -> Answer:
        received.append(request.context.traceparent)
        return Answer(b"")

    await observed(handler)(asked(subject, PARENT))

    [span] = spans()
    assert span.context and span.parent
    assert (subject, "acme") == (span.name, (span.attributes or {})["tenant"])
    assert PARENT.split("-")[1:3] == [
        f"{span.context.trace_id:032x}",
        f"{span.parent.span_id:016x}",
    ]
    assert [f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"] == received


async def test_without_traces_the_callers_context_is_handed_on(subject: str) -> None:
    received: list[str | None] = []

    async def handler(request: Request) -> Answer:
        received.append(request.context.traceparent)
        return Answer(b"")

    for parent in (PARENT, None):
        await observed(handler)(asked(subject, parent))

    assert [PARENT, None] == received


async def test_commits_are_counted_by_outcome_and_size() -> None:
    store = ObservedStore(MemoryStore())
    kinds = {
        kind.__name__.lower(): kind for kind in (Committed, Conflicted, Replayed, Reused, Failed)
    }
    names = {"flotilla_commit_batch_units_count": 1.0, "flotilla_commit_batch_units_sum": 6.0}
    before = {kind: sample("flotilla_commit_units_total", outcome=kind) for kind in kinds}
    sizes = {name: sample(name) for name in names}

    outcomes = await store.commit(
        [
            Unit((append(A, 0, "1"),), record("k", b"f", b"reply")),
            Unit((append(B, 0, "1"),)),
            Unit((), record("k", b"f")),
            Unit((), record("k", b"other")),
            Unit((append(A, 9, "1"),)),
            Unit((append(B, 1, "no json"),)),
        ]
    )

    assert list(kinds.values()) == sorted({type(o) for o in outcomes}, key=[*kinds.values()].index)
    after = {kind: sample("flotilla_commit_units_total", outcome=kind) for kind in kinds}
    assert dict.fromkeys(kinds, 1.0) | {"committed": 2.0} == {
        k: after[k] - before[k] for k in kinds
    }
    assert names == {name: sample(name) - sizes[name] for name in names}
    assert 1 == (await store.load(A, claims=[record("k").claim])).version
