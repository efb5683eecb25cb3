"""How results look: colours on a terminal only, plain lines everywhere else, NO_COLOR respected."""

from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from flotilla_platform.runtime import Runtime
from flotilla_platform.showing import show_runtime

RUNTIME = Runtime(
    pid=7,
    topology="single",
    data="/data",
    api="http://127.0.0.1:8080",
    docs="http://127.0.0.1:8080/docs",
    nats_url="nats://127.0.0.1:4222",
    stores={},
    logs=(),
    views=(),
    started_at=datetime(2026, 11, 1, tzinfo=UTC),
)


def shown(*, terminal: bool) -> str:
    output = StringIO()
    Console(file=output, force_terminal=terminal, width=80).print(show_runtime(RUNTIME))
    return output.getvalue()


def test_plain_lines_say_where_everything_is() -> None:
    lines = [" ".join(line.split()) for line in shown(terminal=False).splitlines()]
    assert lines == [
        "flotilla is up: topology single, process 7",
        "API http://127.0.0.1:8080",
        "docs http://127.0.0.1:8080/docs",
        "data /data",
        "broker nats://127.0.0.1:4222",
        "Ctrl-C stops it.",
    ]


def test_a_terminal_gets_colours_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[36m" in shown(terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[36m" not in shown(terminal=True)
