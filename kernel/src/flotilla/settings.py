"""Settings of a service: environment variables under its prefix, read once when it starts.

    class Settings(ServiceSettings):
        model_config = SettingsConfigDict(env_prefix="FLOTILLA_COUNTER_")
        upper_bound: int = 10**15

    settings = Settings.read()

A key that nobody knows is refused with "did you mean", because a typing error in a limit is worse
than a service that does not start.
"""

import difflib
import os
from typing import Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class StartRefused(Exception):
    """A service cannot start; the message is one line and names the cure. `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ServiceSettings(BaseSettings):
    """Checked together, frozen. Subclasses set `env_prefix` and write units into names."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def read(cls) -> Self:
        """Return the settings of this process.

        Raises:
            StartRefused: a variable with our prefix is unknown (`setting-unknown`) or has a value that
                is not allowed (`setting-invalid`). Values are not repeated: they may be secret.

        """
        prefix = cls.model_config["env_prefix"]
        for key in os.environ:  # noqa: TID251 - this is where settings are read
            name = key.upper().removeprefix(prefix).lower()
            if key.upper().startswith(prefix) and name not in cls.model_fields:
                raise StartRefused("setting-unknown", cls._did_you_mean(prefix, name))
        try:
            return cls()
        except ValidationError as error:
            wrong = "; ".join(
                f"{prefix}{'.'.join(map(str, line['loc'])).upper() or '*'}: {line['msg']}"
                for line in error.errors(include_input=False, include_url=False)
            )
            raise StartRefused("setting-invalid", wrong) from None

    @classmethod
    def _did_you_mean(cls, prefix: str, name: str) -> str:
        known = sorted(cls.model_fields)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        cure = (
            f"did you mean {prefix}{close[0].upper()}?"
            if close
            else "known are " + ", ".join(prefix + field.upper() for field in known)
        )
        return f"there is no setting {prefix}{name.upper()}: {cure}"
