"""A topology with what it refers to in place of the names: what launchers and generators read."""

from collections.abc import Iterator
from dataclasses import dataclass

from flotilla_platform.model.deployable import Deployable
from flotilla_platform.model.resource import Resource
from flotilla_platform.model.service import Service
from flotilla_platform.model.topology import Topology, TopologyKind


@dataclass(frozen=True, slots=True)
class Placed:
    """A deployable where it runs."""

    deployable: Deployable
    replicas: int

    @property
    def name(self) -> str:
        """Return the deployable's name."""
        return self.deployable.name

    @property
    def services(self) -> tuple[str, ...]:
        """Return the names of its services, in the order in which they start."""
        return self.deployable.services


@dataclass(frozen=True, slots=True)
class Bound:
    """What the needs of the services are bound to."""

    store: Resource
    bus: Resource

    def __iter__(self) -> Iterator[Resource]:
        return iter((self.store, self.bus))


@dataclass(frozen=True, slots=True)
class Layout:
    """A topology in full, in an environment or as it is."""

    topology: Topology
    deployables: tuple[Placed, ...]
    resources: Bound
    members: tuple[Service, ...]
    """All its services, in the order in which they are placed."""

    @property
    def name(self) -> str:
        """Return the topology's name."""
        return self.topology.name

    @property
    def summary(self) -> str:
        """Return what the topology is for."""
        return self.topology.summary

    @property
    def kind(self) -> TopologyKind:
        """Return how its deployables are run."""
        return self.topology.kind

    @property
    def services(self) -> tuple[str, ...]:
        """Return the names of all its services, wherever they run."""
        return tuple(service.name for service in self.members)
