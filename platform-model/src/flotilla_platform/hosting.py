"""One service of a deployable, in a task of its own.

    start() --> composing --ready--> running --stop()--> stopping --> ended
                    |                   |                   |
                    | raises, too slow  | ends by itself    | raises, too slow
                    v                   v                   v
                          ServiceFailed, with the service's name

A task of its own, because a task group inside a service cancels the task that entered it: this way
that is the service's and not its neighbour's, and whoever waits for `ended` knows whose it was.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from flotilla.service import Bindings, Compose, Running
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.failing import ServiceFailed

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 2.0
"""How long a service may take to finish what it has begun, before it is cancelled."""

_CANCEL_TIMEOUT_S = 0.5

log = structlog.get_logger()


@dataclass(eq=False)
class HostedService:
    """A service and the task it lives in; nothing runs before `start`."""

    name: str
    compose: Compose
    bindings: Bindings

    _task: asyncio.Task[None] | None = field(default=None, init=False)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _ran: bool = field(default=False, init=False)
    _reported: bool = field(default=False, init=False)

    @property
    def ended(self) -> asyncio.Task[None]:
        """The task, which is done when the service has ended."""
        if self._task is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._task

    async def start(self) -> Running:
        """Return the service when it runs.

        Raises:
            ServiceFailed: it raised, or was not there within `START_TIMEOUT_S`.

        """
        ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(ready), name=f"service-{self.name}")
        either: set[asyncio.Future[Any]] = {self._task, ready}
        await asyncio.wait(either, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            self._ran = True
            return ready.result()
        if self._task.done():
            raise self._failure("did not start")
        raise ServiceFailed(self.name, "did not start", TimeoutError(f"{START_TIMEOUT_S:g} s"))

    def check(self) -> None:
        """Raise `ServiceFailed` if the service has ended."""
        if self.ended.done():
            raise self._failure("ended unexpectedly")

    async def stop(self) -> None:
        """Stop the service: politely, then by cancelling it; one that is still starting, at once.

        Raises:
            ServiceFailed: it ran, and raised while stopping.
            Failure: it is still there afterwards.

        """
        if self._task is None:
            return
        self._wanted.set()
        if not self._ran:
            self._task.cancel()
        if not await _done(self._task, STOP_TIMEOUT_S):
            log.warning("service.cancelled", name=self.name, after_s=STOP_TIMEOUT_S)
            self._task.cancel()
            if not await _done(self._task, _CANCEL_TIMEOUT_S):
                raise Failure(ExitCode.NOT_STOPPED, f"the service {self.name!r} does not stop")
        failed = not self._task.cancelled() and self._task.exception() is not None
        if failed and self._ran and not self._reported:
            raise self._failure("did not stop cleanly")

    async def _live(self, ready: asyncio.Future[Running]) -> None:
        async with self.compose(self.bindings) as running:
            ready.set_result(running)
            await self._wanted.wait()

    def _failure(self, what: str) -> ServiceFailed:
        self._reported = True
        cause = None if self.ended.cancelled() else self.ended.exception()
        failure = ServiceFailed(self.name, what, cause)
        failure.__cause__ = cause
        return failure


async def wait_for_the_end(services: Sequence[HostedService], stop: asyncio.Event) -> None:
    """Return when `stop` is set.

    Raises:
        ServiceFailed: one of the services ended before that.

    """
    stopping = asyncio.create_task(stop.wait(), name="wait-for-stop")
    try:
        await asyncio.wait(
            {stopping, *(service.ended for service in services)},
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not stop.is_set():
            for service in services:
                service.check()
    finally:
        stopping.cancel()


async def _done(task: asyncio.Task[None], limit_s: float) -> bool:
    await asyncio.wait({task}, timeout=limit_s)
    return task.done()
