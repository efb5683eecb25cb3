"""What survives what: processes killed, brokers killed and emptied, restarts, taken places."""

import asyncio
import gzip
import json
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from fleet import FLOTILLA, ONE_PROCESS, Fleet, count, exact_copy, read, settled
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def pids_of(fleet: Fleet, program: str) -> list[int]:
    """Return the processes of `program` that work in this fleet's data directory."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True
    )
    lines = [line.split(None, 1) for line in listed.stdout.splitlines()]
    return [int(p) for p, args in lines if program in args and str(fleet.data) in args]


def is_alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


async def until(fact: Callable[[], bool], what: str, *, within_s: float = 15) -> None:
    try:
        async with asyncio.timeout(within_s):
            while not fact():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s: {what}") from None


async def insist(
    send: Callable[[], Awaitable[httpx.Response]], *, within_s: float = 30
) -> httpx.Response:
    """Send until it is answered with something final; the idempotency key makes that safe."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                answer = await send()
            except (httpx.HTTPError, OSError):
                await asyncio.sleep(0.05)
                continue
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(0.05)


async def total(fleet: Fleet, counter: str) -> tuple[int, int]:
    """Return (value, version) of a counter once everything has settled."""
    await settled(fleet)
    async with fleet.client() as client:
        found = (await read(client, counter)).json()
    return found["value"], found["version"]


async def test_a_second_run_goes_on_where_the_first_was(own_fleet: Fleet) -> None:
    fleet = own_fleet
    await fleet.start()
    async with fleet.client() as client:
        first = await count(client, "c", 5, key="k")
    assert 0 == await fleet.stop()
    await until(lambda: not pids_of(fleet, "nats-server") + pids_of(fleet, "postgres"), "all ended")

    await fleet.start()

    async with fleet.client() as client:
        again = await count(client, "c", 5, key="k")
        more = await count(client, "c", 1, key="k2")
    assert (first.content, "true") == (again.content, again.headers["idempotency-replayed"])
    assert 6 == more.json()["value"]
    assert (6, 3) == await total(fleet, "c")


async def test_kill_9_leaves_nothing_behind_that_blocks_the_next_start(own_fleet: Fleet) -> None:
    fleet = own_fleet
    await fleet.start()
    children = pids_of(fleet, "nats-server") + pids_of(fleet, "postgres")
    assert children
    async with fleet.client() as client:
        await count(client, "c", 5, key="k")

    await fleet.kill()
    await fleet.start()

    assert (5, 2) == await total(fleet, "c")
    await until(lambda: not any(is_alive(pid) for pid in children), f"{children} ended")
    assert 0 == await fleet.stop()


async def test_kill_9_under_load_loses_and_repeats_nothing(own_fleet: Fleet) -> None:
    """Also between a commit and its publish: the second life picks up what the first left."""
    fleet = own_fleet
    await fleet.start()
    answers: list[httpx.Response] = []

    async def work(worker: int) -> None:
        for n in range(25):

            async def send(key: str = f"{worker}-{n}") -> httpx.Response:
                async with fleet.client() as client:
                    return await count(client, "c", key=key)

            answers.append(await insist(send, within_s=60))

    async def nemesis() -> None:
        for _ in range(3):
            await asyncio.sleep(0.3)
            await fleet.kill()
            await fleet.start()

    await asyncio.gather(nemesis(), *(work(w) for w in range(4)))

    assert {200} == {answer.status_code for answer in answers}
    assert set(range(1, 101)) == {answer.json()["value"] for answer in answers}
    assert (100, 101) == await total(fleet, "c")
    await exact_copy(fleet)


async def test_a_broker_that_is_killed_under_load_costs_time_and_nothing_else(
    own_fleet: Fleet,
) -> None:
    fleet = own_fleet
    await fleet.start()
    done, killed = 0, list[int]()

    async def work(worker: int) -> None:
        nonlocal done
        async with fleet.client() as client:
            for n in range(40):
                answer = await insist(lambda n=n: count(client, f"c{worker}", key=f"{worker}-{n}"))  # type: ignore[misc]
                assert 200 == answer.status_code
                done += 1

    async def nemesis() -> None:
        for _ in range(3):
            already = done
            await until(
                lambda already=already: (
                    done > already + 5 and len(pids_of(fleet, "nats-server")) == 1
                ),  # type: ignore[misc]
                "work goes on, with a broker",
            )
            [pid] = pids_of(fleet, "nats-server")
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    await asyncio.gather(nemesis(), *(work(w) for w in range(4)))

    assert 3 == len(set(killed))
    await fleet.until_ready()
    for worker in range(4):
        assert (40, 41) == await total(fleet, f"c{worker}")
    await exact_copy(fleet)


async def test_a_broker_that_lost_everything_is_filled_again(own_fleet: Fleet) -> None:
    """Same sequences, same messages; the read model goes on from its checkpoint."""
    fleet = own_fleet
    await fleet.start()
    async with fleet.client() as client:
        for n in range(30):
            await count(client, f"c{n % 3}", key=f"k{n}")
    before = await settled(fleet)
    assert 0 == await fleet.stop()
    for file in sorted((fleet.data).rglob("jetstream/**/*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()

    await fleet.start()

    after = await settled(fleet)
    assert before["logs"][0]["offset"] == after["logs"][0]["stream_last_sequence"]
    await exact_copy(fleet)
    async with fleet.client() as client:
        answer = await count(client, "c0", key="new")
        found = await read(client, "c0", answer.headers["x-consistency-token"])
    assert (200, 11) == (found.status_code, found.json()["value"])


async def test_a_killed_postgres_comes_back_and_nothing_is_lost(tmp_path: Path) -> None:
    fleet = Fleet("single-postgres", tmp_path)
    await fleet.start()
    try:
        pid = int((next(fleet.data.rglob("postmaster.pid"))).read_text().splitlines()[0])

        async def work(worker: int) -> None:
            async with fleet.client() as client:
                for n in range(40):
                    answer = await insist(lambda n=n: count(client, "c", key=f"{worker}-{n}"))  # type: ignore[misc]
                    assert 200 == answer.status_code

        async def nemesis() -> None:
            await asyncio.sleep(0.2)
            os.kill(pid, signal.SIGKILL)

        await asyncio.gather(nemesis(), *(work(w) for w in range(4)))

        assert (160, 161) == await total(fleet, "c")
        await exact_copy(fleet)
    finally:
        await fleet.stop()


# Clear refusals.


async def refused(*arguments: object, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run `flotilla up`, which must end by itself; return its exit code and what it says."""
    process = await asyncio.create_subprocess_exec(
        FLOTILLA,
        "up",
        *map(str, arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | (env or {}),
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert not out, out
    return process.returncode, err.decode()


def one_line(text: str) -> str:
    assert 1 == len(text.strip().splitlines()), text
    return text.strip()


async def test_a_data_directory_in_use_is_refused(own_fleet: Fleet) -> None:
    await own_fleet.start()

    code, said = await refused(
        "--topology", own_fleet.topology, "--data", own_fleet.data, "--port", 0
    )

    assert 4 == code
    assert "in use" in one_line(said) or "another" in one_line(said)
    async with own_fleet.client() as client:
        assert 200 == (await count(client, "c", key="k")).status_code


async def test_a_taken_port_is_refused_and_leaves_nothing_running(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        code, said = await refused("--data", tmp_path / "d", "--port", port)

    assert 5 == code
    assert str(port) in one_line(said)
    assert [] == pids_of(Fleet("single", tmp_path), "nats-server")


@pytest.mark.parametrize("topology", ONE_PROCESS)
async def test_a_corrupt_data_directory_is_refused(tmp_path: Path, topology: str) -> None:
    fleet = Fleet(topology, tmp_path)
    await fleet.start()
    assert 0 == await fleet.stop()
    victims = [*fleet.data.glob("counter.db"), *fleet.data.rglob("global/pg_control")]
    for victim in victims:
        victim.write_bytes(b"not what it was" * 1000)
    assert victims

    code, said = await refused("--topology", topology, "--data", fleet.data, "--port", 0)

    assert code in {4, 6, 10}
    assert one_line(said)


async def test_a_topology_that_nobody_knows_is_refused_with_a_hint(tmp_path: Path) -> None:
    code, said = await refused("--topology", "singel", "--data", tmp_path)

    assert 2 == code
    assert "did you mean" in one_line(said) and "single" in said


async def test_status_of_nothing_says_so(tmp_path: Path) -> None:
    ran = subprocess.run(
        [FLOTILLA, "status", "--data", tmp_path], capture_output=True, text=True, check=False
    )

    assert 7 == ran.returncode
    assert "nothing is running" in one_line(ran.stderr)


# One trace.


async def test_a_request_is_one_trace_from_http_to_the_view(tmp_path: Path) -> None:
    names: dict[str, set[str]] = {}

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        names.setdefault(span.trace_id.hex(), set()).add(span.name)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    fleet = Fleet("single", tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    try:
        await fleet.start()
        async with fleet.client() as client:
            answer = await count(
                client, "c", key="k", traceparent=f"00-{trace}-00f067aa0ba902b7-01"
            )
            await read(client, "c", answer.headers["x-consistency-token"])
        assert 0 == await fleet.stop()
    finally:
        await fleet.stop()
        server.shutdown()
        server.server_close()

    assert {"cmd.counter.increment", "commit", "relay.publish", "project.counters"} <= names[trace]
    assert any(name.startswith("POST /v1/counters") for name in names[trace])
    logged = [
        json.loads(line) for line in fleet.log.read_text().splitlines() if line.startswith("{")
    ]
    assert any(line.get("trace_id") == trace and line.get("tenant") == "acme" for line in logged)
