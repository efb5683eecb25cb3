"""What an operator may set: read once, checked together, frozen, with units in the names."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flotilla.settings import ServiceSettings, StartRefused

PREFIX = "FLOTILLA_WEB_BFF_"


class Settings(ServiceSettings):
    """The environment variables `FLOTILLA_WEB_BFF_*`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    profile: Literal["development", "production"] = "development"
    """Who says which tenant it is: `development` believes `X-Tenant-Id`; `production` must not."""

    members_only: bool = False
    """Whether `X-User-Id` has to be a member of the tenant that a request is in.

    False suits trying it out alone: then everybody who can reach it is in every tenant, except
    under `/v1/tenants/{tenant_id}`, where only members ever are.
    """

    body_bytes_max: Annotated[int, Field(ge=1, le=16 * 2**20)] = 65_536
    """Larger request bodies are refused (413), unread."""

    body_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """How long a client may take to send a body."""

    request_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """How long a service may take to answer; the deadline travels with the request."""

    ready_timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """How long a service may take to say how it is."""

    stop_timeout_s: Annotated[float, Field(ge=0, le=60)] = 1.5
    """How long requests under way may take when the service stops; the rest get a 503."""


def require_supported(settings: Settings) -> None:
    """Refuse a profile that would not be safe.

    Raises:
        StartRefused: the profile is `production`.

    """
    if settings.profile == "production":
        raise StartRefused(
            "profile-not-ready",
            "the production profile wants OIDC, which is not there yet: anybody could name any"
            f" tenant in X-Tenant-Id. Set {PREFIX}PROFILE=development on a network you trust",
        )
