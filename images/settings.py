"""What may be told from outside, read once."""

from functools import cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).parents[1]
"""The repository."""


class Settings(BaseSettings):
    """Where engine and packages are found."""

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_IMAGES_", frozen=True)

    docker_host: str | None = Field(default=None, validation_alias="DOCKER_HOST")
    """An engine that somebody chose; it is used, or it is an error."""
    engine_folder: Path = Path("/var/lib/flotilla-engine")
    """What an engine of ours keeps: its socket, log, pid and images. Short: sockets need that."""
    debian_mirror: str = "http://deb.debian.org/debian"
    """Where Debian packages come from; they are signed."""
    output: Path = ROOT / "dist"
    """Where wheels and bills of materials go."""


@cache
def settings() -> Settings:
    """Return the settings of this process."""
    return Settings()
