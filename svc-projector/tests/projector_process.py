"""A projector alone in a process: what a fleet starts beside everything else, started by a test.

python projector_process.py <nats url> <store url>
"""

import asyncio
import random
import signal
import sys

from flotilla.buses.local import LocalBus
from flotilla.clock import SystemClock, uuid7
from flotilla.service import Bindings
from svc_projector.main import compose


async def main(nats_url: str, store_url: str) -> None:
    wanted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, wanted.set)
    bindings = Bindings(
        stores={"counter": store_url, "projector": store_url},
        nats_url=nats_url,
        bus=LocalBus(),
        clock=SystemClock(),
        ids=uuid7,
        chance=random.Random(),
        services=("counter", "projector"),
        logs=("counter",),
    )
    async with compose(bindings):
        await wanted.wait()


asyncio.run(main(*sys.argv[1:]))
