"""What an operator may set: read once, checked together, frozen, with units in the names."""

import difflib
import os
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "FLOTILLA_WEB_BFF_"


class StartRefused(Exception):
    """The service cannot start; the message is one line and names the cure.

    `code` is stable: `setting-unknown`, `setting-invalid`, `profile-not-ready`,
    `http-binding-missing`, `port-taken` or `address-unusable`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Settings(BaseSettings):
    """The environment variables `FLOTILLA_WEB_BFF_*`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    profile: Literal["development", "production"] = "development"
    """Who says which tenant it is: `development` believes `X-Tenant-Id`; `production` must not."""

    body_bytes_max: Annotated[int, Field(ge=1, le=16 * 2**20)] = 65_536
    """Larger request bodies are refused (413), unread."""

    body_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """How long a client may take to send a body."""

    request_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """How long a service may take to answer; the deadline travels with the request."""

    ready_timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """How long a service may take to say how it is."""

    stop_timeout_s: Annotated[float, Field(ge=0, le=60)] = 4.0
    """How long requests under way may take when the service stops; the rest get a 503."""


def load_settings() -> Settings:
    """Return the settings of this process.

    Raises:
        StartRefused: a variable with our prefix is unknown or has a value that is not allowed.

    """
    for key in os.environ:  # noqa: TID251 - this is settings.py
        name = key.upper().removeprefix(PREFIX).lower()
        if key.upper().startswith(PREFIX) and name not in Settings.model_fields:
            raise StartRefused("setting-unknown", _did_you_mean(name))
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"{PREFIX}{str(line['loc'][0]).upper()}: {line['msg']}" for line in error.errors()
        )
        raise StartRefused("setting-invalid", wrong) from error


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


def _did_you_mean(name: str) -> str:
    known = sorted(Settings.model_fields)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    cure = (
        f"did you mean {PREFIX}{close[0].upper()}?"
        if close
        else "known are " + ", ".join(PREFIX + field.upper() for field in known)
    )
    return f"there is no setting {PREFIX}{name.upper()}: {cure}"
