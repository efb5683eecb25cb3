"""Whether a topology can be run: all is placed once, and nothing twice that must be one."""

from collections.abc import Iterator
from typing import Any

from flotilla_platform.loading import Mistake, suggest
from flotilla_platform.model import (
    BUS_ENGINES,
    STORE_ENGINES,
    Deployable,
    Layout,
    Placement,
    Platform,
    Service,
    Topology,
)

LEASES = "leases"
"""The capability that says which replica does a piece of work."""

_ONE_HOST = {"one-process", "processes", "containers"}
"""Kinds of topology in which everybody listens on the same address."""


def check_topologies(platform: Platform) -> list[Mistake]:
    """Return what is wrong with where services run, in every topology and environment."""
    found = [m for one in platform.deployables.values() for m in _check_deployable(platform, one)]
    for topology in platform.topologies.values():
        found += _check_kind(platform, topology)
        found += _check_resources(platform, topology)
        for index, placement in enumerate(topology.placements):
            where = ("topology", topology.name, "placements", index)
            found += _check_replicas(platform, topology, placement, where)
    for layout in platform.layouts.values():
        found += _check_services(platform, layout)
        found += _check_ports(platform, layout)
        found += _check_capabilities(platform, layout)
    for environment in platform.environments.values():
        deployed = platform.topologies.get(environment.topology)
        if deployed is None:
            continue
        for index, placement in enumerate(environment.replicas):
            where = ("environment", environment.name, "replicas", index)
            found += _check_replicas(platform, deployed, placement, where)
    return found


def _check_deployable(platform: Platform, deployable: Deployable) -> Iterator[Mistake]:
    def at(wrong: str, instead: str, *steps: str | int) -> Mistake:
        return Mistake(platform.at("deployable", deployable.name, *steps), wrong, instead)

    listening = ""
    for index, name in enumerate(deployable.services):
        service = platform.services.get(name)
        if name in deployable.services[:index]:
            yield at(
                f"the service {name!r} is already in this deployable",
                "remove one of the two",
                *("services", index),
            )
        elif service is not None and "http" in service.needs:
            if listening:
                yield at(
                    f"{name!r} would listen on the same port as {listening!r}",
                    "keep one service that needs http",
                    *("services", index),
                )
            elif deployable.http_port is None:
                yield at(
                    f"{name!r} needs http, and there is no port for it",
                    "write `http_port: 8080`",
                    *("services", index),
                )
            listening = listening or name
        if service is not None and service.follows_logs:
            yield from _check_worker(platform, deployable, service, index)
    known = all(name in platform.services for name in deployable.services)
    if deployable.http_port is not None and known and not listening:
        yield at("none of its services needs http", "remove it", "http_port")
    if deployable.http_port == deployable.admin_port:
        yield at(
            f"it would listen on {deployable.http_port} twice: for requests and for its admin",
            "choose another http_port",
            "http_port",
        )


def _check_worker(
    platform: Platform, deployable: Deployable, service: Service, index: int
) -> Iterator[Mistake]:
    """Check a service that works on logs by itself: two of it must know which of them does."""
    if deployable.state == "none":
        yield Mistake(
            platform.at("deployable", deployable.name, "state"),
            f"the service {service.name!r} follows logs: one replica at a time may, on each",
            "write `state: leased`",
        )
    if deployable.state == "leased" and LEASES not in service.capabilities:
        yield Mistake(
            platform.at("deployable", deployable.name, "services", index),
            f"the service {service.name!r} follows logs and does not use the capability {LEASES!r}",
            f"add {LEASES} to the capabilities of the service, or write `state: embedded`",
        )


def _check_kind(platform: Platform, topology: Topology) -> Iterator[Mistake]:
    if topology.kind != "one-process":
        return
    first, *others = topology.placements
    for index, other in enumerate(others, start=1):
        yield Mistake(
            platform.at("topology", topology.name, "placements", index),
            f"the deployable {other.deployable!r} would be a second process, and a topology of the "
            f"kind {topology.kind!r} runs exactly one",
            f"move its services to {first.deployable!r}, or write `kind: processes`",
        )


def _check_services(platform: Platform, layout: Layout) -> Iterator[Mistake]:
    placed: dict[str, str] = {}
    names: list[str] = []
    for index, one in enumerate(layout.deployables):
        where = platform.at("topology", layout.name, "placements", index, "deployable")
        if one.name in names:
            yield Mistake(
                where,
                f"the deployable {one.name!r} is already placed",
                "remove one of the two, or write `replicas`",
            )
            continue
        names.append(one.name)
        for service in one.services:
            if service in placed and placed[service] != one.name:
                yield Mistake(
                    where,
                    f"the service {service!r} already runs in the deployable {placed[service]!r}",
                    "remove one of the two",
                )
            placed.setdefault(service, one.name)
    for service in platform.services:
        if service not in placed:
            holding = [d.name for d in platform.deployables.values() if service in d.services]
            cure = f"place {holding[0]!r}" if holding else "add it to a deployable"
            yield Mistake(
                platform.at("topology", layout.name, "placements"),
                f"the service {service!r} runs nowhere in this topology",
                cure,
            )


def _check_ports(platform: Platform, layout: Layout) -> Iterator[Mistake]:
    taken: dict[int, str] = {}
    if layout.kind == "processes":
        taken = {one.port: f"the resource {one.name!r}" for one in layout.resources if one.port}
    for index, placed in enumerate(layout.deployables):
        ports = {"http_port": placed.deployable.http_port if layout.kind in _ONE_HOST else None}
        if layout.kind == "processes":
            ports["machine_port"] = placed.deployable.machine_port
        for key, port in ports.items():
            if port in taken:
                yield Mistake(
                    platform.at("topology", layout.name, "placements", index, "deployable"),
                    f"{placed.name!r} would listen on the port {port}, as {taken[port]} does",
                    f"choose another {key} for one of the two",
                )
            if port is not None:
                taken.setdefault(port, f"the deployable {placed.name!r}")


def _check_resources(platform: Platform, topology: Topology) -> Iterator[Mistake]:
    bound = {"store": topology.resources.store, "bus": topology.resources.bus}
    for key, name in bound.items():
        resource = platform.resources.get(name)
        if resource is None:
            continue
        where = platform.at("topology", topology.name, "resources", key)
        named = f"{resource.name!r} ({resource.engine}, {resource.server})"
        engines = STORE_ENGINES if key == "store" else BUS_ENGINES
        fitting = [n for n, one in platform.resources.items() if one.engine in engines]
        if resource.engine not in engines:
            wrong = f"{named} cannot be a {key}"
            yield Mistake(where, wrong, suggest(resource.name, fitting))
        elif resource.engine == "libsql" and topology.kind != "one-process":
            yield Mistake(
                where,
                f"{named} is files of one process, and this topology runs several",
                "bind a resource with `engine: postgres`",
            )
        elif topology.kind == "one-process" and resource.server != "embedded":
            yield Mistake(
                where,
                f"a topology of the kind {topology.kind!r} runs its own servers, and not {named}",
                "bind a resource with `server: embedded`",
            )
        elif topology.kind in ("containers", "kubernetes") and resource.server == "embedded":
            yield Mistake(
                where,
                f"{named} is run by a process of the fleet, and images carry no servers",
                "bind a resource with `server: container` or `server: external`",
            )


def _check_capabilities(platform: Platform, layout: Layout) -> Iterator[Mistake]:
    for service in layout.members:
        for index, name in enumerate(service.capabilities):
            capability = platform.capabilities.get(name)
            if capability is not None and capability.state_in(layout.name) == "off":
                yield Mistake(
                    platform.at("service", service.name, "capabilities", index),
                    f"the topology {layout.name!r}, which runs this service, has {name!r} off",
                    "remove it here, or give the topology another state of it",
                )


def _check_replicas(
    platform: Platform, topology: Topology, placement: Placement, where: Any
) -> Iterator[Mistake]:
    """Check that as many of a deployable as are wanted may run beside each other."""
    deployable, wanted = platform.deployables.get(placement.deployable), placement.replicas
    if deployable is None or wanted == 1:
        return
    at = platform.at(*where, "replicas")
    if not deployable.may_be_replicated:
        yield Mistake(
            at,
            f"{wanted} replicas of {deployable.name!r}, whose state is {deployable.state!r}: "
            "exactly one may run",
            "write `replicas: 1`",
        )
    elif topology.kind == "one-process":
        yield Mistake(
            at,
            f"a topology of the kind {topology.kind!r} runs one process, not {wanted}",
            "write `replicas: 1`, or `kind: processes`",
        )
    elif deployable.http_port is not None and topology.kind in _ONE_HOST:
        yield Mistake(
            at,
            f"{wanted} replicas of {deployable.name!r} would listen on one port, "
            f"{deployable.http_port}",
            "write `replicas: 1`",
        )
