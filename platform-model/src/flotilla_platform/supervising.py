"""A fleet of processes on one machine: its servers, and a supervised process a deployable replica.

    claim data directory > servers > all processes at once > announce > wait
                         <         <  stop: those that listen, then the others; servers come last

Processes find their servers themselves and start in any order. One that ends is started again
(`supervised`); one that cannot live ends the fleet, with its words.
"""

import asyncio
import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rich.console import Console

from flotilla.clock import Clock, SystemClock
from flotilla.embedded import DataDirectory
from flotilla.service import HttpBinding
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.key_places import key_variables, keys_url
from flotilla_platform.lines import Lines, Logging
from flotilla_platform.model import Layout, Placed, Platform, Service
from flotilla_platform.planning import check_data, check_port
from flotilla_platform.runtime import Runtime
from flotilla_platform.servers import Servers, start_servers
from flotilla_platform.settings import inherited
from flotilla_platform.shutdown import Shutdown
from flotilla_platform.supervised import SupervisedProcess

LISTENING_STOP_TIMEOUT_S = 2.3
STOP_TIMEOUT_S = 3.8
"""For those that listen, and then for all of them: with the servers, in the limit of `shutdown`."""


@dataclass(frozen=True, slots=True)
class ProcessesPlan:
    """A fleet of processes: what runs in them, and where."""

    root: Path
    """Of the model, which the processes read again."""
    topology: Layout
    services: Mapping[str, Service]
    data: Path
    http: HttpBinding
    logging: Logging

    def needs_of(self, deployable: Placed) -> set[str]:
        """Return what the services of a deployable need, together."""
        return {need for name in deployable.services for need in self.services[name].needs}


def make_processes_plan(
    platform: Platform, topology: Layout, data: Path, http: HttpBinding, logging: Logging
) -> ProcessesPlan:
    """Return what `flotilla up` runs for a topology of processes.

    Raises:
        Failure: the data directory cannot be part of a store's URL.

    """
    check_data(data)
    services = {name: platform.services[name] for name in topology.services}
    return ProcessesPlan(platform.root.resolve(), topology, services, data, http, logging)


async def run_processes(plan: ProcessesPlan, announce: Callable[[Runtime], None]) -> None:
    """Run the fleet until a signal; return when everything has ended.

    `announce` is called once, when all processes serve.

    Raises:
        EmbeddedError: the data directory or a server cannot be used.
        Failure: a port is taken, or a process did not start, keeps ending or did not stop.

    """
    shutdown = Shutdown()
    shutdown.watch_signals()
    try:
        async with AsyncExitStack() as stack:
            try:
                await _run(plan, stack, shutdown, announce)
            finally:
                shutdown.begin()
    except asyncio.CancelledError:
        if not shutdown.wanted.is_set():
            raise


async def _run(
    plan: ProcessesPlan,
    stack: AsyncExitStack,
    shutdown: Shutdown,
    announce: Callable[[Runtime], None],
) -> None:
    clock = SystemClock()
    directory = stack.enter_context(DataDirectory.claim(plan.data, topology=plan.topology.name))
    if any("http" in plan.needs_of(deployable) for deployable in plan.topology.deployables):
        check_port(plan.http)
    everything = list(plan.services.values())
    servers = await start_servers(plan.topology, everything, directory.path, stack, shutdown)
    fleet = _Fleet(plan, directory, servers, clock)
    fleet.processes += _processes(plan, servers, clock, fleet.tell)
    stack.push_async_callback(_stop, fleet.processes)
    await _all_started(fleet.processes)
    shutdown.watch_signals()
    shutdown.started()
    fleet.up_since = clock.now()
    fleet.tell()
    announce(fleet.describe())
    await _watch(fleet.processes, shutdown)


@dataclass(eq=False)
class _Fleet:
    """What is told of a fleet of processes, in `runtime.json`; again whenever one of them changes."""

    plan: ProcessesPlan
    directory: DataDirectory
    servers: Servers
    clock: Clock
    processes: list[SupervisedProcess] = field(default_factory=list)
    up_since: datetime | None = None

    def tell(self) -> None:
        """Tell other processes, once it is up."""
        if self.up_since is not None:
            self.directory.runtime_write(self.describe().model_dump(mode="json"))

    def describe(self) -> Runtime:
        """Return where everything is."""
        serving = [process.serving for process in self.processes if process.serving]
        api = next((each.api for each in serving if each.api), None)
        services = self.plan.services.values()
        return Runtime(
            pid=os.getpid(),
            topology=self.plan.topology.name,
            data=str(self.directory.path),
            api=api,
            docs=f"{api}/docs" if api else None,
            nats_url=self.servers.nats_url,
            stores=self.servers.stores,
            logs=tuple(service.name for service in services if service.log is not None),
            views=tuple(service.name for service in services if "views" in service.needs),
            read_models={s.name: s.read_models for s in services if s.read_models},
            keys=self._keys_url(),
            started_at=self.up_since or self.clock.now(),
            processes=tuple(process.state for process in self.processes),
        )

    def _keys_url(self) -> str | None:
        if any("keys" in service.needs for service in self.plan.services.values()):
            return keys_url(self.directory.path, self.servers.postgres)
        return None


async def _all_started(processes: Sequence[SupervisedProcess]) -> None:
    """Start all at once; raises what the first says that does not, whatever the others do then."""
    starting = [asyncio.create_task(p.start(), name=f"start-{p.name}") for p in processes]
    try:
        done, _ = await asyncio.wait(starting, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in starting:
            task.cancel()


async def _watch(processes: Sequence[SupervisedProcess], shutdown: Shutdown) -> None:
    """Return when the end is wanted; raises what ended a process for good."""
    wanted = asyncio.create_task(shutdown.wanted.wait(), name="wait-for-stop")
    watches = [asyncio.create_task(p.watch(), name=f"watch-{p.name}") for p in processes]
    try:
        await asyncio.wait({wanted, *watches}, return_when=asyncio.FIRST_COMPLETED)
        if not shutdown.wanted.is_set():
            for watch in watches:
                if watch.done():
                    watch.result()
    finally:
        for task in (wanted, *watches):
            task.cancel()
        await asyncio.wait({wanted, *watches})


async def _stop(processes: Sequence[SupervisedProcess]) -> None:
    """Stop those that listen, and then those they ask."""
    loop = asyncio.get_running_loop()
    began_s, killed = loop.time(), list[str]()
    for listens, within_s in (True, LISTENING_STOP_TIMEOUT_S), (False, STOP_TIMEOUT_S):
        left_s = began_s + within_s - loop.time()
        stopping = [process for process in processes if process.listens is listens]
        polite = await asyncio.gather(*(process.stop(left_s) for process in stopping))
        killed += [p.name for p, done in zip(stopping, polite, strict=True) if not done]
    if killed:
        raise Failure(
            ExitCode.NOT_STOPPED,
            f"{', '.join(killed)} did not stop in time and was killed; the data is safe",
        )


def _processes(
    plan: ProcessesPlan, servers: Servers, clock: Clock, changed: Callable[[], None]
) -> list[SupervisedProcess]:
    deployables = plan.topology.deployables
    width = max(len(f"{deployable.name}/{deployable.replicas}") for deployable in deployables)
    lines = Lines(
        plan.logging.form, width, clock, colours=Console(stderr=True).color_system is not None
    )
    chance = random.Random()  # noqa: S311 - jitter, not secrets
    environment = inherited() | {
        "FLOTILLA_NATS_URL": servers.nats_url,
        "FLOTILLA_ADMIN_HOST": "127.0.0.1",
        "FLOTILLA_ADMIN_PORT": "0",
    }
    if plan.logging.otlp_endpoint:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = plan.logging.otlp_endpoint
    found = []
    for deployable in deployables:
        needs, more = plan.needs_of(deployable), dict[str, str]()
        if servers.postgres and {"store", "views", "logs", "keys"} & needs:
            more["FLOTILLA_STORE_URL"] = servers.postgres
        if "keys" in needs:
            more |= key_variables(plan.data.resolve())
        if "http" in needs:
            more["FLOTILLA_HTTP_HOST"] = plan.http.host
            more["FLOTILLA_HTTP_PORT"] = str(plan.http.port)
        found += [
            SupervisedProcess(
                deployable=deployable.name,
                replica=replica,
                listens="http" in needs,
                arguments=_arguments(plan, deployable.name),
                environment=environment | more,
                lines=lines,
                clock=clock,
                chance=chance,
                changed=changed,
            )
            for replica in range(1, deployable.replicas + 1)
        ]
    return found


def _arguments(plan: ProcessesPlan, deployable: str) -> list[str]:
    form, level = plan.logging.form, plan.logging.level
    return [
        *("serve", deployable, "--topology", plan.topology.name, "--model", str(plan.root)),
        *("--json", "--log-format", form, "--log-level", level),
    ]
