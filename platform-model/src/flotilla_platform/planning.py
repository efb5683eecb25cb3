"""From a topology to what this process will run: everything that can be wrong before it starts."""

import errno
import importlib
import socket
from dataclasses import dataclass
from pathlib import Path

from flotilla.service import Compose, HttpBinding
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.loading import Mistake, ModelInvalid, Position, did_you_mean, suggest
from flotilla_platform.model import Layout, Need, Placed, Platform, Service


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process will run, and where."""

    topology: Layout
    data: Path
    http: HttpBinding
    services: tuple[tuple[Service, Compose], ...]
    """In the order in which they start: those that listen come last, when the others are there."""

    @property
    def logs(self) -> tuple[str, ...]:
        """Return the services that publish a log."""
        return tuple(service.name for service, _ in self.services if service.log is not None)

    @property
    def keeps_keys(self) -> bool:
        """Whether any of its services seals or opens personal text."""
        return any("keys" in service.needs for service, _ in self.services)

    @property
    def listens(self) -> bool:
        """Whether any of its services listens."""
        return any("http" in service.needs for service, _ in self.services)


def find_topology(platform: Platform, name: str) -> Layout:
    """Return the topology `name`, in full.

    Raises:
        Failure: there is none.

    """
    topology = platform.layouts.get(name)
    if topology is None:
        raise Failure(
            ExitCode.USAGE,
            f"there is no topology {name!r}: {suggest(name, list(platform.topologies))} "
            "(`flotilla topologies` lists them)",
        )
    return topology


@dataclass(frozen=True, slots=True)
class Part:
    """What one process of a topology runs, and what there is in the others."""

    topology: Layout
    deployable: Placed
    services: tuple[tuple[Service, Compose], ...]
    everywhere: tuple[Service, ...]
    """All services of the topology, this process's included."""

    @property
    def needs(self) -> frozenset[Need]:
        """Return what its services need, together."""
        return frozenset(need for service, _ in self.services for need in service.needs)

    @property
    def logs(self) -> tuple[str, ...]:
        """Return the services that publish a log, wherever they run."""
        return tuple(service.name for service in self.everywhere if service.log is not None)

    @property
    def keeping(self) -> tuple[str, ...]:
        """Return the services that keep something in the store, wherever they run."""
        return tuple(s.name for s in self.everywhere if {"store", "views"} & set(s.needs))


def make_part(platform: Platform, topology: Layout, name: str) -> Part:
    """Return what the deployable `name` of `topology` runs, with its services imported.

    Raises:
        ModelInvalid: an entrypoint leads nowhere.
        Failure: there is no such deployable, or it cannot run beside others.

    """
    deployable = next((d for d in topology.deployables if d.name == name), None)
    if deployable is None:
        known = [deployable.name for deployable in topology.deployables]
        raise Failure(
            ExitCode.USAGE,
            f"the topology {topology.name!r} has no deployable {name!r}: {suggest(name, known)}",
        )
    if topology.resources.store.engine == "libsql":
        raise Failure(
            ExitCode.USAGE,
            f"the topology {topology.name!r} keeps libSQL files of its own, which belong to one "
            f"process: run it with `flotilla up --topology {topology.name}`",
        )
    everywhere = tuple(platform.services[name] for name in topology.services)
    return Part(topology, deployable, _load(platform, deployable), everywhere)


def _load(platform: Platform, deployable: Placed) -> tuple[tuple[Service, Compose], ...]:
    """Return the services of a deployable, imported, in the order in which they start."""
    services = [platform.services[name] for name in deployable.services]
    ordered = sorted(services, key=lambda service: "http" in service.needs)
    return tuple(
        (s, _import(s.entrypoint, platform.at("service", s.name, "entrypoint"))) for s in ordered
    )


def make_plan(platform: Platform, topology: Layout, data: Path, http: HttpBinding) -> Plan:
    """Return what the one deployable of `topology` runs, with its services imported.

    Raises:
        ModelInvalid: an entrypoint leads nowhere.
        Failure: it is of more than one process, or the data directory cannot be part of an URL.

    """
    if topology.kind != "one-process":
        raise Failure(
            ExitCode.USAGE,
            f"{topology.name!r} is of the kind {topology.kind!r}, which `flotilla up` does not run:"
            " its deployables are started by what runs its containers",
        )
    check_data(data)
    return Plan(topology, data, http, _load(platform, topology.deployables[0]))


def check_data(data: Path) -> None:
    """Refuse a data directory that cannot be part of a store's URL: raises `Failure`."""
    if set(str(data.resolve())) & set("?#"):
        raise Failure(
            ExitCode.DATA_DIRECTORY,
            f"{data.resolve()} has a ? or # in its name: choose another directory with --data",
        )


def check_port(http: HttpBinding) -> None:
    """Find out early whether the port is free, while one clear line can still say so.

    Raises:
        Failure: it is taken, or nothing can listen there.

    """
    where = f"{http.host}:{http.port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            http.host, http.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Failure(
                ExitCode.PORT_TAKEN,
                f"port {http.port} on {http.host} is taken: stop what uses it, or choose another "
                "with --port (0 takes any free one)",
            ) from error
        raise Failure(
            ExitCode.USAGE, f"nothing can listen on {where}: {error.strerror or error}"
        ) from error


def _import(entrypoint: str, written: Position) -> Compose:
    module_name, _, function = entrypoint.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(
            f"{error.name}."
        )
        raise ModelInvalid(
            [
                Mistake(
                    written,
                    f"the entrypoint {entrypoint!r} cannot be imported: {error}",
                    "install its package, or correct the entrypoint"
                    if absent
                    else "repair what it imports (--debug shows where)",
                )
            ]
        ) from error
    compose: Compose | None = getattr(module, function, None)
    if not callable(compose):
        meant = did_you_mean(function, [name for name in vars(module) if name[0] != "_"])
        raise ModelInvalid(
            [
                Mistake(
                    written,
                    f"the module {module_name!r} has no function {function!r}",
                    f"did you mean {meant!r}?" if meant else f"write {module_name}:compose",
                )
            ]
        )
    return compose
