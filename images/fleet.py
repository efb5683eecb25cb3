"""The fleet in containers, as `deploy/compose/compose.yaml` has it."""

import secrets
from pathlib import Path

from flotilla.master_key import KEY_BYTES, new_master_key
from flotilla_platform.generating.compose import SUPERUSER_PASSWORD
from flotilla_platform.generating.nats import PASSWORDS as NATS_PASSWORDS
from flotilla_platform.generating.nats import accounts
from flotilla_platform.generating.postgres import roles
from flotilla_platform.generating.running import DATABASE, MASTER_KEY, NATS_URL, STORE_URL
from flotilla_platform.model import OPERATOR
from flotilla_platform.reading import read_platform
from images.settings import ROOT
from images.shell import run, step

PASSWORDS = f"nats-{NATS_PASSWORDS}"
COMPOSE = ROOT / "deploy/compose/compose.yaml"
HEALTHY_MAX_S = 180
STOP_MAX_S = 120.0
SECRETS = ROOT / ".flotilla/compose"
"""Where the compose file looks, unless it is told otherwise."""


def up(host: str) -> None:
    """Run the fleet; return when every container is healthy.

    Raises:
        Unable: one is not, within three minutes; its name and the end of its log are told.
    """
    write_secrets(SECRETS)
    with step("the fleet is healthy"):
        _compose(
            *(host, "up", "--detach", "--wait", "--wait-timeout", str(HEALTHY_MAX_S)),
            *("--quiet-pull", "--pull", "missing"),
            timeout_s=HEALTHY_MAX_S + 60,
        )


def down(host: str) -> None:
    """Stop the fleet, and remove its containers, networks and volumes."""
    with step("the fleet is gone"):
        _compose(host, "down", "--volumes", "--remove-orphans", timeout_s=STOP_MAX_S)


def write_secrets(folder: Path) -> None:
    """Make up the passwords of a fleet, once; those that are there stay."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / PASSWORDS).exists():
        return
    platform = read_platform(ROOT / "platform-model")
    files = {SUPERUSER_PASSWORD: secrets.token_urlsafe(24)}
    words = {account: secrets.token_urlsafe(24) for account in accounts(platform)}
    for account, word in words.items():
        if account.name != OPERATOR:
            files[f"{account.name}-{NATS_URL}"] = f"nats://{account.name}:{word}@nats:4222"
    for one in roles(platform):
        word = files[f"postgres-{one.name}"] = secrets.token_urlsafe(24)
        place = f"postgres:5432/{DATABASE}"
        files[f"{one.name}-{STORE_URL}"] = f"postgresql://{one.role}:{word}@{place}"
    master_key = new_master_key(secrets.token_bytes(KEY_BYTES))
    for one in roles(platform):
        if one.uses_keys:
            files[f"{one.name}-{MASTER_KEY}"] = master_key
    files[f"postgres-{OPERATOR}"] = secrets.token_urlsafe(24)
    files[PASSWORDS] = "".join(f'{one.password}: "{word}"\n' for one, word in words.items())
    for name, content in files.items():
        # Containers read them under users of their own; outside, the folder keeps others out.
        (folder / name).write_text(content)
        (folder / name).chmod(0o444)


def _compose(host: str, *words: str, timeout_s: float) -> None:
    run("docker", "--host", host, "compose", "--file", COMPOSE, *words, timeout_s=timeout_s)
