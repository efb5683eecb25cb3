"""Lines have one shape and no secrets; traces cross processes; metrics have names by one rule."""

import asyncio
import gzip
import io
import json
import logging
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import PurePosixPath
from typing import Any

import prometheus_client
import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from flotilla import metrics, telemetry
from flotilla.bus import Answer, Request
from flotilla.buses.local import LocalBus
from flotilla.errors import Rejected, Unavailable
from flotilla.testing.bus import SUBJECT, asked

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Configuring is for the whole process: put everything back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    telemetry.configure("svc-test", log_format="json")
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[ReadableSpan, ...]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("flotilla"))
    return exporter.get_finished_spans


class TestLines:
    def test_a_line_is_one_json_object(self, lines: Lines) -> None:
        structlog.get_logger().info("counter.incremented", by=5, note="zwei\nZeilen ✓")

        [line] = lines()
        timestamp = line.pop("timestamp")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", timestamp)
        assert {
            "event": "counter.incremented",
            "level": "info",
            "service": "svc-test",
            "logger": __name__,
            "by": 5,
            "note": "zwei\nZeilen ✓",
        } == line

    def test_other_peoples_lines_look_the_same(self, lines: Lines) -> None:
        structlog.get_logger().warning("ours")
        logging.getLogger("_granian").warning("Listening at: %s", "http://127.0.0.1:80")

        ours, theirs = lines()
        assert set(ours) == set(theirs)
        assert ("Listening at: http://127.0.0.1:80", "_granian", "warning") == (
            theirs["event"],
            theirs["logger"],
            theirs["level"],
        )

    @pytest.mark.parametrize("name", ["_granian", "faststream", "nats", "litestar"])
    def test_handlers_that_others_brought_are_gone(
        self, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        theirs = io.StringIO()
        logging.getLogger(name).addHandler(logging.StreamHandler(theirs))
        telemetry.configure("svc-test", log_format="json")

        logging.getLogger(name).warning("hello")

        assert "" == theirs.getvalue()
        assert 1 == len(capsys.readouterr().err.splitlines())

    def test_extras_of_the_standard_library_are_kept_but_not_believed(self, lines: Lines) -> None:
        logging.getLogger("x").info("hello", extra={"subject": "s", "service": "other"})

        [line] = lines()
        assert ("s", "svc-test") == (line["subject"], line["service"])

    def test_context_is_merged(self, lines: Lines) -> None:
        with structlog.contextvars.bound_contextvars(tenant="acme"):
            structlog.get_logger().info("one")
            logging.getLogger("x").info("two")

        assert ["acme", "acme"] == [line["tenant"] for line in lines()]

    def test_a_traceback_is_text(self, lines: Lines) -> None:
        try:
            raise ZeroDivisionError("at nats://me:hunter2@host")  # noqa: TRY301 - for a traceback
        except ZeroDivisionError:
            structlog.get_logger().exception("failed")

        [line] = lines()
        assert "Traceback" in line["exception"]
        assert "ZeroDivisionError: at nats://***@host" in line["exception"]

    def test_warnings_are_lines(self, lines: Lines) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=False)  # catch_warnings replaced what is captured
            logging.captureWarnings(capture=True)
            warnings.warn("careful", stacklevel=1)
            logging.captureWarnings(capture=False)

        [line] = lines()
        assert ("py.warnings", "warning") == (line["logger"], line["level"])

    def test_levels(self, capsys: pytest.CaptureFixture[str]) -> None:
        telemetry.configure("svc-test", log_format="json", log_level="warning")
        for log in (structlog.get_logger(), logging.getLogger("x")):
            log.info("quiet")
            log.warning("loud")

        assert ["loud", "loud"] == [
            json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()
        ]

    def test_pretty_is_for_people_and_colours_for_terminals(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        written = {}
        for name, stream, log_format in (
            ("file", io.StringIO(), "auto"),
            ("terminal", Terminal(), "auto"),
            ("pretty file", io.StringIO(), "pretty"),
            ("json terminal", Terminal(), "json"),
        ):
            monkeypatch.setattr(sys, "stderr", stream)
            telemetry.configure("svc-test", log_format=log_format)  # type: ignore[arg-type]
            structlog.get_logger().info("hello", url="nats://u:p@h", token="t")
            written[name] = stream.getvalue()

        assert "hello" == json.loads(written["file"])["event"]
        assert "hello" == json.loads(written["json terminal"])["event"]
        assert "\x1b[" in written["terminal"]
        assert "\x1b[" not in written["pretty file"]
        assert "url=nats://***@h" in written["pretty file"]
        assert "token=***" in written["pretty file"]

    @pytest.mark.parametrize(
        "wrong", [{"log_level": "loud"}, {"log_format": "xml"}, {"log_level": ""}]
    )
    def test_wrong_settings_are_told(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="no log"):
            telemetry.configure("svc-test", **wrong)


class TestMasking:
    @pytest.mark.parametrize(
        "key",
        [
            "password",
            "db_password",
            "PASSWORD",
            "authToken",
            "auth-token",
            "client_secret",
            "Authorization",
            "credentials",
            "api_key",
            "apiKey",
            "set-cookie",
        ],
    )
    def test_a_key_gives_a_secret_away(self, lines: Lines, key: str) -> None:
        structlog.get_logger().info("x", **{key: "hunter2"}, nested=[{"deep": {key: "hunter2"}}])

        [line] = lines()
        assert "hunter2" not in json.dumps(line)
        assert "***" == line[key]

    @pytest.mark.parametrize("key", ["consistency_token", "tokenizer", "secretary", "passwordless"])
    def test_not_everything_is_a_secret(self, lines: Lines, key: str) -> None:
        structlog.get_logger().info("x", **{key: "acme/counter/a@7"})

        assert "acme/counter/a@7" == lines()[0][key]

    @pytest.mark.parametrize(
        ("text", "masked"),
        [
            ("postgresql://u:hunter2@h:5432/db?x=1", "postgresql://***@h:5432/db?x=1"),
            ("nats://hunter2@h:4222", "nats://***@h:4222"),
            ("redis://:hunter2@h", "redis://***@h"),
            ("cannot reach nats://u:hun@ter2@h, sorry", "cannot reach nats://***@h, sorry"),
            ("postgresql://u:hun/ter2@h/db", "postgresql://***@h/db"),
            ("nats://h:4222", "nats://h:4222"),
            ("https://h/path/me@example.org", "https://h/path/me@example.org"),
            ("me@example.org", "me@example.org"),
        ],
    )
    def test_addresses_lose_their_credentials(self, lines: Lines, text: str, masked: str) -> None:
        structlog.get_logger().info(text, url=text, urls=(text, {"u": text}), error=OSError(text))

        [line] = lines()
        assert [masked, masked, [masked, {"u": masked}]] == [
            line["event"],
            line["url"],
            line["urls"],
        ]
        assert f"OSError('{masked}')" == line["error"]

    def test_everything_else_can_be_written(self, lines: Lines) -> None:
        circle: list[object] = []
        circle.append(circle)
        structlog.get_logger().info(
            "x", path=PurePosixPath("/a"), raw=b"\xff", none=None, circle=circle, keys={1: 2}
        )

        [line] = lines()
        assert ("/a", "b'\\xff'", None) == (line["path"], line["raw"], line["none"])


class TestTraces:
    def test_without_a_collector_nothing_is_traced_and_parents_are_handed_on(self) -> None:
        with telemetry.span("outer") as outer:
            assert not outer.is_recording()
            assert telemetry.current_traceparent() is None
        with telemetry.span("inner", traceparent=PARENT):
            assert PARENT == telemetry.current_traceparent()
        assert telemetry.current_traceparent() is None

    def test_without_a_collector_it_costs_next_to_nothing(self) -> None:
        rounds = 2_000
        best_s = 1.0
        for _ in range(5):
            begin_s = time.perf_counter()
            for _ in range(rounds):
                with telemetry.span("x", subject="cmd.counter.increment"):
                    pass
            best_s = min(best_s, (time.perf_counter() - begin_s) / rounds)

        assert best_s < 100e-6, "some 5 µs; far more means that something is recorded"

    def test_a_trace_continues(self, spans: Callable[[], tuple[ReadableSpan, ...]]) -> None:
        with (
            telemetry.span("bus.handle", traceparent=PARENT, kind=SpanKind.SERVER, subject=SUBJECT),
            telemetry.span("store.commit", units=3),
        ):
            inside = telemetry.current_traceparent()

        commit, handle = spans()
        assert handle.context and commit.context and handle.parent and commit.parent
        assert 0x0AF7651916CD43DD8448EB211C80319C == handle.context.trace_id
        assert 0xB7AD6B7169203331 == handle.parent.span_id
        assert handle.context.span_id == commit.parent.span_id
        assert handle.context.trace_id == commit.context.trace_id
        assert f"00-{commit.context.trace_id:032x}-{commit.context.span_id:016x}-01" == inside
        assert {"subject": SUBJECT} == dict(handle.attributes or {})
        assert SpanKind.SERVER is handle.kind

    async def test_a_trace_crosses_the_bus(
        self, spans: Callable[[], tuple[ReadableSpan, ...]]
    ) -> None:
        async def handler(request: Request) -> Answer:
            with telemetry.span("handle", traceparent=request.context.traceparent):
                await asyncio.sleep(0)
            return Answer(b"")

        bus = LocalBus()
        await bus.serve(SUBJECT, handler)
        with telemetry.span("ask"):
            context = asked().context
            traced = type(context)("acme", "c", traceparent=telemetry.current_traceparent())
            await asyncio.create_task(bus.request(asked(context=traced)))

        handle, ask = spans()
        assert handle.parent and ask.context
        assert ask.context.span_id == handle.parent.span_id

    @pytest.mark.parametrize("nonsense", ["", "nonsense", "00-0-0-00", "00-" + "0" * 32 + "-x-01"])
    def test_a_traceparent_that_is_none_begins_a_trace(
        self, spans: Callable[[], tuple[ReadableSpan, ...]], nonsense: str
    ) -> None:
        with telemetry.span("x", traceparent=nonsense):
            pass

        assert spans()[0].parent is None

    def test_an_error_is_recorded_and_a_refusal_is_not_an_error(
        self, spans: Callable[[], tuple[ReadableSpan, ...]]
    ) -> None:
        for error in (Unavailable("away"), Rejected("no", code="limit-passed")):
            with pytest.raises(type(error)), telemetry.span("x"):
                raise error

        failed, refused = spans()
        assert StatusCode.ERROR is failed.status.status_code
        assert ["exception"] == [event.name for event in failed.events]
        assert StatusCode.UNSET is refused.status.status_code
        assert {"flotilla.rejected": "limit-passed"} == dict(refused.attributes or {})

    def test_lines_know_their_span(
        self, lines: Lines, spans: Callable[[], tuple[ReadableSpan, ...]]
    ) -> None:
        with telemetry.span("x", traceparent=PARENT):
            structlog.get_logger().info("ours")
            logging.getLogger("x").info("theirs")
        structlog.get_logger().info("outside")

        ours, theirs, outside = lines()
        context = spans()[0].context
        assert context
        expected = ("0af7651916cd43dd8448eb211c80319c", f"{context.span_id:016x}")
        assert expected == (ours["trace_id"], ours["span_id"])
        assert expected == (theirs["trace_id"], theirs["span_id"])
        assert "trace_id" not in outside


class TestCollector:
    """A process has one tracer provider for good: these have a process of their own."""

    def test_spans_arrive_with_the_services_name(self) -> None:
        received: list[tuple[str, bytes]] = []

        class Collector(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                received.append((self.path, body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with HTTPServer(("127.0.0.1", 0), Collector) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                run = _run(f"""
telemetry.configure("svc-test", otlp_endpoint="http://127.0.0.1:{server.server_port}")
with telemetry.span("counter.increment"):
    print(telemetry.current_traceparent())
assert telemetry.shutdown()
""")
            finally:
                server.shutdown()
                thread.join()

        assert "" == run.stderr
        assert run.stdout.startswith("00-")
        [(path, body)] = received
        assert "/v1/traces" == path
        assert b"svc-test" in body
        assert b"counter.increment" in body

    def test_a_collector_that_is_away_does_not_keep_us(self) -> None:
        run = _run("""
import time
telemetry.configure("svc-test", otlp_endpoint="http://127.0.0.1:1", log_level="critical")
with telemetry.span("x"):
    pass
begin = time.monotonic()
telemetry.shutdown(timeout_s=0.5)
print(time.monotonic() - begin)
""")
        assert float(run.stdout) < 3.0

    def test_a_missing_exporter_is_told_with_its_cure(self) -> None:
        run = _run("""
import sys
sys.modules["opentelemetry.exporter.otlp.proto.http.trace_exporter"] = None
try:
    telemetry.configure("svc-test", otlp_endpoint="http://127.0.0.1:4318")
except ImportError as error:
    print(error)
""")
        assert "install flotilla[otlp]" in run.stdout

    def test_traces_are_configured_once(self) -> None:
        run = _run("""
telemetry.configure("svc-test", otlp_endpoint="http://127.0.0.1:1")
telemetry.configure("svc-test", log_level="debug")
try:
    telemetry.configure("svc-test", otlp_endpoint="http://127.0.0.1:1")
except RuntimeError as error:
    print(error)
telemetry.shutdown()
""")
        assert "configured already" in run.stdout

    def test_nothing_to_shut_down(self) -> None:
        assert telemetry.shutdown()


def _run(script: str) -> subprocess.CompletedProcess[str]:
    code = f"from flotilla import telemetry\n{script}"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )


class TestMetrics:
    def test_names_follow_one_rule(self) -> None:
        families = {
            family.name: family
            for family in prometheus_client.REGISTRY.collect()
            if family.name.startswith("flotilla_")
        }
        units = "units|commands|seconds|events|handshakes|offset|leader|owner|ready|connections"
        units += "|instances|moving"

        assert families
        for name, family in families.items():
            assert re.fullmatch(rf"flotilla(_[a-z]+)*_({units})", name), name
            assert family.documentation.endswith("."), name

    def test_they_can_be_read(self) -> None:
        metrics.COMMANDS.labels(subject=SUBJECT, result="ok").inc()

        page = prometheus_client.generate_latest().decode()

        assert f'flotilla_commands_total{{result="ok",subject="{SUBJECT}"}} 1.0' in page
