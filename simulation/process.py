"""A process on a bad network: it is paused, it dies, and whatever it asks for may go wrong.

    asked ──paused?──▶ sent ──▶ done ──▶ answered ──paused?──▶ heard
                        │        └─ the reply is lost, or too late: `Unavailable`, and it was done
                        └─ the request is lost: `Unavailable`, and it was not

A request that was sent is on its way by itself: it is done even if its sender has died meanwhile or has
given up on it. A pause begins right before a request is sent: after the last look at the clock.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from flotilla import KernelError, Unavailable

TIMEOUT_S = 2.0
"""How long a caller waits for a reply."""
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
PAUSE_MAX_S = 6.0
"""Twice as long as a lease lives."""
LATE_MAX_S = 5.0


@dataclass(slots=True)
class Weather:
    """How likely each fault is, at each call. Every world has its own mixture; some have none of one."""

    lost_request: float = 0.0
    lost_reply: float = 0.0
    late: float = 0.0
    death: float = 0.0
    pause: float = 0.0

    @classmethod
    def of(cls, rng: random.Random) -> Self:
        """Return a storm."""
        return cls(**{f.name: rng.choice([0.0, 0.01, 0.03, 0.06]) for f in fields(cls)})


@dataclass(slots=True)
class Network:
    """What happens to calls, and what was done, in order."""

    rng: random.Random
    weather: Weather
    trace: list[tuple[float, str, str, str]] = field(default_factory=list)
    under_way: Counter[str] = field(default_factory=Counter)
    """Calls by name that were asked for and are neither done nor lost."""
    after_each: Callable[[str], None] = lambda _what: None
    broken: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """Fails when a promise is broken: that is the end of this world."""

    def note(self, who: str, what: str, detail: str = "") -> None:
        """Write a line of the trace."""
        self.trace.append((asyncio.get_running_loop().time(), who, what, detail))

    def fail(self, error: BaseException) -> None:
        """End the world."""
        if not self.broken.done():
            self.note("world", "BROKEN", repr(error))
            self.broken.set_exception(error)

    def happens(self, chance: float) -> bool:
        """Return whether something does that is so likely."""
        return chance > 0 and self.rng.random() < chance

    def takes_s(self) -> float:
        """Return how long a message is on its way."""
        if self.happens(self.weather.late):
            return self.rng.random() * LATE_MAX_S
        return 0.001 + self.rng.random() * self.rng.choice([0.002, 0.01, 0.05])


@dataclass(slots=True, eq=False)
class Process:
    """One process; it is also its own clock, which is asked for nothing while it is paused."""

    name: str
    network: Network
    dead: bool = False
    task: asyncio.Task[None] | None = None
    _paused_until_s: float = 0.0

    def now(self) -> datetime:
        """Return the wall clock's time."""
        return BEGINNING + timedelta(seconds=self.monotonic_s())

    def monotonic_s(self) -> float:
        """Return how long there has been a world."""
        return asyncio.get_running_loop().time()

    async def sleep(self, duration_s: float) -> None:
        """Return after so long, or when the pause is over."""
        await asyncio.sleep(duration_s)
        await self._awake()

    def pause(self, duration_s: float) -> None:
        """Do nothing for so long, while time passes."""
        self._paused_until_s = self.monotonic_s() + duration_s
        self.network.note(self.name, "paused", f"for {duration_s:.1f} s")

    def die(self) -> None:
        """Die at once: nothing that is tidied up afterwards leaves this process."""
        if not self.dead:
            self.dead = True
            self.network.note(self.name, "dies")
            if self.task:
                self.task.cancel()

    async def call[T](self, what: str, do: Callable[[], T], detail: str = "") -> T:
        """Have `do` done elsewhere, if nothing goes wrong; raise what it raises, or `Unavailable`."""
        network, sent = self.network, False
        network.under_way[what] += 1
        try:
            if network.happens(network.weather.pause):
                self.pause(network.rng.random() * PAUSE_MAX_S)
            await self._awake()
            if self.dead:
                raise Unavailable(f"{self.name} is dead")
            reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            self._send(what, do, detail, reply)
            sent = True
        finally:
            if not sent:
                network.under_way[what] -= 1
        try:
            return await reply
        finally:
            await self._awake()

    def _send[T](
        self, what: str, do: Callable[[], T], detail: str, reply: asyncio.Future[T]
    ) -> None:
        network, loop = self.network, asyncio.get_running_loop()
        there_s, back_s = network.takes_s(), network.takes_s()
        lost = network.happens(network.weather.lost_request)
        unheard = network.happens(network.weather.lost_reply)
        deadly = network.happens(network.weather.death)
        refused_s = network.rng.choice([there_s, TIMEOUT_S]) if lost else TIMEOUT_S

        def arrive() -> None:
            network.under_way[what] -= 1
            if lost:
                network.note(self.name, what, f"{detail}: request lost")
                return
            try:
                answer = do()
            except (KernelError, ValueError) as error:
                network.note(self.name, what, f"{detail}: {type(error).__name__}: {error}")
                if not unheard:
                    loop.call_later(back_s, _settle, reply, reply.set_exception, error)
            except Exception as error:  # noqa: BLE001 - a broken promise or a bug: both end the world
                network.fail(error)
            else:
                network.note(self.name, what, f"{detail} -> {_told(answer, unheard=unheard)}")
                if not unheard:
                    loop.call_later(back_s, _settle, reply, reply.set_result, answer)
            network.after_each(what)
            if deadly:
                self.die()

        loop.call_later(there_s, arrive)
        if lost or unheard or there_s + back_s > TIMEOUT_S:
            late = Unavailable(f"{what}: no reply")
            loop.call_later(refused_s, _settle, reply, reply.set_exception, late)

    async def _awake(self) -> None:
        while not self.dead and (left_s := self._paused_until_s - self.monotonic_s()) > 0:  # noqa: ASYNC110 - a pause may grow meanwhile
            await asyncio.sleep(left_s)


class Remote:
    """A port of this process, across the network: every method is a call."""

    def __init__(self, process: Process, port: object) -> None:
        self._process = process
        self._port = port

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._port, name)

        async def call(*args: object, **kwargs: object) -> object:
            detail = ", ".join([_told(a) for a in (*args, *kwargs.values())])
            return await self._process.call(name, lambda: at_once(method(*args, **kwargs)), detail)

        return call


def at_once[T](work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; it is done in memory and waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError(f"{work!r} waits for something")


def _settle[T, R](reply: asyncio.Future[T], settle: Callable[[R], None], outcome: R) -> None:
    if not reply.done():
        settle(outcome)


def _told(value: object, *, unheard: bool = False) -> str:
    """Return a value as one short word of a trace."""
    if isinstance(value, list | tuple) and value and not isinstance(value[0], int | str | tuple):
        text = f"{len(value)} {type(value[0]).__name__}"
    else:
        text = repr(value)
    return f"{text[:90]} (reply lost)" if unheard else text[:90]
