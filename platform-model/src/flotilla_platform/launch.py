"""The process that hosts a deployable: servers, bus, services, and the way back.

    claim data directory > servers > bus > services, those that listen last > announce > wait
                         <         <     <  the same backwards, whatever ended it; but before a
                                            service stops, nobody is sent to it any more

Nothing here decides *whether* to end quickly: `shutdown` holds the clock from the first sign on.
"""

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from flotilla.bus import Bus
from flotilla.buses.local import LocalBus
from flotilla.buses.routed import RoutedBus
from flotilla.clock import Clock, SystemClock, uuid7
from flotilla.embedded import DataDirectory
from flotilla.service import Bindings, KeysBinding, Running
from flotilla_platform.carrying import DRAIN_TIMEOUT_S, open_bus
from flotilla_platform.hosting import HostedService, wait_for_the_end
from flotilla_platform.key_places import bind_keys, keys_url
from flotilla_platform.planning import Plan, check_port
from flotilla_platform.runtime import Runtime
from flotilla_platform.servers import Servers, start_servers
from flotilla_platform.shutdown import Shutdown


async def run_fleet(plan: Plan, announce: Callable[[Runtime], None]) -> None:
    """Run the deployable until a signal; return when everything has ended.

    `announce` is called once, when all services run.

    Raises:
        EmbeddedError: the data directory or a server cannot be used.
        Failure: a port is taken, or a service did not start, ended by itself or did not stop.

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
    plan: Plan, stack: AsyncExitStack, shutdown: Shutdown, announce: Callable[[Runtime], None]
) -> None:
    clock = SystemClock()
    directory = stack.enter_context(DataDirectory.claim(plan.data, topology=plan.topology.name))
    if plan.listens:
        check_port(plan.http)
    services = [service for service, _ in plan.services]
    servers = await start_servers(plan.topology, services, directory.path, stack, shutdown)
    bus = await stack.enter_async_context(
        open_bus(servers.nats_url, name=plan.topology.deployables[0].name)
    )
    keys = bind_keys(directory.path, servers.postgres) if plan.keeps_keys else None
    hosted = _host(plan, servers, keys, RoutedBus(LocalBus(), bus), clock)
    running = []
    for service in hosted:
        stack.push_async_callback(service.stop)
        running.append(await service.start())
    stack.push_async_callback(bus.drain, DRAIN_TIMEOUT_S)  # before any service stops
    shutdown.watch_signals()
    runtime = _describe(plan, directory.path, servers, running, clock)
    directory.runtime_write(runtime.model_dump(mode="json"))
    shutdown.started()
    announce(runtime)
    await wait_for_the_end(hosted, shutdown.wanted)


def _host(
    plan: Plan, servers: Servers, keys: KeysBinding | None, bus: Bus, clock: Clock
) -> list[HostedService]:
    bindings = Bindings(
        stores=servers.stores,
        nats_url=servers.nats_url,
        bus=bus,
        clock=clock,
        ids=uuid7,
        chance=random.Random(),  # noqa: S311 - jitter, not secrets
        services=plan.topology.services,
        logs=plan.logs,
        keys=keys,
    )
    listening = replace(bindings, http=plan.http)
    return [
        HostedService(service.name, compose, listening if "http" in service.needs else bindings)
        for service, compose in plan.services
    ]


def _describe(
    plan: Plan, data: Path, servers: Servers, running: Sequence[Running], clock: Clock
) -> Runtime:
    api = next((service.address for service in running if service.address), None)
    return Runtime(
        pid=os.getpid(),
        topology=plan.topology.name,
        data=str(data),
        api=api,
        docs=f"{api}/docs" if api else None,
        nats_url=servers.nats_url,
        stores=servers.stores,
        logs=plan.logs,
        views=tuple(service.name for service, _ in plan.services if "views" in service.needs),
        read_models={s.name: s.read_models for s, _ in plan.services if s.read_models},
        keys=keys_url(data, servers.postgres) if plan.keeps_keys else None,
        started_at=clock.now(),
    )
