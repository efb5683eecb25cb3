"""Telling an instance something: the one way in which the history of a workflow is made."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self
from urllib.parse import quote

from flotilla.aggregate import Aggregate, Decision, Done
from flotilla.codec import ContractCodec
from flotilla.errors import Rejected
from flotilla.execute import execute
from flotilla.lanes import Lanes
from flotilla.store import StreamId, Version, stream_id
from flotilla.workflow.asked import Command
from flotilla.workflow.book import Book, DefinitionMissing
from flotilla.workflow.events import EVENTS, StepAttempted, WorkflowEvent
from flotilla.workflow.instance import Definitions, decider
from flotilla.workflow.state import Instance

AGGREGATE = "workflow"
KEY_LENGTH_MAX = 128

Settle = Callable[[StreamId, Decision[Instance, WorkflowEvent]], Awaitable[Done]]


class KeyInvalid(Rejected):
    """A workflow's key is a text of 1 to 128 characters."""

    default_code = "workflow-key-invalid"


def instance_stream(tenant: str, name: str, key: object) -> StreamId:
    """Return the stream of one instance: `<tenant>/workflow/<name>:<key>`.

    Raises:
        KeyInvalid: the key is none.

    """
    text = key if isinstance(key, str) else str(key) if isinstance(key, int) else ""
    quoted = quote(text, safe=":@+ ")
    if not text or len(quoted) > KEY_LENGTH_MAX:
        raise KeyInvalid(f"{name}: a key is a text of 1 to {KEY_LENGTH_MAX} characters, quoted")
    return stream_id(tenant, AGGREGATE, f"{name}:{quoted}")


@dataclass(frozen=True, slots=True)
class Told:
    """What was made durable: the events that followed, and where the instance stands after them."""

    events: Sequence[WorkflowEvent]
    instance: Instance

    @property
    def attempts(self) -> list[StepAttempted]:
        """What is to be asked for now, by whoever was told this."""
        return [event for event in self.events if isinstance(event, StepAttempted)]


@dataclass(frozen=True, slots=True)
class Instances:
    """All instances of all workflows of a service. `settle` makes a decision durable."""

    book: Book
    settle: Settle

    @classmethod
    def of(
        cls, book: Book, build: Callable[[Definitions], Aggregate[Command, Instance, WorkflowEvent]]
    ) -> Self:
        """Return them, with lanes of their own over the aggregate that `build` makes of the rules."""
        return cls(book, Lanes(partial(execute, build(book.by_hash))).settle)

    async def tell(self, stream: StreamId, command: Command) -> Told:
        """Decide `command` and make durable what follows. Raises what it was refused with."""
        try:
            return await self._tell(stream, command)
        except DefinitionMissing:  # somebody else published it since
            await self.book.refresh()
            return await self._tell(stream, command)

    async def look(self, stream: StreamId) -> Instance:
        """Return where an instance stands."""
        told: list[Instance] = []

        def nothing(instance: Instance) -> Sequence[WorkflowEvent]:
            told.append(instance)
            return ()

        await self.settle(stream, Decision(nothing, _no_reply, {}))
        return told[-1]

    async def _tell(self, stream: StreamId, command: Command) -> Told:
        told = Told((), Instance())
        rules = decider(self.book.by_hash)

        def decide(instance: Instance) -> Sequence[WorkflowEvent]:
            nonlocal told  # the last time it is decided is the one that counts
            events = rules.decide(command, instance)
            told = Told(events, rules.fold(events, instance))
            return events

        await self.settle(stream, Decision(decide, _no_reply, {"correlation": stream}))
        return told


CODEC: ContractCodec[WorkflowEvent] = ContractCodec(EVENTS)


def _no_reply(_: Instance, __: Version) -> bytes:
    return b""
