"""A hint that something was committed, so that nobody has to poll fast.

Best effort by design: a lost ring costs a poll interval, never an event.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg


class Doorbell:
    """Rings on a core NATS subject, at most one message in flight however often it is pushed."""

    def __init__(self, connection: Client, subject: str) -> None:
        self._connection = connection
        self._subject = subject
        self._ringing: asyncio.Task[None] | None = None

    def ring(self) -> None:
        """Ring, unless it is ringing or the broker is away."""
        if self._connection.is_connected and (self._ringing is None or self._ringing.done()):
            self._ringing = asyncio.create_task(self._ring())

    async def _ring(self) -> None:
        with suppress(nats.errors.Error, OSError):  # lost; polling finds what was committed
            await self._connection.publish(self._subject, b"")


class Ear:
    """Hears a doorbell. `rang` is set until somebody who looked for what was committed clears it."""

    def __init__(self) -> None:
        self.rang = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def at(cls, connection: Client, subject: str) -> AsyncIterator["Ear"]:
        """Listen to `subject` while the block runs."""
        ear = cls()

        async def heard(_: Msg) -> None:
            ear.ring()

        subscription = await connection.subscribe(subject, cb=heard)
        try:
            yield ear
        finally:
            if not connection.is_closed:
                await subscription.unsubscribe()

    def ring(self) -> None:
        """Let whoever waits go on."""
        self.rang.set()

    async def hear(self, *, timeout_s: float) -> bool:
        """Return True when it rang, False after `timeout_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.rang.wait()
        rang = self.rang.is_set()
        self.rang.clear()
        return rang
