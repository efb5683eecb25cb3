"""The fleet in containers: real images on a network of an engine, as `deploy/compose` has them."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import docker
import httpx
from docker.models.containers import Container
from fleet import START_TIMEOUT_S, Fleet
from nats.aio.client import Client
from testcontainers.compose import DockerCompose

from flotilla.embedded import DataDirectory
from flotilla.nats import connected
from flotilla_platform.reading import read_platform
from images import build, engine, stand_ins
from images.fleet import COMPOSE, PASSWORDS, write_secrets
from images.settings import ROOT

TOPOLOGY = "compose"
LABEL = "com.docker.compose"
API_PORT, ADMIN_PORT, NATS_PORT, POSTGRES_PORT = 8080, 9090, 4222, 5432
GRACE_S = 20
"""From SIGTERM to SIGKILL of a container; longer than any deployable's `stop_timeout_s`."""


def prepare() -> str:
    """Return the address of an engine that has the images of this work tree. Raises `Unable`."""
    host = engine.ensure()
    stand_ins.provide(host)
    build.build(host)
    return host


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables, which the engine's clients read, while the block runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ComposeFleet(Fleet):
    """A project of containers with passwords, networks and volumes of its own."""

    def __init__(self, folder: Path, host: str) -> None:
        super().__init__(TOPOLOGY, folder)
        self.folder, self.host = folder, host
        self.project = f"flotilla-test-{uuid4().hex[:8]}"
        self.port = free_port()
        self.secrets = folder / "secrets"
        self._stack = ExitStack()

    async def start(self, *, port: int = 0, unless: str = "") -> None:
        """Start all containers; return when the fleet is ready."""
        del port
        write_secrets(self.secrets)
        self._stack.enter_context(
            environment(
                DOCKER_HOST=self.host,
                COMPOSE_PROJECT_NAME=self.project,
                FLOTILLA_SECRETS=str(self.secrets),
                FLOTILLA_PORT=str(self.port),
                TESTCONTAINERS_RYUK_DISABLED="true",
            )
        )
        self._stack.callback(self._remove)
        self.engine = self._stack.enter_context(docker_client(self.host))
        self.compose = DockerCompose(COMPOSE.parent, COMPOSE.name, keep_volumes=False)
        await asyncio.to_thread(self.compose.start)
        self.directory = self._stack.enter_context(
            DataDirectory.claim(self.data, topology=TOPOLOGY)
        )
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await self._ready(unless):
                await asyncio.sleep(0.05)

    async def stop(self, *_: object) -> int:
        """Remove all containers, networks and volumes."""
        await asyncio.to_thread(self._stack.close)
        return 0

    def _remove(self) -> None:
        self.compose.stop(down=True)

    def containers(self, service: str) -> list[Container]:
        """Return the running replicas of a deployable or server, by their names."""
        labels = [f"{LABEL}.project={self.project}", f"{LABEL}.service={service}"]
        found = self.engine.containers.list(filters={"label": labels})
        return sorted(found, key=lambda container: str(container.name))

    def address(self, container: Container) -> str:
        """Return where a container is on the inner network, which the engine's machine reaches."""
        container.reload()
        networks: dict[str, Any] = container.attrs["NetworkSettings"]["Networks"]
        return str(networks[f"{self.project}_inside"]["IPAddress"])

    def _server(self, service: str, port: int) -> str:
        return f"{self.address(self.containers(service)[0])}:{port}"

    def _password(self, account: str) -> str:
        for line in (self.secrets / PASSWORDS).read_text().splitlines():
            name, _, value = line.partition(": ")
            if name == f"{account.replace('-', '_')}_password":
                return str(json.loads(value))
        raise AssertionError(f"{account} has no password")

    def _nats_url(self, account: str) -> str:
        return f"nats://{account}:{self._password(account)}@{self._server('nats', NATS_PORT)}"

    @property
    def runtime(self) -> dict[str, Any]:
        """What `flotilla up` would write of it, for the operator's role and account."""
        layout = read_platform(ROOT / "platform-model").layouts[TOPOLOGY]
        role = (self.secrets / "postgres-operator").read_text()
        store = f"postgresql://operator:{role}@{self._server('postgres', POSTGRES_PORT)}/flotilla"
        now = datetime.now(UTC).isoformat()
        keeping = [s for s in layout.members if {"store", "views"} & set(s.needs)]
        return {
            "pid": os.getpid(),
            "topology": TOPOLOGY,
            "data": str(self.data),
            "api": f"http://127.0.0.1:{self.port}",
            "docs": f"http://127.0.0.1:{self.port}/docs",
            "nats_url": self._nats_url("operator"),
            "stores": {service.name: store for service in keeping},
            "logs": [service.name for service in layout.members if service.log],
            "views": [service.name for service in layout.members if "views" in service.needs],
            "read_models": {s.name: s.read_models for s in layout.members if s.read_models},
            "started_at": now,
            "processes": [
                {
                    "deployable": placed.name,
                    "replica": replica,
                    "state": "running",
                    "since": now,
                    "pid": container.attrs["State"]["Pid"],
                    "admin": f"http://{self.address(container)}:{ADMIN_PORT}",
                }
                for placed in layout.deployables
                for replica, container in enumerate(self.containers(placed.name), start=1)
            ],
        }

    async def status(self) -> dict[str, Any]:
        """Return what `flotilla status --json` says, asked by the operator."""
        self.directory.runtime_write(self.runtime)
        return await super().status()

    @asynccontextmanager
    async def broker(self, account: str) -> AsyncIterator[Client]:
        """Lend a connection of an account, with what it may and no more."""
        async with connected(self._nats_url(account), name=account) as client:
            yield client

    def tail(self) -> str:
        """Return the end of every container's log."""
        found = self.engine.containers.list(
            all=True, filters={"label": f"{LABEL}.project={self.project}"}
        )
        return "\n".join(
            f"== {one.name} ({one.status})\n{one.logs(tail=15).decode(errors='replace')}"
            for one in found
        )


@contextmanager
def docker_client(host: str) -> Iterator[docker.DockerClient]:
    """Lend a client of an engine."""
    client = docker.DockerClient(base_url=host)
    try:
        yield client
    finally:
        client.close()


async def healthy(container: Container, *, within_s: float = 60) -> None:
    """Return when the engine says that a container is healthy."""
    async with asyncio.timeout(within_s):
        while True:
            await asyncio.to_thread(container.reload)
            if container.attrs["State"].get("Health", {}).get("Status") == "healthy":
                return
            await asyncio.sleep(0.1)


async def answers(api: str) -> bool:
    """Whether an API says that it is ready."""
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            return (await client.get(f"{api}/readyz")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def place(api: str) -> str:
    """Return host and port of an API's address."""
    return urlsplit(api).netloc
