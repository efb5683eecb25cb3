"""What can be set from outside, read once: environment variables `FLOTILLA_OUTBOX_RELAY_*`."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from flotilla.settings import ServiceSettings
from svc_outbox_relay.relay import BATCH_MESSAGES_MAX


class Settings(ServiceSettings):
    """Checked together, frozen, with units in the names."""

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_OUTBOX_RELAY_")

    batch_messages_max: Annotated[int, Field(ge=1, le=BATCH_MESSAGES_MAX)] = BATCH_MESSAGES_MAX
    """How many messages an atomic batch has at most."""
    poll_min_s: Annotated[float, Field(gt=0, le=10)] = 0.02
    """How soon to look again after there was work. A ring of the doorbell comes before."""
    poll_max_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """How long to wait at most when nothing happens: rings are best effort, polling is the truth."""
    ledger_keep_s: Annotated[float, Field(ge=0)] = 0
    """How long ledger entries are kept at least, e.g. 604800 for a week; 0 keeps them for ever.

    Only what every reader of the log has passed is forgotten, and events never: see the runbook.
    """

    @model_validator(mode="after")
    def _polls_are_ordered(self) -> Self:
        if self.poll_min_s > self.poll_max_s:
            raise ValueError("poll_min_s is at most poll_max_s")
        return self
