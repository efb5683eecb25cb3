"""How a query waits until its view has seen what the caller has seen elsewhere: bounded."""

import asyncio
from collections.abc import Awaitable, Callable

from flotilla import Context, Unavailable
from flotilla_contracts.errors import ErrorCode

LOOK_AGAIN_S = 0.05
"""Another process may move the view, and nobody here would hear of it."""

WAIT_SHARE_MAX = 0.8
"""How much of the caller's time may be spent waiting: an answer has to arrive within it, too."""


def wait_limit_s(context: Context, wait_max_s: float) -> float:
    """Return how long a query with this context may wait."""
    return min(wait_max_s, WAIT_SHARE_MAX * context.timeout_s)


async def until(
    fact: Callable[[], Awaitable[bool]], moved: asyncio.Condition, token: str, limit_s: float
) -> None:
    """Return when `fact` is true; looked at again whenever the view `moved`.

    Raises `Unavailable` (`view-behind`) when it is not within `limit_s`.
    """
    try:
        async with asyncio.timeout(limit_s):
            while not await fact():
                async with moved:
                    await _notified(moved)
    except TimeoutError as error:
        raise Unavailable(
            f"the view has not seen {token} within {limit_s} s; try again",
            code=ErrorCode.VIEW_BEHIND,
        ) from error


async def _notified(condition: asyncio.Condition) -> None:
    try:
        async with asyncio.timeout(LOOK_AGAIN_S):
            await condition.wait()
    except TimeoutError:
        pass
