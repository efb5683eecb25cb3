"""One deployable in the foreground: a process that starts no servers, and finds what others run.

    admin pages > broker is there > services are there > announce > serve
                <                 <                    <  stop: unready, nobody is sent here any more,
                                                          what was taken is answered, services end

Processes start in any order: what is missing is waited for, `START_WAIT_S` in all, named on `/readyz`
and in the log, and then given up with those words. Nothing that only has to be waited for ends a
process that has once served.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import structlog

from flotilla.bus import Bus
from flotilla.buses.local import LocalBus
from flotilla.buses.nats import NatsBus
from flotilla.buses.routed import RoutedBus
from flotilla.clock import Clock, SystemClock, uuid7
from flotilla.errors import KernelError, Unavailable
from flotilla.service import Bindings, Running
from flotilla_platform.admin import open_admin
from flotilla_platform.carrying import DRAIN_TIMEOUT_S, open_bus
from flotilla_platform.failing import ServiceFailed
from flotilla_platform.hosting import HostedService, wait_for_the_end
from flotilla_platform.planning import Part, check_port
from flotilla_platform.runtime import Serving
from flotilla_platform.settings import Places
from flotilla_platform.shutdown import Shutdown

START_WAIT_S = 60.0
"""How long store, broker and other services may be away when a process starts."""
HEALTH_TIMEOUT_S = 2.0

_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 2.0

log = structlog.get_logger()


@dataclass(eq=False)
class Readiness:
    """What `/readyz` of this process tells."""

    waits_for: str = "it is starting"
    """Why it does not serve; empty once it does."""
    bus: NatsBus | None = None
    services: list[Running] = field(default_factory=list)

    async def missing(self) -> list[str]:
        """Return what is missing, in words."""
        if self.waits_for:
            return [self.waits_for]
        missing = [] if self.bus and self.bus.is_connected else ["not connected to NATS"]
        for found in await asyncio.gather(*map(_missing_of, self.services)):
            missing += found
        return missing


async def _missing_of(service: Running) -> list[str]:
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            health = await service.health()
    except TimeoutError:
        return [f"{service.name}: it does not say how it is within {HEALTH_TIMEOUT_S:g} s"]
    except KernelError as error:
        return [f"{service.name}: {error}"]
    return [f"{service.name}: {what}" for what in health.missing]


async def run_deployable(part: Part, places: Places, announce: Callable[[Serving], None]) -> None:
    """Run one deployable until a signal; return when everything in it has ended.

    `announce` is called once, when all of its services run.

    Raises:
        Failure: a port is taken, or a service did not start, ended by itself or did not stop.
        Unavailable: the broker was not there in time.

    """
    shutdown = Shutdown()
    shutdown.watch_signals()
    readiness = Readiness()
    try:
        async with AsyncExitStack() as stack:
            try:
                serving = await _start(part, places, stack, readiness)
                shutdown.watch_signals()
                shutdown.started()
                announce(serving.announcement)
                await wait_for_the_end(serving.services, shutdown.wanted)
            finally:
                readiness.waits_for = "it is stopping"
                shutdown.begin()
    except asyncio.CancelledError:
        if not shutdown.wanted.is_set():
            raise


@dataclass(frozen=True, slots=True)
class _Started:
    services: Sequence[HostedService]
    announcement: Serving


async def _start(
    part: Part, places: Places, stack: AsyncExitStack, readiness: Readiness
) -> _Started:
    enter, name = stack.enter_async_context, part.deployable.name
    if "http" in part.needs:
        check_port(places.http)
    admin = await enter(open_admin(places.admin, readiness.missing))
    patience = _Patience(SystemClock(), random.Random(), readiness)  # noqa: S311 - jitter
    readiness.waits_for = "it is starting: it waits for NATS"
    bus = await patience.until_there(lambda: enter(open_bus(places.nats, name=name)))
    readiness.bus = bus
    services = _host(part, places, RoutedBus(LocalBus(), bus), patience)
    for service in services:
        readiness.waits_for = f"it is starting: the service {service.name!r} does"
        stack.push_async_callback(service.stop)
        readiness.services.append(await patience.until_there(service.start))
    stack.push_async_callback(bus.drain, DRAIN_TIMEOUT_S)  # so it runs before any service stops
    readiness.waits_for = ""
    api = next((service.address for service in readiness.services if service.address), None)
    announcement = Serving(
        deployable=name, topology=part.topology.name, pid=os.getpid(), admin=admin, api=api
    )
    return _Started(services, announcement)


@dataclass(frozen=True, slots=True)
class _Patience:
    """Waiting for what others start: what is away for a moment must not end a process."""

    clock: Clock
    chance: random.Random
    readiness: Readiness

    async def until_there[T](self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what `attempt` does, once nothing it depends on is missing.

        Raises what it raised when that passes not by waiting, or not within `START_WAIT_S`.
        """
        deadline_s = self.clock.monotonic_s() + START_WAIT_S
        pause_s = _RETRY_FIRST_S
        while True:
            try:
                return await attempt()
            except (Unavailable, ServiceFailed) as error:
                if isinstance(error, ServiceFailed) and not error.passes:
                    raise
                if self.clock.monotonic_s() > deadline_s:
                    raise
                self.readiness.waits_for = f"it is starting: {error}"
                log.warning("deployable.waits", reason=str(error))
            await self.clock.sleep(pause_s * (0.5 + self.chance.random() / 2))
            pause_s = min(_RETRY_MAX_S, pause_s * 2)


def _host(part: Part, places: Places, bus: Bus, patience: _Patience) -> list[HostedService]:
    stateful = {"store", "views", "logs"} & part.needs
    bindings = Bindings(
        stores=dict.fromkeys(part.keeping, places.store) if stateful else {},
        nats_url=places.nats,
        bus=bus,
        clock=patience.clock,
        ids=uuid7,
        chance=patience.chance,
        services=part.topology.services,
        logs=part.logs,
        keys=places.keys if "keys" in part.needs else None,
    )
    listening = replace(bindings, http=places.http)
    return [
        HostedService(service.name, compose, listening if "http" in service.needs else bindings)
        for service, compose in part.services
    ]
