"""From one topology to another: what changes, what has to move, in which order, and what may go wrong.

Pure: two layouts of one model give one plan, always the same. Nothing is done here.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from flotilla_platform.generating.postgres import KEYS_CONNECTIONS, POOL_CONNECTIONS
from flotilla_platform.model import LADDER, Layout, Platform, Resource

STORE_NEEDS = {"store", "views", "logs", "keys"}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is another in the second topology."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What it takes; nothing at all when both topologies are one."""

    before: str
    after: str
    changes: tuple[Change, ...] = ()
    moves: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it for machines; fields are only added."""
        return {"format": 1, **asdict(self)}


def plan(platform: Platform, before: Layout, after: Layout) -> Plan:
    """Return what it takes to run as `after` what runs as `before`."""
    if before.name == after.name:
        return Plan(before.name, after.name)
    moves = tuple(_moves(before, after))
    return Plan(
        before.name,
        after.name,
        tuple(_changes(before, after)),
        moves,
        tuple(_steps(before, after, moving=bool(moves))),
        tuple(_risks(platform, before, after)),
    )


def connections(platform: Platform, layout: Layout) -> int:
    """Return how many connections to the store its processes open at most."""
    found = 0
    for placed in layout.deployables:
        for name in placed.services:
            needs = set(platform.services[name].needs)
            own = len({"store", "views"} & needs)
            read = sum(1 for one in platform.services.values() if one.log) if "logs" in needs else 0
            keys = KEYS_CONNECTIONS if "keys" in needs else 0
            found += placed.replicas * (POOL_CONNECTIONS * (own + read) + keys)
    return found


def _changes(before: Layout, after: Layout) -> Iterator[Change]:
    if before.kind != after.kind:
        yield Change("kind", before.kind, after.kind)
    for what, old, new in (
        ("store", before.resources.store, after.resources.store),
        ("bus", before.resources.bus, after.resources.bus),
    ):
        if old.name != new.name:
            yield Change(what, _named(old), _named(new))
    was = {placed.name: placed.replicas for placed in before.deployables}
    becomes = {placed.name: placed.replicas for placed in after.deployables}
    for name in dict.fromkeys([*was, *becomes]):
        old_count, new_count = was.get(name, 0), becomes.get(name, 0)
        if old_count != new_count:
            yield Change(f"replicas of {name}", str(old_count), str(new_count))


def _named(resource: Resource) -> str:
    return f"{resource.name} ({resource.engine}, {resource.server})"


def _moves(before: Layout, after: Layout) -> Iterator[str]:
    if not _data_moves(before, after):
        return
    for service in before.members:
        if "store" in service.needs:
            yield f"the store of {service.name}: events, versions, answers, outbox, offsets"
        if "views" in service.needs:
            names = ", ".join(projection.name for projection in service.projections)
            yield f"the read models of {service.name} with their checkpoints: {names}"
    for service in before.members:
        if service.log:
            yield f"the log of {service.name}: filled from its ledger, with the same offsets"


def _data_moves(before: Layout, after: Layout) -> bool:
    """Return whether data is elsewhere: only a server that nobody starts for a topology is shared."""
    old, new = before.resources.store, after.resources.store
    return old.name != new.name or new.server != "external"


def _steps(before: Layout, after: Layout, *, moving: bool) -> Iterator[str]:
    yield "Look that nothing is late or parked: flotilla status, flotilla parked list"
    starting = [one for one in after.resources if one.server != "embedded"]
    if starting:
        yield f"Start the servers: {', '.join(one.name for one in starting)}"
        yield "Make accounts, roles and schemas in them: deploy/nats, deploy/postgres"
    yield f"Stop {before.name}: web-bff first, the others when its requests are answered"
    if moving:
        yield "Make a copy of its data that nobody changes"
        target = f"--topology {after.name}{_target(after)}"
        yield f"Move what it keeps: flotilla move {_source(before)} {target}"
        yield "Compare counts and hashes that it prints, of every stream, log and view"
    for placed in after.deployables:
        yield f"Start {placed.replicas} of {placed.name}; wait for /readyz of each"
    yield "Send a command with a key that was used before: the answer must be the same as then"
    yield "Look that every read model follows: flotilla status"
    yield f"Keep what {before.name} had until a backup of {after.name} was restored once"


def _risks(platform: Platform, before: Layout, after: Layout) -> Iterator[str]:
    yield "downtime: commands are refused from its stop until web-bff is ready again"
    if _data_moves(before, after):
        yield (
            f"no way back without loss: what is written under {after.name} is not in the data of"
            f" {before.name}"
        )
    for capability in platform.capabilities.values():
        old, new = capability.state_in(before.name), capability.state_in(after.name)
        if LADDER.index(new) < LADDER.index(old):
            yield f"capability {capability.name}: {old} becomes {new}"
    if len(before.deployables) == 1 < len(after.deployables):
        yield "latency: calls between services were in the process, and go over the broker"
    store = after.resources.store
    if store.engine == "postgres" and store.server != "external":
        most, wanted = store.limits.max_connections, connections(platform, after)
        if most is not None and wanted > most:
            yield f"connections: its processes may open {wanted}, {store.name} takes {most}"
    for resource in after.resources:
        if resource.server == "container":
            yield f"single point of failure: {resource.name} is one server"
    yield from (
        f"single point of failure: {placed.name} is one process"
        for placed in after.deployables
        if placed.replicas == 1
    )


def _source(layout: Layout) -> str:
    """Return how `flotilla move` is told where it takes from."""
    embedded = layout.resources.store.server == "embedded"
    return f"--from-data .flotilla/{layout.name}" if embedded else "--from-store postgresql://…"


def _target(layout: Layout) -> str:
    embedded = layout.resources.store.server == "embedded"
    return "" if embedded else " --to-store postgresql://…"
