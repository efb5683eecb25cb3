"""What the tests of the embedded servers share."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from flotilla.testing.servers import open_folder

LIMIT_S = 30.0
_POLL_S = 0.05

type Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that PostgreSQL's user may reach; others in the middle may be closed by the test."""
    with open_folder() as folder:
        yield folder


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds; one that raises does not hold yet. Fails after `LIMIT_S`."""

    async def wait(condition: Callable[[], Awaitable[bool]]) -> None:
        last: Exception | None = None
        try:
            async with asyncio.timeout(LIMIT_S):
                while True:
                    try:
                        if await condition():
                            return
                    except Exception as error:  # noqa: BLE001 - whatever a server is down with
                        last = error
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            pytest.fail(f"did not hold within {LIMIT_S} s; last: {last!r}")

    return wait
