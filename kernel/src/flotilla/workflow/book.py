"""Every version of every definition that was ever published here: a stream of its own, read into memory.

An instance names the hash of its definition; what stands behind that survives the file it came from.
A version is for ever: other content needs another version.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from flotilla.codec import ContractCodec
from flotilla.errors import Conflict, Rejected, Unavailable
from flotilla.store import (
    EMPTY,
    Append,
    Committed,
    Conflicted,
    EventStore,
    Failed,
    NewEvent,
    Unit,
    Version,
    stream_id,
)
from flotilla.workflow.definition import Definition, definition_from

AGGREGATE = "workflow-definition"
STREAM = stream_id("-", AGGREGATE, "all")
PAGE_EVENTS = 100
TRIES_MAX = 10


class DefinitionMissing(Unavailable):
    """Nobody published a definition with this hash here, or not yet."""

    default_code = "workflow-definition-missing"


class VersionChanged(Rejected):
    """This version was published with other content, and instances may run on it: take the next one."""

    default_code = "workflow-version-changed"


class WorkflowDefined(BaseModel):
    """A version of a workflow was published."""

    type: ClassVar[str] = "workflow-definition.published.v1"
    model_config = ConfigDict(frozen=True)

    hash: str
    definition: dict[str, Any]


EVENTS = (WorkflowDefined,)


class Book:
    """Definitions by their hash, by name and version. One a process; `refresh` before it is trusted."""

    def __init__(self, store: EventStore, ids: Callable[[], UUID]) -> None:
        self._store = store
        self._ids = ids
        self._codec = ContractCodec(EVENTS)
        self._read = EMPTY
        self._by_hash: dict[str, Definition] = {}

    def by_hash(self, content: str) -> Definition:
        """Return the definition with this hash. Raises `DefinitionMissing` when it was not read yet."""
        if known := self._by_hash.get(content):
            return known
        raise DefinitionMissing(
            f"no workflow definition {content}: was this store restored in part?"
        )

    def versions(self) -> tuple[Definition, ...]:
        """Return every version of every workflow."""
        return tuple(self._by_hash.values())

    def current(self) -> dict[str, Definition]:
        """Return the newest version of every workflow, by name."""
        ordered = sorted(self._by_hash.values(), key=lambda definition: definition.version)
        return {definition.name: definition for definition in ordered}

    async def refresh(self) -> None:
        """Read what was published since the last time."""
        while events := await self._store.read(STREAM, after=self._read, limit=PAGE_EVENTS):
            for event in events:
                defined = self._codec.decode(event)
                definition = definition_from(defined.definition, where=f"{STREAM}@{event.version}")
                # By the hash that it was stored with: what this code would compute may differ.
                self._by_hash[defined.hash] = definition.known_as(defined.hash)
                self._read = Version(event.version)

    async def publish(self, definitions: Iterable[Definition]) -> None:
        """Make these known, all or none; those that are known already change nothing.

        Raises:
            VersionChanged: one has the version of another content.

        """
        wanted = list(definitions)
        for _ in range(TRIES_MAX):
            await self.refresh()
            known = {(d.name, d.version): d for d in self._by_hash.values()}
            for definition in wanted:
                there = known.get((definition.name, definition.version), definition)
                if there.to_json() != definition.to_json():
                    raise VersionChanged(
                        f"{definition.name} v{definition.version} was published with other content:"
                        f" write version {definition.version + 1}"
                    )
            news = [d for d in wanted if (d.name, d.version) not in known]
            if not news:
                return
            events = tuple(map(self._event, news))
            [outcome] = await self._store.commit([Unit((Append(STREAM, self._read, events),))])
            match outcome:
                case Committed() | Conflicted():
                    continue  # read what was written, by us or by whoever was faster
                case Failed(error):
                    raise error
        raise Conflict("others publish workflows all the time; try again")

    def _event(self, definition: Definition) -> NewEvent:
        defined = WorkflowDefined(
            hash=definition.hash,
            definition=definition.content(),
        )
        kind, payload = self._codec.encode(defined)
        return NewEvent(str(self._ids()), kind, payload, {})
