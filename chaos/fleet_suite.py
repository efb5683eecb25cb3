"""A whole fleet under load over HTTP, while processes, servers and links fail.

Whatever it is made of (`chaos.worlds`): one process, or many with replicas.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from chaos.checkers import violations
from chaos.databases import open_database
from chaos.faults import Fault, schedule_of
from chaos.fleet_faults import kinds, strike
from chaos.history import Command, Heard
from chaos.load import Load
from chaos.rounds import SETTLE_MAX_S, Round
from chaos.truth import Truth, read_ledger, read_log, read_store, read_views
from chaos.worlds import LOOK_AGAIN_S, FleetWorld, past_the_links
from flotilla_contracts.counter import SERVICE

CALLERS = 24
TENANTS = 20
PACE_S = 0.1
AFTER_LAST_S = 0.3
"""How long the load goes on after the last fault."""
LOAD_MIN_S = 1.5
"""How long the load goes on at least, for rounds whose faults are over in no time."""
PATIENCE_S = 2.5
"""How long a caller waits for an answer: less than the deadline inside, so that it retries early."""
OK, PRECONDITION_FAILED, TRY_AGAIN = 200, 412, {409, 503}
SHOWN_AT_ONCE = 8
SHOWN_MAX_S = 15.0
"""How long it may take until every counter was shown."""


@dataclass(frozen=True, slots=True)
class OverHttp:
    """The REST API, as a caller who is cut off now and then."""

    client: httpx.AsyncClient

    async def send(self, command: Command) -> Heard:
        """Send a command once."""
        verb = "increment" if command.by > 0 else "decrement"
        headers = {"Idempotency-Key": command.key, "X-Correlation-Id": command.key}
        if command.expected is not None:
            headers["If-Match"] = f'"{command.expected}"'
        path = f"{_path(command.stream)}/{verb}"
        return await self._ask("POST", path, command.stream, headers, {"by": abs(command.by)})

    async def look(self, stream: str, at_least: int) -> Heard:
        """Query a counter once."""
        headers = {"X-Consistency-Token": f"{stream}@{at_least}"} if at_least else {}
        return await self._ask("GET", _path(stream), stream, headers, None)

    async def _ask(
        self,
        method: str,
        path: str,
        stream: str,
        headers: dict[str, str],
        body: dict[str, int] | None,
    ) -> Heard:
        headers["X-Tenant-Id"] = stream.split("/", maxsplit=1)[0]
        try:
            answer = await self.client.request(method, path, headers=headers, json=body)
            said = answer.json()
        except (httpx.HTTPError, OSError) as error:
            return Heard("unknown", repr(error))
        if answer.status_code == OK:
            replayed = answer.headers.get("idempotency-replayed") == "true"
            return Heard("ok", "", said["value"], said["version"], replayed)
        detail = f"{answer.status_code} {said['code']}: {said['detail']}"
        if answer.status_code == PRECONDITION_FAILED:
            return Heard("refused", detail)
        if answer.status_code in TRY_AGAIN:
            return Heard("unknown", detail)
        if method == "GET" and said["code"] == "counter-not-found":
            return Heard("unknown", detail)  # the view has not seen it yet
        return Heard("wrong", detail)


def _path(stream: str) -> str:
    return f"/v1/counters/{stream.rsplit('/', 1)[1]}"


async def fleet_round(world: FleetWorld, seed: int, name: str, freeze_max_s: float) -> Round:
    """Run one round; return what it was like."""
    faults = schedule_of(seed, kinds(world.breakable, freeze_max_s))
    clock, started_s = world.clock, world.clock.monotonic_s()
    limits = httpx.Limits(max_connections=CALLERS * 2)
    async with httpx.AsyncClient(base_url=world.api, timeout=PATIENCE_S, limits=limits) as client:
        http = OverHttp(client)
        tenants = tuple(f"{name}-{n}" for n in range(TENANTS))
        load = Load(
            name, tenants, http.send, clock, random.Random(seed), look=http.look, pace_s=PACE_S
        )
        calling = asyncio.create_task(load.run(CALLERS))

        async def happen(fault: Fault) -> None:
            await clock.sleep(started_s + fault.at_s - clock.monotonic_s())
            await strike(world, fault)

        try:
            await asyncio.gather(*(happen(fault) for fault in faults))
            ended_s = clock.monotonic_s()
            over_s = max(ended_s + AFTER_LAST_S, started_s + LOAD_MIN_S)
            await clock.sleep(over_s - clock.monotonic_s())
            load.over.set()
            await asyncio.wait([calling], timeout=SETTLE_MAX_S)
            missing = await world.until_well(ended_s + SETTLE_MAX_S - clock.monotonic_s())
            recovery_s = clock.monotonic_s() - ended_s
        finally:
            load.over.set()
            load.given_up.set()
            await calling
        found = [f"not well {SETTLE_MAX_S:g} s after the last fault: {what}" for what in missing]
        found += _halted(world)
        if not missing:
            truth = await _truth(world, name, http)
            found += violations(load.history, truth)
    return Round.of(seed, faults, load.history, recovery_s, found)


def _halted(world: FleetWorld) -> list[str]:
    """Return which work has stopped for good: no fault here may lead to that."""
    return [
        f"{entry['node']} halted: {entry.get('error')}"
        for entry in world.news()
        if entry.get("event") == "background.halted"
    ]


async def _truth(world: FleetWorld, name: str, http: OverHttp) -> Truth:
    """Return all there is of a round, and what was logged since the last comparison."""
    after = world.judged_upto
    async with open_database(world.stores) as database:
        truth = await read_store(database, schema=SERVICE, round_name=name)
        views = await read_views(database, round_name=name)
        ledger = await read_ledger(database, schema=SERVICE, after=after)
    async with past_the_links(world) as client:
        log = await read_log(client, SERVICE, after=after)
    world.judged_upto = after + len(log)
    shown = await _shown(world, http, list(truth.streams))
    return truth.but(views=views, ledger=ledger, log=log, log_after=after, shown=shown)


async def _shown(
    world: FleetWorld, http: OverHttp, streams: Sequence[str]
) -> Mapping[str, tuple[int, int]]:
    """Return what a query of each counter shows now; what is not answered in time is missing."""
    found: dict[str, tuple[int, int]] = {}
    deadline_s = world.clock.monotonic_s() + SHOWN_MAX_S

    async def show(stream: str) -> None:
        while (heard := await http.look(stream, 0)).outcome == "unknown":
            if world.clock.monotonic_s() > deadline_s:  # a replica that is still stopping says 503
                return
            await world.clock.sleep(LOOK_AGAIN_S)
        found[stream] = (heard.value, heard.version)

    for start in range(0, len(streams), SHOWN_AT_ONCE):
        await asyncio.gather(*map(show, streams[start : start + SHOWN_AT_ONCE]))
    return found
