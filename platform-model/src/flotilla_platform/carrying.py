"""The bus of a process: requests from others come in over NATS, and stop coming before we stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from flotilla.buses.nats import NatsBus

DRAIN_TIMEOUT_S = 1.5
"""How long requests that were taken may take when the process stops."""
_STOP_TIMEOUT_S = 1.0


@asynccontextmanager
async def open_bus(url: str, *, name: str) -> AsyncIterator[NatsBus]:
    """Yield a connected bus.

    Raises:
        Unavailable: there is no broker.
        ValueError: `url` is none.

    """
    bus = NatsBus(url, name=name)
    try:
        await bus.start()
        yield bus
    finally:
        # It would let requests finish for longer than we have; their services ended before it.
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await bus.stop()
