"""Callers: each asks for one thing after the other, and insists until it knows what became of it.

    command ──attempt──▶ ok, refused: settled
       ▲         │
       └─a pause─┘ unknown: the same command again, under the same key

Hot counters are everybody's, cold ones are hardly anybody's; some commands depend on the version that
was seen last. Which ones is decided by a seed; how they interleave is not.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

from chaos.history import Attempt, Command, Heard, History, Read
from flotilla import Clock

COLD_COUNTERS = 40
"""Of each tenant."""
HOT_SHARE = 0.4
CONDITION_SHARE = 0.1
DECREMENT_SHARE = 0.2
READ_SHARE = 0.15
BY_MAX = 9
RETRY_PAUSE_S = (0.02, 0.15)

Send = Callable[[Command], Awaitable[Heard]]
"""Send a command once; never raises."""
Look = Callable[[str, int], Awaitable[Heard]]
"""Query a counter (`<tenant>/counter/<id>`) that has reached a version; never raises."""


@dataclass(slots=True)
class Load:
    """One round's callers.

    They stop asking for new things after `over`, and insist no more after `given_up`.
    """

    name: str
    tenants: tuple[str, ...]
    send: Send
    clock: Clock
    chance: random.Random
    look: Look | None = None
    pace_s: float = 0.0
    """How long a caller rests, at most, between two things."""
    commands_max: int = 5_000
    history: History = field(default_factory=History)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    given_up: asyncio.Event = field(default_factory=asyncio.Event)
    seen: dict[str, int] = field(default_factory=dict)
    """The last version of each counter that a caller was told."""
    numbers: "count[int]" = field(default_factory=count)

    async def run(self, callers: int) -> None:
        """Return when all callers have stopped."""
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self._call())

    async def _call(self) -> None:
        while not self.over.is_set() and len(self.history.commands) < self.commands_max:
            if self.look and self.seen and self.chance.random() < READ_SHARE:
                await self._read(self.look)
            else:
                await self._insist(self._command())
            await self.clock.sleep(self.pace_s * self.chance.random())

    def _command(self) -> Command:
        chance, number = self.chance, next(self.numbers)
        hot = chance.random() < HOT_SHARE
        tenant = self.tenants[0] if hot else chance.choice(self.tenants)
        counter = f"hot{chance.randrange(2)}" if hot else f"c{chance.randrange(COLD_COUNTERS)}"
        stream = f"{tenant}/counter/{counter}"
        by = chance.randint(1, BY_MAX) * (-1 if chance.random() < DECREMENT_SHARE else 1)
        conditional = stream in self.seen and chance.random() < CONDITION_SHARE
        expected = self.seen[stream] if conditional else None
        return Command(f"{self.name}-{number}", stream, by, expected)

    async def _insist(self, command: Command) -> None:
        self.history.commands.append(command)
        while True:
            invoked_s = self.clock.monotonic_s()
            heard = await self.send(command)
            command.attempts.append(Attempt(invoked_s, self.clock.monotonic_s(), heard))
            if heard.outcome == "ok":
                before = self.seen.get(command.stream, 0)
                self.seen[command.stream] = max(before, heard.version)
            if heard.outcome != "unknown" or self.given_up.is_set():
                return
            await self.clock.sleep(self.chance.uniform(*RETRY_PAUSE_S))

    async def _read(self, look: Look) -> None:
        """Ask once: a query that is not answered says nothing."""
        stream = self.chance.choice(list(self.seen))
        at_least = self.seen[stream] if self.chance.random() < 1 / 2 else 0
        invoked_s = self.clock.monotonic_s()
        heard = await look(stream, at_least)
        ended_s = self.clock.monotonic_s()
        if heard.outcome == "ok":
            read = Read(stream, at_least, invoked_s, ended_s, heard.value, heard.version)
            self.history.reads.append(read)
        elif heard.outcome == "wrong":
            wrong = Command(f"{self.name}-query", stream, 0)
            wrong.attempts.append(Attempt(invoked_s, ended_s, heard))
            self.history.commands.append(wrong)
