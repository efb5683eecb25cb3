"""What can be set from outside, read once: environment variables `FLOTILLA_PROJECTOR_*`."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flotilla.settings import ServiceSettings
from svc_projector.projector import BATCH_EVENTS_MAX


class Settings(ServiceSettings):
    """Checked together, frozen, with units in the names."""

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_PROJECTOR_")

    batch_events_max: Annotated[int, Field(ge=1, le=10_000)] = BATCH_EVENTS_MAX
    wait_max_s: Annotated[float, Field(gt=0, le=30)] = 3.0
    """How long a query waits at most for the view to reach a consistency token."""
