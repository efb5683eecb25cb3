"""What can break in a fleet of processes, and how it is broken."""

import re
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from signal import SIGKILL, SIGTERM

from chaos.faults import Fault, Kind
from chaos.fleet_world import NODES, FleetWorld
from chaos.links import FAILURES, Mode
from chaos.processes import children_of, send, stopped

FREEZE_MAX_S = 5.0
LINKS = ("http", "nats", "postgres")
_ROOM = re.compile(r"max_file_store: \d+")
NO_ROOM_BYTES = 1


def kinds(freeze_max_s: float = FREEZE_MAX_S) -> Mapping[str, Kind]:
    """Return what may happen; nothing is frozen for longer than `freeze_max_s`."""
    nodes = tuple(NODES)
    links = {f"link-{mode}": Kind(LINKS, seconds_max=2.0) for mode in FAILURES}
    return {
        "kill": Kind(nodes, weight=4),
        "terminate": Kind(nodes, weight=2),
        "freeze": Kind(nodes, seconds_max=freeze_max_s, weight=4),
        "postgres-kill": Kind(weight=2),
        "postgres-freeze-session": Kind(seconds_max=3.0, weight=2),
        "postgres-freeze-all": Kind(seconds_max=1.5),
        "nats-kill": Kind(weight=2),
        "nats-freeze": Kind(seconds_max=3.0, weight=2),
        "nats-wipe": Kind(weight=2),
        "nats-full": Kind(seconds_max=1.5),
        **links,
    }


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


async def _freeze_session(world: FleetWorld, fault: Fault) -> None:
    if found := children_of(world.postgres.pid):
        await _freeze(world, [fault.chosen(found)], fault.seconds)


async def _freeze_all(world: FleetWorld, fault: Fault) -> None:
    await _freeze(world, children_of(world.postgres.pid), fault.seconds)


async def _freeze_nats(world: FleetWorld, fault: Fault) -> None:
    await _freeze(world, [world.nats.pid], fault.seconds)


async def _wipe(world: FleetWorld, _: Fault) -> None:
    """Kill the broker and take its data away before it is started again."""
    await world.nats.kill()
    store = world.folder / "nats"
    gone = world.folder / "nats.gone"
    if store.exists():
        store.rename(gone)  # at once: it starts again soon
    shutil.rmtree(gone, ignore_errors=True)
    world.judged_upto = 0


async def _fill(world: FleetWorld, fault: Fault) -> None:
    """Leave the broker no room for as long as it takes, as a full disk would."""
    config = world.folder / "nats.conf"
    text = config.read_text()
    try:
        config.write_text(_ROOM.sub(f"max_file_store: {NO_ROOM_BYTES}", text))
        await world.nats.kill()
        await world.clock.sleep(fault.seconds)
    finally:
        config.write_text(text)
        await world.nats.kill()


_ACTIONS: Mapping[str, Callable[[FleetWorld, Fault], Awaitable[None]]] = {
    "kill": _signal,
    "terminate": _signal,
    "freeze": _freeze_node,
    "postgres-kill": lambda world, _: world.postgres.kill(),
    "postgres-freeze-session": _freeze_session,
    "postgres-freeze-all": _freeze_all,
    "nats-kill": lambda world, _: world.nats.kill(),
    "nats-freeze": _freeze_nats,
    "nats-wipe": _wipe,
    "nats-full": _fill,
}
