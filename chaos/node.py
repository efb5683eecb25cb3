"""A process that runs some of the services, against servers that run elsewhere.

Started as a program (`python -P chaos/node.py <JSON>`, see `fleet_world`): what a deployable of a
topology with several processes would be. Whoever starts it again when it ends is its supervisor.
"""

import asyncio
import importlib
import json
import os
import random
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from flotilla import telemetry
from flotilla.bus import Answer, Bus, Handler, Request
from flotilla.buses.local import LocalBus
from flotilla.buses.nats import NatsBus
from flotilla.buses.routed import RoutedBus
from flotilla.clock import SystemClock, uuid7
from flotilla.service import Bindings, Compose, HttpBinding
from flotilla_platform.hosting import HostedService, wait_for_the_end

MODULES: Mapping[str, str] = {
    "counter": "svc_counter.main",
    "outbox-relay": "svc_outbox_relay.main",
    "projector": "svc_projector.main",
    "workflow": "svc_workflow.main",
    "web-bff": "svc_web_bff.main",
}
"""In the order in which they start: what listens comes last."""
STORES = ("counter", "projector", "workflow")
SERVICES = ("counter", "outbox-relay", "projector", "web-bff")
"""What there is when nothing else is said."""
HOST = "127.0.0.1"
WHENS = ("before", "while", "after")
"""When a process dies of a request (`DeadlyBus`)."""


async def run(name: str, services: Sequence[str], places: Mapping[str, Any]) -> None:
    """Run `services` until a signal; `places` says where the servers are."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        remote = await stack.enter_async_context(NatsBus(places["nats_url"], name=name))
        bindings = Bindings(
            stores=dict.fromkeys(STORES, places["dsn"]),
            nats_url=places["nats_url"],
            bus=_bus(RoutedBus(LocalBus(), remote), places.get("death")),
            clock=SystemClock(),
            ids=uuid7,
            chance=random.Random(),
            services=tuple(places.get("services", SERVICES)),
            logs=tuple(places.get("logs", ["counter"])),
            workflows=places.get("workflows", {}),
            http=HttpBinding(HOST, places["http_port"]),
        )
        hosted = []
        for service in sorted(services, key=list(MODULES).index):
            compose: Compose = importlib.import_module(MODULES[service]).compose
            one = HostedService(service, compose, bindings)
            stack.push_async_callback(one.stop)
            await one.start()
            hosted.append(one)
        say_ready(Path(places["ready_file"]))
        await wait_for_the_end(hosted, stop)


@dataclass(frozen=True, slots=True)
class DeadlyBus:
    """Asks `bus`, unless this process is killed (-9) when a workflow asks for a chosen step.

    Which step, and when, is in the file `death`, which whoever runs the round writes: `{"round", "step",
    "when", "after_ms"}`. Who finds itself there takes the file away and dies: one process a file.
    """

    bus: Bus
    death: Path

    async def serve(self, subject: str, handler: Handler) -> None:
        """Answer requests."""
        await self.bus.serve(subject, handler)

    async def request(self, request: Request) -> Answer:
        """Return the answer, or die."""
        wanted = self._wanted(request)
        if wanted is None:
            return await self.bus.request(request)
        if wanted["when"] == "before":
            _die()
        asking = asyncio.ensure_future(self.bus.request(request))
        if wanted["when"] == "while":
            await asyncio.wait([asking], timeout=wanted["after_ms"] / 1000)
        else:
            await asyncio.wait([asking])
        return _die()

    def _wanted(self, request: Request) -> dict[str, Any] | None:
        """Return how to die of this request; the file is ours then, and nobody else's."""
        key = request.context.idempotency_key or ""
        if "/" not in key:
            return None
        try:
            wanted: dict[str, Any] = json.loads(self.death.read_bytes())
            if request.context.tenant != wanted["round"] or f"/{wanted['step']}/" not in key:
                return None
            self.death.rename(self.death.with_suffix(f".{os.getpid()}"))
        except (FileNotFoundError, ValueError):
            return None
        return wanted


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives this")


def _bus(bus: Bus, death: str | None) -> Bus:
    return DeadlyBus(bus, Path(death)) if death else bus


def say_ready(file: Path) -> None:
    """Tell the supervisor that this process, and none before it, is ready."""
    file.write_text(str(os.getpid()))


def main(given: Mapping[str, Any]) -> None:
    """Run what the first argument says."""
    os.environ.update(given["places"].get("settings", {}))  # noqa: TID251 - a supervisor would
    telemetry.configure(given["name"], log_format="json", log_level="info")
    asyncio.run(run(given["name"], given["services"], given["places"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
