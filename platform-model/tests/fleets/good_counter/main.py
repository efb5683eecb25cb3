"""Counts: serves two commands and a query, and keeps what happened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from flotilla import Answer, Bindings, ContractCodec, Health, Request, Running, stream_id
from flotilla.commands import claim_for
from flotilla.health import serve_health
from flotilla_contracts.counter import (
    SERVICE,
    CounterIncremented,
    CounterOpened,
    DecrementCounter,
    GetCounterHistory,
    IncrementCounter,
)
from flotilla_contracts.health import health_subject

from .settings import Settings

COMMANDS = {"increment": IncrementCounter, "decrement": DecrementCounter}
EVENTS = (CounterOpened, CounterIncremented)


async def answer(request: Request) -> Answer:
    """Answer anything."""
    command = IncrementCounter.model_validate_json(request.body)
    claim_for(request, command, scope="counter", ttl_s=Settings.read().ttl_s)
    return Answer(stream_id(request.context.tenant, "counter", command.counter_id).encode())


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Serve what the model says."""
    codec: Any = ContractCodec(EVENTS)

    async def health() -> Health:
        return Health((str(codec),))

    for command in COMMANDS.values():
        await bindings.bus.serve(command.subject, answer)
    await bindings.bus.serve(GetCounterHistory.subject, answer)
    await serve_health(bindings.bus, health_subject(SERVICE), SERVICE, health)
    yield Running(SERVICE, health)
