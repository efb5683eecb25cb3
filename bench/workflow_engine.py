"""One workflow engine in a process of its own, under one load: `python -m bench.workflow_engine`.

Prints one JSON line with what it measured. Every engine runs the same workflow: three steps in a row,
each of which asks the same service, which writes one effect under the step's key and commits it.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from itertools import count

import asyncpg

from bench.dbos_workflow import dbos_async, dbos_threads
from bench.measure import Ask, Load, Sample, closed_loop, open_loop
from bench.ours_workflow import flotilla
from bench.workflow_service import CONNECTIONS, STEPS, Service, service

WARM_UP_WORKFLOWS = 200
WARM_UP_CALLERS = 20


class EffectsWrongError(Exception):
    """An engine answered that workflows were over whose effects are not there, or are there twice."""


@asynccontextmanager
async def floor(dsn: str, service: Service) -> AsyncIterator[Ask]:
    """Yield the least that is durable: a commit for the start, and one for the result of each step."""
    orders = count()
    async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        await pool.execute("create table checkpoint (key text, step int, primary key (key, step))")

        async def ask(_: int) -> None:
            order = f"o-{next(orders)}"
            await pool.execute("insert into checkpoint values ($1, 0)", order)
            for number, step in enumerate(STEPS, 1):
                await service.ask(f"{order}/{step}")
                await pool.execute("insert into checkpoint values ($1, $2)", order, number)

        yield ask


ENGINES: dict[str, Callable[[str, Service], AbstractAsyncContextManager[Ask]]] = {
    "ours": flotilla,
    "dbos_async": dbos_async,
    "dbos_threads": dbos_threads,
    "floor": floor,
}


async def measure(engine: str, dsn: str, *, in_flight: int, per_s: float, seconds: float) -> Sample:
    """Keep `in_flight` workflows in flight, or begin `per_s` a second; all end before this returns.

    Raises:
        EffectsWrongError: what the service wrote is not one effect a step.

    """
    done = 0
    async with service(dsn) as effects, ENGINES[engine](dsn, effects) as ask:

        async def counted(number: int) -> None:
            nonlocal done
            await ask(number)
            done += 1

        warm_up = iter(range(WARM_UP_WORKFLOWS))

        async def warm() -> None:
            for number in warm_up:
                await counted(number)

        await asyncio.gather(*(warm() for _ in range(WARM_UP_CALLERS)))
        if per_s:
            taken = await open_loop(counted, per_s=per_s, streams=1, seconds=seconds)
        else:
            taken = await closed_loop([counted], Load("many", in_flight), seconds)
        if (found := await effects.count()) != done * len(STEPS):
            raise EffectsWrongError(f"{engine}: {found} effects of {done} workflows")
    return taken


def main(arguments: list[str]) -> None:
    """Measure what the command line says: engine, DSN, in flight, arrivals a second, seconds."""
    engine, dsn, in_flight, per_s, seconds = arguments
    taken = asyncio.run(
        measure(engine, dsn, in_flight=int(in_flight), per_s=float(per_s), seconds=float(seconds))
    )
    sys.stdout.write(json.dumps(asdict(taken)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
