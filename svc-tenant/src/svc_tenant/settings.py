"""What can be set from outside, read once: environment variables `FLOTILLA_TENANT_*`."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flotilla.settings import ServiceSettings


class Settings(ServiceSettings):
    """Checked together, frozen, with units in the names."""

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_TENANT_")

    idempotency_ttl_s: Annotated[int, Field(ge=60)] = 24 * 3600
    """How long a key is remembered. Longer than any client, and any workflow, keeps retrying."""
    invitation_ttl_s: Annotated[int, Field(ge=60, le=90 * 24 * 3600)] = 7 * 24 * 3600
    """How long an invitation waits for its token."""
    snapshot_every_events: Annotated[int, Field(ge=1, le=10_000)] = 100
    """How many events a tenant is folded from at most, before its state is kept beside them."""
