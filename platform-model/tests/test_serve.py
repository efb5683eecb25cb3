"""`flotilla serve`: one deployable, on servers that somebody else runs."""

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from flotilla.bus import Context, Request
from flotilla.buses.nats import NatsBus
from flotilla.embedded import NatsServer, run_nats
from flotilla.testing.servers import nats_server, open_folder
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.testing import COMMAND, environment, eventually

__all__ = ["nats_server"]

LIMIT_S = 60.0
STOP_LIMIT_S = 5.0
CONTEXT = Context(tenant="t", correlation_id="c")
STORE = "postgresql://nobody:hunter2@127.0.0.1:1/nothing"


class Served:
    """A `flotilla serve` that was started."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process, self._out, self._err = process, out, err

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def says(self) -> dict[str, Any]:
        """Wait until it serves, and return what it says of itself."""

        def line() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.stderr
            first = self.stdout.partition("\n")
            return json.loads(first[0]) if first[1] else None

        return eventually(line, "serves", LIMIT_S)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_LIMIT_S)

    def complaints(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("flotilla: ")]


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path, write_processes: Callable[..., Path]) -> Iterator[Serve]:
    started: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []

    def start(*names: str, deployable: str | None = None, **env: str) -> Served:
        """Serve the first of the services, in a topology of all of them."""
        model = write_processes(*names)
        out, err = (tmp_path / f"{len(started)}.{kind}" for kind in ("out", "err"))
        arguments = ("serve", deployable or names[0], "-t", "many", "--model", model, "--json")
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                stdout=stdout,
                stderr=stderr,
                env=environment({"PYTHONPATH": str(Path(__file__).parent), **env}),
                cwd=tmp_path,
            )
        started.append((process, stdout))
        return Served(process, out, err)

    yield start
    for process, _ in started:
        process.kill()
        process.wait(LIMIT_S)


def readiness(admin: str) -> tuple[int, list[str]]:
    try:
        with urlopen(f"{admin}/readyz", timeout=5) as answer:
            return answer.status, json.load(answer)["missing"]
    except HTTPError as error:
        return error.code, json.load(error)["missing"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


async def test_it_serves_over_nats_and_says_where_its_pages_are(
    serve: Serve, nats_server: NatsServer
) -> None:
    served = serve("compose", FLOTILLA_NATS_URL=nats_server.url)
    said = await asyncio.to_thread(served.says)
    assert (said["deployable"], said["topology"], said["api"]) == ("compose", "many", None)
    assert said["pid"] == served.process.pid
    assert await asyncio.to_thread(readiness, said["admin"]) == (200, [])
    async with NatsBus(nats_server.url, name="test") as bus:
        assert b'"hi"' == (await bus.request(Request("qry.tiny.say", b'"hi"', CONTEXT))).body
    assert await asyncio.to_thread(served.end) == ExitCode.OK


async def test_what_a_service_lacks_is_named_on_its_page(
    serve: Serve, nats_server: NatsServer
) -> None:
    served = serve("lacks-something", FLOTILLA_NATS_URL=nats_server.url)
    said = await asyncio.to_thread(served.says)
    assert await asyncio.to_thread(readiness, said["admin"]) == (
        503,
        ["lacks-something: a spanner"],
    )


async def test_services_find_each_other_in_any_order(serve: Serve, nats_server: NatsServer) -> None:
    asking = serve("asks", "compose", FLOTILLA_NATS_URL=nats_server.url)
    eventually(
        lambda: "nobody answers qry.tiny.say" in asking.stderr or None, "waits for the other"
    )
    assert asking.stdout == ""
    serve("asks", "compose", deployable="compose", FLOTILLA_NATS_URL=nats_server.url)
    await asyncio.to_thread(asking.says)


async def test_the_broker_may_come_later(serve: Serve) -> None:
    admin, port = free_port(), free_port()
    with open_folder() as folder:
        served = serve(
            "compose",
            FLOTILLA_NATS_URL=f"nats://x:hunter2@127.0.0.1:{port}",
            FLOTILLA_ADMIN_PORT=str(admin),
        )
        page = f"http://127.0.0.1:{admin}"

        def named() -> bool | None:
            try:
                status, [missing] = readiness(page)
            except OSError:
                return None
            return (status == 503 and "NATS" in missing) or None

        await asyncio.to_thread(eventually, named, "says what is missing", LIMIT_S)
        async with run_nats(folder, port=port):
            await asyncio.to_thread(served.says)
            assert await asyncio.to_thread(readiness, page) == (200, [])
        assert "hunter2" not in served.stderr


async def test_what_was_taken_is_answered_before_anything_closes(
    serve: Serve, nats_server: NatsServer
) -> None:
    served = serve("is-slow", FLOTILLA_NATS_URL=nats_server.url)
    said = await asyncio.to_thread(served.says)
    async with NatsBus(nats_server.url, name="test") as bus:
        asked = asyncio.create_task(bus.request(Request("cmd.slow.work", b"{}", CONTEXT)))
        await asyncio.to_thread(
            eventually, lambda: "working" in served.stdout or None, "takes the request"
        )
        served.process.send_signal(signal.SIGTERM)
        status, missing = await asyncio.to_thread(
            eventually,
            lambda: found if (found := readiness(said["admin"]))[0] != 200 else None,
            "unready first",
        )
        assert (status, missing) == (503, ["it is stopping"])
        assert not asked.done()
        assert (await asked).body == b'"done"'
    assert await asyncio.to_thread(served.process.wait, STOP_LIMIT_S) == ExitCode.OK


def test_a_store_that_never_answers_is_told_without_its_password(
    serve: Serve, nats_server: NatsServer
) -> None:
    served = serve("keeps", FLOTILLA_NATS_URL=nats_server.url, FLOTILLA_STORE_URL=STORE)
    eventually(lambda: "postgres does not answer" in served.stderr or None, "says so")
    assert served.end() == ExitCode.OK  # a signal while it waits
    assert "hunter2" not in served.stderr


def test_a_service_that_fails_is_not_waited_for(serve: Serve, nats_server: NatsServer) -> None:
    served = serve("fails-to-start", FLOTILLA_NATS_URL=nats_server.url)
    assert served.process.wait(LIMIT_S) == ExitCode.SERVICE_FAILED
    assert served.complaints() == [
        "flotilla: the service 'fails-to-start' did not start: RuntimeError: no luck"
    ]


def test_without_its_environment_nothing_starts(serve: Serve) -> None:
    served = serve("keeps", FLOTILLA_NATS_ULR="nats://x")
    assert served.process.wait(LIMIT_S) == ExitCode.SETTING_INVALID
    assert [line.split(" ")[1:4] for line in served.complaints()] == [
        ["there", "is", "no"],
        ["FLOTILLA_STORE_URL", "is", "missing:"],
        ["FLOTILLA_NATS_URL", "is", "missing:"],
    ]


def test_an_unknown_deployable_is_asked_about(serve: Serve) -> None:
    served = serve("compose", deployable="compos")
    assert served.process.wait(LIMIT_S) == ExitCode.USAGE
    assert served.complaints() == [
        "flotilla: the topology 'many' has no deployable 'compos': did you mean 'compose'?"
    ]
