"""What can be set from outside, read once: environment variables `FLOTILLA_PROJECTOR_*`."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flotilla.parking import PARKED_MAX
from flotilla.partition import PARTITIONS_MAX
from flotilla.settings import ServiceSettings
from svc_projector.activity import AGE_MAX_S, ENTRIES_PER_TENANT_MAX
from svc_projector.projector import BATCH_EVENTS_MAX


class Settings(ServiceSettings):
    """Checked together, frozen, with units in the names."""

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_PROJECTOR_")

    batch_events_max: Annotated[int, Field(ge=1, le=10_000)] = BATCH_EVENTS_MAX
    """How many events are folded in one transaction at most."""
    wait_max_s: Annotated[float, Field(gt=0, le=30)] = 3.0
    """How long a query waits at most for the view to reach a consistency token."""
    parked_max: Annotated[int, Field(ge=0, le=1_000_000)] = PARKED_MAX
    """How many events of one projection may be parked; with one more it stops where it is.

    Of each of its partitions, where it has several.
    """
    counters_partitions: Annotated[int, Field(ge=1, le=PARTITIONS_MAX)] = 1
    """In how many parts the counter view is folded. Every replica has the same; see the runbook."""
    activity_entries_max: Annotated[int, Field(ge=1, le=100_000)] = ENTRIES_PER_TENANT_MAX
    """How many entries a tenant's activity feed keeps."""
    activity_age_max_s: Annotated[float, Field(gt=0, le=10 * 366 * 86_400)] = AGE_MAX_S
    """How much older than the newest an entry of the activity feed may become."""
