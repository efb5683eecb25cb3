"""Messages, passed on from function to function before they are asked."""

from dataclasses import dataclass

from flotilla.bus import Answer, Bus, Context, Request
from flotilla_contracts import Command, Query
from flotilla_contracts.counter import GetCounterHistory, IncrementCounter


@dataclass(frozen=True)
class Gateway:
    """How requests reach the counter."""

    bus: Bus

    async def count(self, context: Context) -> None:
        """Count, and look at it."""
        for kind in (IncrementCounter, GetCounterHistory):
            await self.ask(_message(kind), context)

    async def ask(self, message: Command | Query, context: Context) -> Answer:
        """Return the answer to any message."""
        return await self.bus.request(Request(message.subject, b"{}", context))


def _message(kind: type[Command] | type[Query]) -> Command | Query:
    return kind.model_validate({"counter_id": "a"})
