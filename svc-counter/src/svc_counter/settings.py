"""What can be set from outside, read once: environment variables `FLOTILLA_COUNTER_*`."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from flotilla.settings import ServiceSettings

VALUE_LIMIT = 2**53 - 1
"""Every JSON reader keeps integers up to here."""


class Settings(ServiceSettings):
    """Checked together, frozen, with units in the names."""

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_COUNTER_")

    upper_bound: Annotated[int, Field(ge=0, le=VALUE_LIMIT)] = 10**15
    """No counter counts past it."""
    lower_bound: Annotated[int, Field(ge=-VALUE_LIMIT, le=0)] = -(10**15)
    """No counter counts below it."""
    idempotency_ttl_s: Annotated[int, Field(ge=60)] = 24 * 3600
    """How long a key is remembered. Longer than any client keeps retrying."""
    snapshot_every_events: Annotated[int, Field(ge=1, le=10_000)] = 100
    """How many events a counter is folded from at most, before its state is kept beside them."""

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> Self:
        if self.lower_bound == self.upper_bound:
            raise ValueError("lower_bound and upper_bound leave no room to count")
        return self
