"""The command path on one PostgreSQL server, while sessions end, servers die and processes freeze.

Two processes of callers share the streams, like two replicas of a service, for the whole run; each
round has tenants of its own.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from chaos.checkers import violations
from chaos.databases import open_database
from chaos.faults import FREEZE_MAX_S, Fault, Kind, schedule_of
from chaos.history import History
from chaos.processes import children_of, stopped
from chaos.rounds import SETTLE_MAX_S, Round
from chaos.truth import read_store
from flotilla import Clock
from flotilla.embedded import PostgresServer, run_postgres
from flotilla.stores.postgres.isolation import EVERY_TENANT
from flotilla_contracts.counter import SERVICE

ROOT = Path(__file__).parents[1]
PROCESSES = ("a", "b")
TENANTS = 5
LAST_FAULT_S = 1.0
AFTER_LAST_S = 0.25
"""How long the load goes on after the last fault."""
LINE_BYTES_MAX = 64 * 2**20
STOP_MAX_S = 15.0
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_SESSIONS = "select pid from pg_stat_activity where application_name = $1"
_NAME = f"flotilla-{SERVICE}"


def kinds(freeze_max_s: float = FREEZE_MAX_S) -> Mapping[str, Kind]:
    """Return what may happen; nothing is frozen for longer than `freeze_max_s`."""
    return {
        "terminate-session": Kind(weight=2),
        "terminate-all-sessions": Kind(weight=2),
        "cancel-statement": Kind(weight=2),
        "kill-postmaster": Kind(weight=2),
        "freeze-session": Kind(seconds_max=freeze_max_s, weight=2),
        "freeze-all-sessions": Kind(seconds_max=0.3 * freeze_max_s),
        "freeze-callers": Kind(PROCESSES, seconds_max=freeze_max_s, weight=2),
    }


@dataclass(eq=False)
class Callers:
    """A process of callers (see `chaos.store_callers`)."""

    process: Process

    async def tell(self, **document: Any) -> None:
        """Send one line."""
        assert self.process.stdin  # noqa: S101 - it was started with one
        self.process.stdin.write(json.dumps(document).encode() + b"\n")
        await self.process.stdin.drain()

    async def hear(self) -> Any:
        """Return the next line.

        Raises:
            RuntimeError: the process ended.

        """
        assert self.process.stdout  # noqa: S101 - it was started with one
        if line := await self.process.stdout.readline():
            return json.loads(line)
        raise RuntimeError(f"callers ended with status {await self.process.wait()}")


@dataclass(eq=False)
class StoreWorld:
    """A PostgreSQL server and its callers."""

    postgres: PostgresServer
    callers: Mapping[str, Callers]
    clock: Clock

    async def strike(self, fault: Fault) -> None:
        """Do what a fault says; return when it is over."""
        await _ACTIONS[fault.kind](self, fault)

    async def ask(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows of a question of the nemesis; none when the server is down by now."""
        with suppress(OSError, *DRIVER_ERRORS):
            session = await asyncpg.connect(
                self.postgres.dsn, timeout=5, command_timeout=5, server_settings=EVERY_TENANT
            )
            try:
                found: list[asyncpg.Record] = await session.fetch(sql, *arguments)
                return found
            finally:
                session.terminate()
        return []

    async def sessions(self) -> list[int]:
        """Return the backends of the callers."""
        return [row["pid"] for row in await self.ask(_SESSIONS, _NAME)]

    async def on_one(self, fault: Fault, what: str) -> None:
        """Run a function of PostgreSQL on one backend, one that works if there is any."""
        for condition in (" and state = 'active'", ""):
            rows = await self.ask(_SESSIONS + condition, _NAME)
            if rows:
                await self.ask(f"select {what}($1)", fault.chosen(rows)["pid"])
                return

    async def freeze(self, pids: Sequence[int], seconds: float) -> None:
        """Stop processes for a while, if they are ours."""
        mine = {*children_of(self.postgres.pid), *(c.process.pid for c in self.callers.values())}
        with stopped([pid for pid in pids if pid in mine]):
            await self.clock.sleep(seconds)


async def _terminate_all(world: StoreWorld, _: Fault) -> None:
    await world.ask(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", _NAME
    )


async def _freeze_session(world: StoreWorld, fault: Fault) -> None:
    if found := await world.sessions():
        await world.freeze([fault.chosen(found)], fault.seconds)


async def _freeze_all(world: StoreWorld, fault: Fault) -> None:
    await world.freeze(await world.sessions(), fault.seconds)


_ACTIONS: Mapping[str, Callable[[StoreWorld, Fault], Awaitable[None]]] = {
    "terminate-session": lambda world, fault: world.on_one(fault, "pg_terminate_backend"),
    "terminate-all-sessions": _terminate_all,
    "cancel-statement": lambda world, fault: world.on_one(fault, "pg_cancel_backend"),
    "kill-postmaster": lambda world, _: world.postgres.kill(),
    "freeze-session": _freeze_session,
    "freeze-all-sessions": _freeze_all,
    "freeze-callers": lambda world, fault: world.freeze(
        [world.callers[fault.target].process.pid], fault.seconds
    ),
}


@asynccontextmanager
async def _run_callers(dsn: str, name: str) -> AsyncIterator[Callers]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos.store_callers", dsn, name),
        stdin=PIPE,
        stdout=PIPE,
        cwd=ROOT,
        limit=LINE_BYTES_MAX,
    )
    try:
        yield Callers(process)
    finally:
        assert process.stdin  # noqa: S101 - it was started with one
        process.stdin.close()  # the end of its input is its end
        try:
            async with asyncio.timeout(STOP_MAX_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def store_world(folder: Path, clock: Clock) -> AsyncIterator[StoreWorld]:
    """Run the server and its callers for the length of the block."""
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(run_postgres(folder))
        callers = {
            name: await stack.enter_async_context(_run_callers(postgres.dsn, name))
            for name in PROCESSES
        }
        for each in callers.values():
            await each.hear()  # it is ready
        yield StoreWorld(postgres, callers, clock)


async def store_round(world: StoreWorld, seed: int, name: str, freeze_max_s: float) -> Round:
    """Run one round; return what it was like."""
    faults = schedule_of(seed, kinds(freeze_max_s), last_s=LAST_FAULT_S)
    tenants = [f"{name}-{n}" for n in range(TENANTS)]
    clock, started_s = world.clock, world.clock.monotonic_s()
    for number, callers in enumerate(world.callers.values()):
        await callers.tell(
            begin=name, seed=seed * 10 + number, tenants=tenants, settle_max_s=SETTLE_MAX_S
        )

    async def strike(fault: Fault) -> None:
        await clock.sleep(started_s + fault.at_s - clock.monotonic_s())
        await world.strike(fault)

    await asyncio.gather(*(strike(fault) for fault in faults))
    ended_s = clock.monotonic_s()
    await clock.sleep(AFTER_LAST_S)
    history, settled = History(), True
    for callers in world.callers.values():
        await callers.tell(over=True)
    for callers in world.callers.values():
        settled &= (await callers.hear())["settled"]
    recovery_s = clock.monotonic_s() - ended_s - AFTER_LAST_S
    for callers in world.callers.values():
        await callers.tell(give_up=True)
        part = History.from_json(await callers.hear())
        history.commands += part.commands
    async with open_database({SERVICE: world.postgres.dsn}) as database:
        truth = await read_store(database, schema=SERVICE, round_name=name)
    found = violations(history, truth)
    if not settled:
        found.insert(0, f"not everybody was answered {SETTLE_MAX_S:g} s after the last fault")
    return Round.of(seed, faults, history, recovery_s, found)
