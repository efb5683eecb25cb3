import pytest

from flotilla.testing.servers import nats_server, postgres_server
from svc_projector import projector

__all__ = ["nats_server", "postgres_server"]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up early on what never gets into the ledger: many tests deliver just that."""
    monkeypatch.setattr(projector, "RECORDED_LOOKS_MAX", 10)
