"""What can break in a fleet of processes, and how it is broken."""

import re
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from signal import SIGKILL, SIGTERM

from chaos.faults import FREEZE_MAX_S, Fault, Kind
from chaos.links import FAILURES, Mode
from chaos.processes import children_of, send, stopped
from chaos.worlds import Breakable, FleetWorld

_ROOM = re.compile(r"max_file_store: \d+")
NO_ROOM_BYTES = 1
ROOM_BYTES = 16 * 1024**3
"""What an embedded broker has."""


def kinds(breakable: Breakable, freeze_max_s: float = FREEZE_MAX_S) -> Mapping[str, Kind]:
    """Return what may happen to a fleet; nothing is frozen for longer than `freeze_max_s`."""
    nodes, links = breakable.nodes, breakable.links
    found = {
        "kill": Kind(nodes, weight=4),
        "terminate": Kind(nodes, weight=2),
        "freeze": Kind(nodes, seconds_max=freeze_max_s, weight=4),
        "nats-kill": Kind(weight=2),
        "nats-freeze": Kind(seconds_max=freeze_max_s, weight=2),
        "nats-wipe": Kind(weight=2),
        "nats-full": Kind(seconds_max=0.3 * freeze_max_s),
        **{f"link-{mode}": Kind(links, seconds_max=0.4 * freeze_max_s) for mode in FAILURES},
    }
    if breakable.has_postgres:
        found |= {
            "postgres-kill": Kind(weight=2),
            "postgres-freeze-session": Kind(seconds_max=freeze_max_s, weight=2),
            "postgres-freeze-all": Kind(seconds_max=0.3 * freeze_max_s),
        }
    return found


async def strike(world: FleetWorld, fault: Fault) -> None:
    """Do what a fault says; return when it is over."""
    if fault.kind.startswith("link-"):
        await _fail_link(world, fault)
    else:
        await _ACTIONS[fault.kind](world, fault)


async def _fail_link(world: FleetWorld, fault: Fault) -> None:
    mode: Mode = next(mode for mode in FAILURES if fault.kind == f"link-{mode}")
    link = world.links[fault.target]
    try:
        link.fail(mode)
        await world.clock.sleep(fault.seconds)
    finally:
        link.heal()


async def _signal(world: FleetWorld, fault: Fault) -> None:
    send([world.nodes[fault.target].pid], SIGKILL if fault.kind == "kill" else SIGTERM)


async def _freeze(world: FleetWorld, pids: Sequence[int], seconds: float) -> None:
    with stopped(pids):
        await world.clock.sleep(seconds)


async def _freeze_node(world: FleetWorld, fault: Fault) -> None:
    await _freeze(world, [world.nodes[fault.target].pid], fault.seconds)


def _sessions(world: FleetWorld) -> list[int]:
    return [child for pid in world.postgres() for child in children_of(pid)]


async def _freeze_session(world: FleetWorld, fault: Fault) -> None:
    if found := _sessions(world):
        await _freeze(world, [fault.chosen(found)], fault.seconds)


async def _freeze_all(world: FleetWorld, fault: Fault) -> None:
    await _freeze(world, _sessions(world), fault.seconds)


async def _freeze_nats(world: FleetWorld, fault: Fault) -> None:
    await _freeze(world, world.nats(), fault.seconds)


async def _kill_postgres(world: FleetWorld, _: Fault) -> None:
    send(world.postgres(), SIGKILL)


async def _kill_nats(world: FleetWorld, _: Fault) -> None:
    send(world.nats(), SIGKILL)


async def _wipe(world: FleetWorld, _: Fault) -> None:
    """Kill the broker and take its data away before it is started again, a tenth of a second later."""
    if not (pids := world.nats()):
        return  # who is starting right now would lose it while it runs
    gone = world.folder / "nats.gone"
    send(pids, SIGKILL)
    with suppress(FileNotFoundError):  # wiped a moment ago
        (world.folder / "nats").rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
    world.judged_upto = 0


async def _fill(world: FleetWorld, fault: Fault) -> None:
    """Leave the broker no room for as long as it takes, as a full disk would."""
    try:
        _limit(world, NO_ROOM_BYTES)
        send(world.nats(), SIGKILL)
        await world.clock.sleep(fault.seconds)
    finally:
        _limit(world, ROOM_BYTES)
        send(world.nats(), SIGKILL)


def _limit(world: FleetWorld, room_bytes: int) -> None:
    """Change how much the broker may store from its next start on."""
    config = world.folder / "nats.conf"
    config.write_text(_ROOM.sub(f"max_file_store: {room_bytes}", config.read_text()))


_ACTIONS: Mapping[str, Callable[[FleetWorld, Fault], Awaitable[None]]] = {
    "kill": _signal,
    "terminate": _signal,
    "freeze": _freeze_node,
    "postgres-kill": _kill_postgres,
    "postgres-freeze-session": _freeze_session,
    "postgres-freeze-all": _freeze_all,
    "nats-kill": _kill_nats,
    "nats-freeze": _freeze_nats,
    "nats-wipe": _wipe,
    "nats-full": _fill,
}
