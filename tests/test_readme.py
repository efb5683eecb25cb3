"""The README's tour, executed: what it shows is what a fleet answers, to the letter.

Every ```console block is a list of commands (`$ …`, going on while a line ends with a backslash), each
followed by what it prints. They are run in order, with bash, against one fleet on fresh data. Only
`curl`, `make` and `.venv/bin/python tail.py` may occur; that script is the README's ```python block.
"""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flotilla_platform.testing import environment, start_fleet

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

API, DATA = "127.0.0.1:8080", ".flotilla/single"
"""What the README calls the fleet's address and its data directory."""
COMMAND_TIMEOUT_S = 60

VARYING = (
    # Ids are UUIDv7: of a request, and so of what it is called in the log.
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<id>"),
    # When an event was recorded; and when HTTP answered.
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"(?m)^date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$", "date: <date>"),
    # Which process `flotilla status` looks at, where its data and its broker are.
    (r"process \d+, data \S+", "process <n>, data <path>"),
    (r"nats://127\.0\.0\.1:\d+", "nats://<broker>"),
    # HTTP ends lines with CR LF; tables end them with blanks.
    (r"(?m)[ \t\r]+$", ""),
)
"""Everything that differs between two runs, and nothing else."""


@dataclass(frozen=True)
class Step:
    line: int
    command: str
    output: str


def blocks(language: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of the README's code blocks in `language`."""
    for found in re.finditer(rf"(?ms)^```{language}\n(.*?)^```$", README):
        yield README.count("\n", 0, found.start(1)) + 1, found[1]


def steps() -> Iterator[Step]:
    for first_line, text in blocks("console"):
        assert text.startswith("$ "), f"README.md:{first_line}: a block begins with a command"
        for found in re.finditer(r"(?m)^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", text):
            line = first_line + text.count("\n", 0, found.start())
            yield Step(line, found[1], found[2])


def normalised(output: str) -> str:
    for pattern, name in VARYING:
        output = re.sub(pattern, name, output)
    return output.strip("\n")


def test_the_tour_is_what_a_fleet_answers(tmp_path: Path) -> None:
    [(_, script)] = blocks("python")
    tail = tmp_path / "tail.py"
    tail.write_text(script, encoding="utf-8")
    data = tmp_path / "data"
    with start_fleet(tmp_path, "--data", data, "--port", 0) as fleet:
        address = str(fleet.runtime().api).removeprefix("http://")
        # `make` must not set up the environment that the tests are running in.
        real = {
            API: address,
            ".venv/bin/python tail.py": shlex.join([sys.executable, str(tail)]),
            DATA: str(data),
            "make ": "make --no-print-directory --old-file=.venv/.ready ",
        }
        told = []
        for step in steps():
            command = step.command
            assert command.split()[0] in {"curl", "make", ".venv/bin/python"}, step
            for shown, meant in real.items():
                command = command.replace(shown, meant)
            done = subprocess.run(
                ["bash", "-c", command],
                capture_output=True,
                check=False,
                cwd=ROOT,
                env=environment({"DATA": str(data), "MAKEFLAGS": "", "MAKELEVEL": "0"}),
                text=True,
                timeout=COMMAND_TIMEOUT_S,
            )
            assert done.returncode == 0, f"README.md:{step.line}: {command}\n{done.stderr}"
            answer = done.stdout.replace(address, API)
            assert normalised(step.output) == normalised(answer), f"README.md:{step.line}"
            told.append(step.command.split()[0])
        assert fleet.end(signal.SIGINT) == 0
    assert told.count("curl") >= 8
    assert {"make", ".venv/bin/python"} <= set(told)


@pytest.mark.parametrize(
    ("shown", "answered"),
    [
        ('{"value":5,"version":2}', '{"value":5,"version":3}'),
        ("HTTP/1.1 200 OK", "HTTP/1.1 412 Precondition Failed"),
        ('etag: "2"\nserver: x', "server: x"),
        ("acme/counter/visits@2", "acme/counter/visits@3"),
        ("counter   3   3   0", "counter   3   2   1"),
        ("healthy", "✗ the broker does not answer"),
        ("one line", "one line\nand another"),
        ("something", ""),
    ],
)
def test_what_matters_is_not_normalised_away(shown: str, answered: str) -> None:
    assert normalised(shown) != normalised(answered)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [] == [link for link in local if not (document.parent / link).exists()]
