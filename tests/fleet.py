"""A fleet as a user runs it: `flotilla up` in a process of its own, spoken to over HTTP."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from nats.aio.client import Client

from flotilla.clock import SystemClock
from flotilla.nats import connected
from flotilla_platform.runtime import find_running
from flotilla_platform.status import read_status

ONE_PROCESS = ("single", "single-postgres")
TOPOLOGIES = (*ONE_PROCESS, "vps")
FLOTILLA = Path(sys.executable).with_name("flotilla")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


class Fleet:
    """One data directory, and the fleet that runs in it now."""

    def __init__(self, topology: str, data: Path, **env: str) -> None:
        self.topology = topology
        self.data = data / topology
        self.env = env
        self.process: Process | None = None
        self.log = data / "fleet.log"

    async def start(self, *, port: int = 0, unless: str = "") -> None:
        """Start it; return when it is ready, or when it says that `unless` is missing."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                FLOTILLA,
                *("up", "--topology", self.topology, "--data", self.data, "--port", str(port)),
                *("--log-format", "json"),
                stdout=log,
                stderr=log,
                env=os.environ | self.env,
            )
        await self.until_ready(unless)

    async def until_ready(self, unless: str = "") -> None:
        """Return when the fleet says that nothing is missing, or that `unless` is."""
        assert self.process
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                if self.process.returncode is not None:
                    raise AssertionError(f"the fleet ended:\n{self.tail()}")
                if (self.data / "runtime.json").exists() and await self._ready(unless):
                    return
                await asyncio.sleep(0.05)

    async def _ready(self, unless: str) -> bool:
        try:
            async with self.client() as client:
                answer = await client.get("/readyz")
                return unless in answer.text if unless else answer.status_code == 200
        except (httpx.HTTPError, OSError, ValueError):
            return False

    @property
    def runtime(self) -> dict[str, Any]:
        """What the fleet says of itself."""
        found: dict[str, Any] = json.loads((self.data / "runtime.json").read_text())
        return found

    def client(self, tenant: str = "acme") -> httpx.AsyncClient:
        """Return a client of the REST API."""
        return httpx.AsyncClient(
            base_url=self.runtime["api"],
            headers={"X-Tenant-Id": tenant},
            timeout=30,
            limits=httpx.Limits(max_connections=50),
        )

    @asynccontextmanager
    async def broker(self, account: str) -> AsyncIterator[Client]:
        """Lend a connection to the broker; where it knows accounts, of that one."""
        async with connected(self.runtime["nats_url"], name=account) as client:
            yield client

    async def metrics(self) -> str:
        """Return what Prometheus reads of all processes."""
        pages = [process["admin"] for process in self.runtime["processes"]] or [self.runtime["api"]]
        async with httpx.AsyncClient(timeout=30) as client:
            return "".join([(await client.get(f"{page}/metrics")).text for page in pages])

    async def status(self) -> dict[str, Any]:
        """Return what `flotilla status --json` prints, without a process for each time."""
        found = await read_status(find_running(self.data), SystemClock())
        return found.model_dump(mode="json")

    async def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Stop it; return its exit code."""
        if self.process is None:
            return 0
        if self.process.returncode is None:
            self.process.send_signal(how)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S + 1):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise AssertionError(f"not stopped:\n{self.tail()}") from None

    def tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text()[-4000:]

    async def kill(self) -> None:
        """End it without a chance to clean up."""
        assert self.process
        self.process.kill()
        await self.process.wait()


async def count(
    client: httpx.AsyncClient,
    counter: str,
    by: int = 1,
    *,
    key: str,
    verb: str = "increment",
    **headers: str,
) -> httpx.Response:
    """Send one command."""
    return await client.post(
        f"/v1/counters/{counter}/{verb}",
        json={"by": by} if verb != "reset" else {},
        headers={"Idempotency-Key": key} | {k.replace("_", "-"): v for k, v in headers.items()},
    )


async def read(client: httpx.AsyncClient, counter: str, token: str | None = None) -> httpx.Response:
    """Read a counter, after the view has seen `token`."""
    return await client.get(
        f"/v1/counters/{counter}", headers={"X-Consistency-Token": token} if token else {}
    )


async def settled(fleet: Fleet, *, within_s: float = 20) -> dict[str, Any]:
    """Return the status once nothing waits, the stream has it all, and no projection is behind."""
    status: dict[str, Any] = {}
    try:
        async with asyncio.timeout(within_s):
            while True:
                status = await fleet.status()
                behind = [log["waiting"] for log in status["logs"]]
                behind += [log["offset"] != log["stream_last_sequence"] for log in status["logs"]]
                behind += [p["lag_events"] for p in status["projections"]]
                if status["projections"] and not any(behind):
                    return status
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"never settled: {status}") from None


async def exact_copy(fleet: Fleet) -> None:
    """Assert that the stream has every committed event once, each stream's versions in order."""
    status = await settled(fleet)
    async with fleet.broker("outbox-relay") as connection:
        js = connection.jetstream()
        state = (await js.stream_info("EVT_COUNTER")).state
        messages = [await js.get_msg("EVT_COUNTER", n) for n in range(1, state.last_seq + 1)]
    assert status["logs"][0]["committed"] == len(messages)
    assert len(messages) == len({(m.headers or {})["ce-id"] for m in messages})
    versions: dict[str, int] = {}
    for message in messages:
        headers = message.headers or {}
        version = int(headers["ce-streamversion"])
        assert versions.get(headers["ce-stream"], 0) + 1 == version
        versions[headers["ce-stream"]] = version
