"""What can be set from outside, read once: environment variables `FLOTILLA_WORKFLOW_*`."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flotilla.settings import ServiceSettings
from flotilla.workflow.pump import CONCURRENCY_MAX
from flotilla.workflow.snapshots import EVERY_EVENTS


class Settings(ServiceSettings):
    """Checked together, frozen, with units in the names."""

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_WORKFLOW_")

    environment: Annotated[str, Field(max_length=40)] = ""
    """Which environment this is: workflows that name others are not published here."""
    concurrency_max: Annotated[int, Field(ge=1, le=10_000)] = CONCURRENCY_MAX
    """How many instances one process moves at a time."""
    snapshot_every_events: Annotated[int, Field(ge=1, le=10_000)] = EVERY_EVENTS
    """How many events an instance is folded from at most, before its state is kept beside them."""
    arrivals_poll_ms: Annotated[int, Field(ge=10, le=60_000)] = 200
    """How often logs are read on for events that workflows wait for, when there were none."""
    due_late_max_s: Annotated[float, Field(gt=0, le=3600)] = 15.0
    """How long a workflow may be due and not be moved, before this is not well."""
