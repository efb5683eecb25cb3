"""The library's settings, for the embedded server and a schema of each test's own."""

from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from eventsourcing.utils import Environment

from flotilla.embedded import PostgresServer


@pytest.fixture
def settings(postgres_server: PostgresServer) -> dict[str, str]:
    url = urlsplit(postgres_server.dsn)
    query = parse_qs(url.query)
    return {
        "PERSISTENCE_MODULE": "flotilla.interop.eventsourcing",
        "POSTGRES_DBNAME": url.path.lstrip("/"),
        "POSTGRES_HOST": query["host"][0],
        "POSTGRES_PORT": query["port"][0],
        "POSTGRES_USER": url.username or "",
        "POSTGRES_PASSWORD": "",
        "POSTGRES_POOL_SIZE": "1",
        "FLOTILLA_SERVICE": f"s{uuid4().hex[:12]}",
    }


@pytest.fixture
def env(request: pytest.FixtureRequest, settings: dict[str, str]) -> Environment:
    """For the library's test cases, which are unittest classes: their `self.env`."""
    environment = Environment(env=settings)
    if request.instance is not None:
        request.instance.env = environment
    return environment
