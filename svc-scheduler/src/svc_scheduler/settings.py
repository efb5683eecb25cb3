"""What can be set from outside, read once: environment variables `FLOTILLA_SCHEDULER_*`."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flotilla.settings import ServiceSettings


class Settings(ServiceSettings):
    """Checked together, frozen, with units in the names."""

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_SCHEDULER_")

    poll_max_ms: Annotated[int, Field(ge=10, le=10_000)] = 500
    """How late a replica may hear of a schedule that another one made or changed."""
    idempotency_ttl_s: Annotated[int, Field(ge=60)] = 24 * 3600
    """How long a key is remembered. Longer than any client keeps retrying."""
    snapshot_every_events: Annotated[int, Field(ge=1, le=10_000)] = 100
    """How many events a schedule is folded from at most, before its state is kept beside them."""
