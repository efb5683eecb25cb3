"""FastStream on our connections. Apart from them: who only looks does not wait for a framework."""

import asyncio
import logging
from types import TracebackType
from typing import Any

import nats.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client

from flotilla.nats import close, connect, connect_options

STOP_TIMEOUT_S = 10.0

log = structlog.get_logger()


class FleetBroker(NatsBroker):
    """FastStream on a connection that heals, handing messages over as they are.

    Handlers take the `NatsMessage` itself: nothing is parsed, validated or injected. (FastStream's
    own connection stops reconnecting for good when, say, a restarted server is full for a moment.)
    """

    def __init__(self, url: str, *, name: str) -> None:
        super().__init__(
            url.split(","),
            **connect_options(name),
            apply_types=False,
            serializer=None,
            decoder=_undecoded,
            # Its lines a message are for debugging; its own handler would not write like ours.
            logger=logging.getLogger("flotilla.faststream"),
            log_level=logging.DEBUG,
        )
        self._url = url
        self._name = name

    async def _connect(self) -> Client:
        client = await connect(self._url, name=self._name)
        self.config.connect(client)
        return client

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Stop subscribers and close, within `STOP_TIMEOUT_S`, also while the server is away."""
        client = self._connection
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await super().stop(exc_type, exc_val, exc_tb)
        except (
            OSError,
            nats.errors.Error,
            ExceptionGroup,
        ) as error:  # a TimeoutError is an OSError
            log.warning("nats.stop_incomplete", name=self._name, error=repr(error))
        finally:
            if client is not None:
                await close(client)


async def _undecoded(message: Any) -> Any:
    return message
