"""DBOS Transact in the two ways its documentation offers: async functions, and threads.

Workflows are called directly and their result is awaited where they run, so that nothing is polled for.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import count

from dbos import DBOS, SetWorkflowID
from psycopg_pool import ConnectionPool

from bench.measure import Ask
from bench.workflow_service import CONNECTIONS, INSERT, STEPS, Service

ASYNC_THREADS = 20
"""For its statements: as many as connections was the fastest of 20, 64 and 128."""
THREADS = 64
"""For workflows: faster than 20. What is asked for beyond waits for one of them."""


@asynccontextmanager
async def _launched(dsn: str, threads: int) -> AsyncIterator[None]:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": dsn.replace("postgresql://", "postgresql+psycopg://", 1),
            "sys_db_pool_size": CONNECTIONS,
            "max_executor_threads": threads,
            "log_level": "ERROR",
            "application_version": "bench",
        }
    )
    await asyncio.to_thread(DBOS.launch)
    try:
        yield
    finally:
        await asyncio.to_thread(DBOS.destroy)


@asynccontextmanager
async def dbos_async(dsn: str, service: Service) -> AsyncIterator[Ask]:
    """Yield async workflows of async steps, in the caller's loop."""

    @DBOS.step()
    async def step(key: str) -> str:
        return await service.ask(key)

    @DBOS.workflow()
    async def ordering(order: str) -> str:
        for name in STEPS:
            await step(f"{order}/{name}")
        return order

    orders = count()

    async def ask(_: int) -> None:
        order = f"o-{next(orders)}"
        with SetWorkflowID(order):
            await ordering(order)

    async with _launched(dsn, ASYNC_THREADS):
        yield ask


@asynccontextmanager
async def dbos_threads(dsn: str, service: Service) -> AsyncIterator[Ask]:
    """Yield workflows in threads; they ask the same service through a pool for threads."""
    del service  # its table is used, not its connections
    pool = ConnectionPool(
        dsn,
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        timeout=60,
        kwargs={"autocommit": True},
        open=False,
    )

    @DBOS.step()
    def step(key: str) -> str:
        with pool.connection() as connection:
            connection.execute(INSERT.replace("$1", "%s"), (key,))
        return "done"

    @DBOS.workflow()
    def ordering(order: str) -> str:
        for name in STEPS:
            step(f"{order}/{name}")
        return order

    def run(order: str) -> None:
        with SetWorkflowID(order):
            ordering(order)

    orders = count()
    with pool, ThreadPoolExecutor(THREADS) as threads:

        async def ask(_: int) -> None:
            await asyncio.get_running_loop().run_in_executor(threads, run, f"o-{next(orders)}")

        async with _launched(dsn, THREADS):
            yield ask
