"""Workflows over real counters, in processes of their own, one of which is killed at a chosen step.

    driver ──nats──▶ counter ──▶ postgres ◀── relay, workflow-1, workflow-2 ──nats──▶ counter

A round starts workflows by events; for every other one the last step is refused. Afterwards each has to
have completed, or to be fully taken back, and the counters' own history says that each effect happened
exactly once.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any

from chaos.databases import Database, open_database
from chaos.many_processes import child_node
from chaos.node import WHENS
from chaos.processes import send
from chaos.rounds import SETTLE_MAX_S, Round
from flotilla import Clock, Context, Request, uuid7
from flotilla.buses.nats import NatsBus
from flotilla.embedded import run_nats, run_postgres
from flotilla.errors import KernelError

INSTANCES = 12
STEPS = ("reserve", "charge", "ship", "reserve:undo", "charge:undo")
"""Where one is killed, one after the other, round by round."""
UPPER_BOUND = 1000
TOO_MUCH = UPPER_BOUND + 1
TELL_MAX_S = 20.0
LOOK_AGAIN_S = 0.1
MOVE_MAX_S = SETTLE_MAX_S + 15.0
"""Until everything has ended: with the six seconds after which a try of a dead worker is taken over."""
NODES: Mapping[str, Sequence[str]] = {
    "counter": ["counter"],
    "relay": ["outbox-relay"],
    "workflow-1": ["workflow"],
    "workflow-2": ["workflow"],
}
ENDS = {"workflow.completed.v1", "workflow.compensated.v1"}
_COUNTERS = """
select stream, version, type from counter.event where stream like $1 order by stream, version
"""
_WORKFLOWS = """
select stream, type from workflow.event where stream like $1 order by stream, version
"""


def _step(name: str, by: object, *needs: str) -> dict[str, Any]:
    counter_id = f"${{trigger.counter_id}}-{name}"
    call = {"service": "counter", "command": "increment"}
    undo = {"service": "counter", "command": "reset", "parameters": {"counter_id": counter_id}}
    return {
        "name": name,
        "call": call | {"parameters": {"counter_id": counter_id, "by": by}},
        "compensation": undo,
        "depends_on": list(needs),
    }


ORDERING = {
    "name": "ordering",
    "version": 1,
    "trigger": {"event": "counter.decremented.v1"},
    "idempotency_key": "${trigger.counter_id}",
    "steps": [
        _step("reserve", 1),
        _step("charge", 2, "reserve"),
        _step("ship", "${trigger.by}", "charge"),
    ],
}


@dataclass(frozen=True, slots=True)
class WorkflowWorld:
    """A way to tell the counters, what is really stored, and where it is written who has to die."""

    bus: NatsBus
    dsn: str
    death: Path
    clock: Clock


@asynccontextmanager
async def workflow_world(folder: Path, clock: Clock) -> AsyncIterator[WorkflowWorld]:
    """Run everything for the length of the block."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        postgres = await enter(run_postgres(folder))
        nats = await enter(run_nats(folder))
        death = folder / "death.json"
        places = {
            "dsn": postgres.dsn,
            "nats_url": nats.url,
            "http_port": 0,
            "services": ["counter", "outbox-relay", "workflow"],
            "logs": ["counter", "workflow"],
            "workflows": {"ordering.yaml": ORDERING},
            "death": str(death),
            "settings": {"FLOTILLA_COUNTER_UPPER_BOUND": str(UPPER_BOUND)},
        }
        nodes = {name: child_node(folder, name, runs, places) for name, runs in NODES.items()}
        for node in nodes.values():
            stack.push_async_callback(node.stop)
        await asyncio.gather(*(node.start() for node in nodes.values()))
        bus = await enter(NatsBus(nats.url, name="chaos"))
        try:
            yield WorkflowWorld(bus, postgres.dsn, death, clock)
        finally:
            send([node.pid for node in nodes.values()], SIGKILL)  # it has nothing left to say


async def workflow_round(world: WorkflowWorld, seed: int, name: str, freeze_max_s: float) -> Round:
    """Run one round; return what it was like."""
    chance = random.Random(seed)
    step, when = STEPS[seed % len(STEPS)], chance.choice(WHENS)
    after_ms = round(chance.uniform(0, min(6.0, 1000 * freeze_max_s)), 2)
    said = {"round": name, "step": step, "when": when, "after_ms": after_ms}
    world.death.write_text(json.dumps(said))
    started_s = world.clock.monotonic_s()
    refused = [f"{name}-{n}" for n in range(INSTANCES) if n % 2]
    done = [f"{name}-{n}" for n in range(INSTANCES) if not n % 2]
    wanted = dict.fromkeys(done, 1) | dict.fromkeys(refused, TOO_MUCH)
    again = await asyncio.gather(*(_begin(world, name, one, by) for one, by in wanted.items()))
    found = list[str]()
    async with open_database({"workflow": world.dsn}) as database:
        ends = await _ended(world, database, name, started_s + MOVE_MAX_S)
        found += _not_ended(ends, done, refused)
        found += _effects(await database.rows(_COUNTERS, f"{name}/%"), name, done, refused)
    if world.death.exists():
        world.death.unlink()
        found.append(f"nobody was killed {when} {step}")
    ended = [end for end in ends.values() if end in ENDS]
    return Round(
        seed,
        (f"kill -9 {when} {step}" + (f" +{after_ms:g} ms" if when == "while" else ""),),
        commands=INSTANCES,
        acknowledged=len(ended),
        replayed=0,
        refused=ended.count("workflow.compensated.v1"),
        unknown=sum(again),
        reads=0,
        recovery_s=world.clock.monotonic_s() - started_s,
        violations=tuple(found),
    )


async def _begin(world: WorkflowWorld, tenant: str, counter_id: str, by: int) -> int:
    """Count down, so that a workflow begins; return how often nobody answered."""
    body = json.dumps({"counter_id": counter_id, "by": by}).encode()
    context = Context(tenant, "chaos", idempotency_key=str(uuid7()), timeout_s=2.0)
    unheard = 0
    async with asyncio.timeout(TELL_MAX_S):
        while True:
            try:
                await world.bus.request(Request("cmd.counter.decrement", body, context))
            except KernelError:
                unheard += 1
                await world.clock.sleep(LOOK_AGAIN_S)
            else:
                return unheard


async def _ended(
    world: WorkflowWorld, database: Database, name: str, deadline_s: float
) -> Mapping[str, str]:
    """Return the last event of every instance, when all have ended; after the deadline as they are."""
    while True:
        rows = await database.rows(_WORKFLOWS, f"{name}/workflow/ordering:%")
        last = {row["stream"].partition(":")[2]: row["type"] for row in rows}
        over = [end for end in last.values() if end in ENDS]
        if len(over) == INSTANCES or world.clock.monotonic_s() > deadline_s:
            return last
        await world.clock.sleep(LOOK_AGAIN_S)


def _not_ended(ends: Mapping[str, str], done: Sequence[str], refused: Sequence[str]) -> list[str]:
    wanted = dict.fromkeys(done, "workflow.completed.v1")
    wanted |= dict.fromkeys(refused, "workflow.compensated.v1")
    return [
        f"{one} should end with {end}, and its last event is {ends.get(one)}"
        for one, end in wanted.items()
        if ends.get(one) != end
    ]


def _effects(
    rows: Sequence[Mapping[str, Any]], name: str, done: Sequence[str], refused: Sequence[str]
) -> list[str]:
    """Return which effects did not happen exactly once, by the counters' own history."""
    there: dict[str, list[str]] = {}
    for row in rows:
        there.setdefault(row["stream"].rpartition("/")[2], []).append(row["type"].split(".")[1])
    counted, taken_back = ["opened", "incremented"], ["opened", "incremented", "reset"]
    wanted = {one: ["opened", "decremented"] for one in (*done, *refused)}
    wanted |= {f"{one}-{step}": counted for one in done for step in ("reserve", "charge", "ship")}
    wanted |= {f"{one}-{step}": taken_back for one in refused for step in ("reserve", "charge")}
    return [
        f"{name}: counter {one} should have {wanted.get(one, [])} and has {there.get(one, [])}"
        for one in sorted(wanted.keys() | there.keys())
        if wanted.get(one) != there.get(one)
    ]
