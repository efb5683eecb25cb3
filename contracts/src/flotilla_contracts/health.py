"""How a service says how it is, over the bus: `qry.<service>.get-health`, with an empty body `{}`."""

from pydantic import Field

from flotilla_contracts.message import Reply
from flotilla_contracts.wire import subject_token


class LagReply(Reply):
    """How far behind something is, in events and in seconds."""

    events: int
    seconds: float


class HealthReply(Reply):
    """Whether a service can do its work; what is missing, in words; how far behind it is."""

    service: str
    ready: bool
    missing: tuple[str, ...] = ()
    lag: dict[str, LagReply] = Field(default_factory=dict)


def health_subject(service: str) -> str:
    """Return where `service` is asked for its health."""
    return f"qry.{subject_token(service)}.get-health"
