"""A relay in a process of its own that has nothing to do: what does it cost to wait?

Run as `python -m bench.idle_relay <log> <store url> <nats url>`; prints one JSON line when it relays,
ends at SIGTERM.
"""

import asyncio
import json
import signal
import sys

from bench.ours import bindings
from flotilla.buses.local import LocalBus
from svc_outbox_relay.main import compose


async def main(log: str, store: str, nats_url: str) -> None:
    """Relay until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with compose(bindings(log, store, nats_url, LocalBus())):
        sys.stdout.write(json.dumps({"api": ""}) + "\n")
        sys.stdout.flush()
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
