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
from pathlib import Path
from typing import Any

from flotilla import telemetry
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
    "web-bff": "svc_web_bff.main",
}
"""In the order in which they start: what listens comes last."""
STORES = ("counter", "projector")
HOST = "127.0.0.1"


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
            bus=RoutedBus(LocalBus(), remote),
            clock=SystemClock(),
            ids=uuid7,
            chance=random.Random(),
            services=tuple(MODULES),
            logs=("counter",),
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


def say_ready(file: Path) -> None:
    """Tell the supervisor that this process, and none before it, is ready."""
    file.write_text(str(os.getpid()))


def main(given: Mapping[str, Any]) -> None:
    """Run what the first argument says."""
    telemetry.configure(given["name"], log_format="json", log_level="info")
    asyncio.run(run(given["name"], given["services"], given["places"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
