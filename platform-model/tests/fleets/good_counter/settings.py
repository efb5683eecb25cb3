"""What can be set of it."""

from pydantic_settings import SettingsConfigDict

from flotilla.settings import ServiceSettings


class Settings(ServiceSettings):
    """One setting."""

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_COUNTER_")

    ttl_s: int = 60
