"""How an instance is remembered beside its events: a snapshot is what they fold to, and nothing more."""

from dataclasses import dataclass

from pydantic import TypeAdapter

from flotilla.workflow.state import Instance

EVERY_EVENTS = 100

_STATE = TypeAdapter(Instance)


@dataclass(frozen=True, slots=True)
class InstanceSnapshots:
    """For `Aggregate`, every `every_events`. Raise `schema` when `Instance` changes."""

    every_events: int = EVERY_EVENTS
    schema: int = 1

    def dump(self, state: Instance) -> str:
        """Return the state as JSON."""
        return _STATE.dump_json(state).decode()

    def load(self, text: str) -> Instance:
        """Return the state that `dump` wrote."""
        return _STATE.validate_json(text)
