"""How whoever runs projections is told to try parked events again: `cmd.<service>.retry-parked`."""

from flotilla_contracts.message import Message, Reply
from flotilla_contracts.wire import subject_token


class RetryParked(Message):
    """Fold all that is parked of a projection's key, in order, or nothing of it."""

    projection: str
    key: str


class RetriedReply(Reply):
    """The key is free: so many events of it were folded."""

    events: int


def retry_subject(service: str) -> str:
    """Return where `service` is told to retry."""
    return f"cmd.{subject_token(service)}.retry-parked"
