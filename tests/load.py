"""Callers that count without a pause, to see whom something costs a request."""

import asyncio
from typing import Self

import httpx
from fleet import Fleet, count, read, settled

WORKERS = 8
LIMIT_S = 60.0


class Load:
    """Workers that count, one command after the other, until told to stop."""

    def __init__(self, fleet: Fleet, tenant: str, *, retries: bool) -> None:
        self.fleet, self.tenant, self.retries = fleet, tenant, retries
        self.answers: list[httpx.Response] = []
        self.refused = 0
        self._enough = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._work(n)) for n in range(WORKERS)]
        await self.until(len(self.answers) + 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._enough.set()
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*self._tasks)

    async def until(self, answers: int) -> None:
        """Return when there are so many answers."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.answers) < answers:
                await asyncio.sleep(0.01)

    async def more(self) -> None:
        """Return after some more answers."""
        await self.until(len(self.answers) + 100)

    async def _work(self, worker: int) -> None:
        done = 0
        async with self.fleet.client(self.tenant) as client:
            while not self._enough.is_set():
                done += 1
                answer = await count(client, f"c{done % 3}", key=f"{worker}-{done}")
                while self.retries and answer.status_code == 503:
                    self.refused += 1
                    answer = await count(client, f"c{done % 3}", key=f"{worker}-{done}")
                self.answers.append(answer)


async def total(fleet: Fleet, tenant: str) -> int:
    await settled(fleet)
    async with fleet.client(tenant) as client:
        return sum([(await read(client, f"c{n}")).json()["value"] for n in range(3)])
