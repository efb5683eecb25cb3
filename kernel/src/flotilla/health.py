"""A service answers how it is, over the bus."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from flotilla.bus import Answer, Bus, Request
from flotilla.errors import KernelError
from flotilla.service import Health


async def serve_health(
    bus: Bus, subject: str, service: str, health: Callable[[], Awaitable[Health]]
) -> None:
    """Answer `subject` with `{"service", "ready", "missing", "lag"}`.

    A dependency that fails while it is looked at is what is missing, not an error.
    """

    async def answer(_: Request) -> Answer:
        try:
            found = await health()
        except KernelError as error:
            found = Health(missing=(str(error),))
        lag = {name: asdict(value) for name, value in (found.lag or {}).items()}
        reply = {
            "service": service,
            "ready": not found.missing,
            "missing": found.missing,
            "lag": lag,
        }
        return Answer(json.dumps(reply).encode())

    await bus.serve(subject, answer)
