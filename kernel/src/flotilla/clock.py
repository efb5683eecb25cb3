"""Time, identity and chance, as arguments. Only composition roots build the real ones."""

import asyncio
import os
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """What time it is, and waiting."""

    def now(self) -> datetime:
        """Return the wall clock's time, in UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that only ever grow, for measuring."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Return after `duration_s` seconds."""
        ...


class IdSource(Protocol):
    """Where new identities come from."""

    def __call__(self) -> UUID:
        """Return an id that nobody else has."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the wall clock's time, in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - this is the clock that is asked

    def monotonic_s(self) -> float:
        """Return the monotonic clock's seconds."""
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        """Sleep on the event loop."""
        await asyncio.sleep(duration_s)


def to_us(at: datetime) -> int:
    """Return microseconds since 1970, exactly: a moment, to every database."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(at_us: int) -> datetime:
    """Return the moment, in UTC."""
    return _EPOCH + at_us * _MICROSECOND


_ENTROPY_IDS = 256
_entropy: deque[bytes] = deque()
"""Random bytes for the next ids: asking the system for each one costs more than all the rest of it."""
os.register_at_fork(after_in_child=_entropy.clear)


def uuid7() -> UUID:
    """Return a UUIDv7 (RFC 9562 §5.7): sorts by creation time, which keeps indexes compact."""
    timestamp_ms = time.time_ns() // 1_000_000
    value = (timestamp_ms << 80) | int.from_bytes(_ten_random_bytes())
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return UUID(int=value)


def _ten_random_bytes() -> bytes:
    """Return bytes that nobody else gets, in no thread and no forked child."""
    try:
        return _entropy.popleft()
    except IndexError:
        fresh = os.urandom(10 * _ENTROPY_IDS)
        _entropy.extend(fresh[n : n + 10] for n in range(10, len(fresh), 10))
        return fresh[:10]
