"""The fleet in containers, as `deploy/compose/compose.yaml` has it."""

import secrets
from pathlib import Path

from images.settings import ROOT
from images.shell import run, step

COMPOSE = ROOT / "deploy/compose/compose.yaml"
HEALTHY_MAX_S = 180
STOP_MAX_S = 120.0
_NATS = """\
server_name: nats
port: 4222
http: "127.0.0.1:8222"
jetstream { store_dir: /data }
authorization { user: flotilla, password: "%s" }
"""


def up(host: str) -> None:
    """Run the fleet; return when every container is healthy.

    Raises:
        Unable: one is not, within three minutes; its name and the end of its log are told.
    """
    write_secrets(COMPOSE.parent / "secrets")
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
    folder.mkdir(mode=0o700, exist_ok=True)
    if (folder / "nats.conf").exists():
        return
    postgres, nats = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    for name, content in {
        "postgres-password": postgres,
        "store-url": f"postgresql://flotilla:{postgres}@postgres:5432/flotilla",
        "nats-url": f"nats://flotilla:{nats}@nats:4222",
        "nats.conf": _NATS % nats,
    }.items():
        # Containers read them under users of their own; outside, the folder keeps others out.
        (folder / name).write_text(content)
        (folder / name).chmod(0o444)


def _compose(host: str, *words: str, timeout_s: float) -> None:
    run("docker", "--host", host, "compose", "--file", COMPOSE, *words, timeout_s=timeout_s)
