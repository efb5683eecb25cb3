"""The whole model, read: every part by its kind and name, and where each of them is written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flotilla_platform.loading import Document, Mistake, Position
from flotilla_platform.model.capability import Capability
from flotilla_platform.model.deployable import Deployable
from flotilla_platform.model.environment import Environment
from flotilla_platform.model.layout import Bound, Layout, Placed
from flotilla_platform.model.owner import Owner
from flotilla_platform.model.part import KindName
from flotilla_platform.model.policy import Policy
from flotilla_platform.model.resource import Resource
from flotilla_platform.model.service import Service
from flotilla_platform.model.topology import Topology
from flotilla_platform.model.workflow import Workflow

type AnyPart = (
    Service
    | Deployable
    | Topology
    | Resource
    | Environment
    | Workflow
    | Policy
    | Capability
    | Owner
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of part: its folder, its type, and whether a model without any is none."""

    folder: str
    type: type[AnyPart]
    required: bool = False


KINDS: Mapping[KindName, Kind] = MappingProxyType(
    {
        "service": Kind("services", Service, required=True),
        "deployable": Kind("deployables", Deployable, required=True),
        "topology": Kind("topologies", Topology, required=True),
        "resource": Kind("resources", Resource, required=True),
        "environment": Kind("environments", Environment),
        "workflow": Kind("workflows", Workflow),
        "policy": Kind("policies", Policy),
        "capability": Kind("capabilities", Capability),
        "owner": Kind("owners", Owner),
    }
)


@dataclass(frozen=True, slots=True)
class Platform:
    """A model. Its mappings are by name, in the order of the names.

    What `read_platform` returns has no mistakes. What `inspect_platform` returns may lack the parts
    that could not be read, and then also the layouts of topologies that refer to them.
    """

    root: Path
    services: Mapping[str, Service] = field(default_factory=dict)
    deployables: Mapping[str, Deployable] = field(default_factory=dict)
    topologies: Mapping[str, Topology] = field(default_factory=dict)
    resources: Mapping[str, Resource] = field(default_factory=dict)
    environments: Mapping[str, Environment] = field(default_factory=dict)
    workflows: Mapping[str, Workflow] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    capabilities: Mapping[str, Capability] = field(default_factory=dict)
    owners: Mapping[str, Owner] = field(default_factory=dict)
    documents: Mapping[tuple[KindName, str], Document] = field(default_factory=dict, repr=False)
    """Where everything is written, also what has mistakes."""
    unread: tuple[Mistake, ...] = ()
    """What is wrong with the parts that could not be read."""

    def parts(self, kind: KindName) -> Mapping[str, Any]:
        """Return all parts of a kind, by name."""
        found: Mapping[str, Any] = getattr(self, KINDS[kind].folder)
        return found

    def names(self, kind: KindName) -> list[str]:
        """Return the names of all parts of a kind, also of those that could not be read."""
        return [name for found, name in self.documents if found == kind]

    def at(self, kind: KindName, name: str, *steps: str | int) -> Position:
        """Return where something is written; the nearest place above when it is not."""
        return self.documents[kind, name].at(*steps)

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """Return all topologies in full, by name."""
        found = {name: self.layout(topology) for name, topology in self.topologies.items()}
        return {name: layout for name, layout in found.items() if layout is not None}

    def layout(self, topology: Topology, environment: Environment | None = None) -> Layout | None:
        """Return a topology in full; None when it refers to what is not in this model.

        `environment` changes how many replicas there are.
        """
        bound = topology.resources
        store, bus = self.resources.get(bound.store), self.resources.get(bound.bus)
        overrides = {p.deployable: p.replicas for p in environment.replicas} if environment else {}
        placed = [
            Placed(self.deployables[p.deployable], overrides.get(p.deployable, p.replicas))
            for p in topology.placements
            if p.deployable in self.deployables
        ]
        names = [name for one in placed for name in one.services]
        members = [self.services[name] for name in names if name in self.services]
        if not store or not bus or len(placed) < len(topology.placements):
            return None
        if len(members) < len(names):
            return None
        return Layout(topology, tuple(placed), Bound(store, bus), tuple(members))

    def deployments(self) -> Iterator[tuple[Environment, Layout]]:
        """Yield every environment, and what runs there."""
        for environment in self.environments.values():
            topology = self.topologies.get(environment.topology)
            layout = self.layout(topology, environment) if topology else None
            if layout is not None:
                yield environment, layout

    def owned_by(self, owner: str) -> tuple[str, ...]:
        """Return the names of an owner's services."""
        return tuple(s.name for s in self.services.values() if s.owner == owner)
