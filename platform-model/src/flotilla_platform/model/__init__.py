"""The platform model: which services there are, what they may, and which topology runs them where.

Each kind of part has a module here, and a folder of the model with one YAML document a file:

    services/      what a service is            environments/  a topology somewhere, for a purpose
    deployables/   what shares a process        workflows/     commands over several services
    topologies/    what runs where              policies/      who may ask what of whom
    resources/     what services are bound to   capabilities/  what the platform does, how far
                                                owners/        who answers for it

What a key means is its description; what to write there is its example, and mistakes are answered
with it (`explaining`). Read a model with `flotilla_platform.reading.read_platform`.
"""

from flotilla_platform.model.capability import LADDER, Capability, CapabilityState
from flotilla_platform.model.deployable import Deployable, Requests, State
from flotilla_platform.model.environment import Environment, GitSource
from flotilla_platform.model.layout import Bound, Layout, Placed
from flotilla_platform.model.owner import Owner
from flotilla_platform.model.part import KindName, Part, Refers
from flotilla_platform.model.platform import KINDS, AnyPart, Kind, Platform
from flotilla_platform.model.policy import OPERATOR, Policy
from flotilla_platform.model.resource import BUS_ENGINES, STORE_ENGINES, Limits, Resource
from flotilla_platform.model.service import (
    HEALTH_QUERY,
    KEYS_SCHEMA,
    CommandSpec,
    Need,
    ProjectionSpec,
    Service,
    Slo,
)
from flotilla_platform.model.topology import Placement, Topology, TopologyKind
from flotilla_platform.model.workflow import Call, Step, Trigger, Workflow

__all__ = [
    "BUS_ENGINES",
    "HEALTH_QUERY",
    "KEYS_SCHEMA",
    "KINDS",
    "LADDER",
    "OPERATOR",
    "STORE_ENGINES",
    "AnyPart",
    "Bound",
    "Call",
    "Capability",
    "CapabilityState",
    "CommandSpec",
    "Deployable",
    "Environment",
    "GitSource",
    "Kind",
    "KindName",
    "Layout",
    "Limits",
    "Need",
    "Owner",
    "Part",
    "Placed",
    "Placement",
    "Platform",
    "Policy",
    "ProjectionSpec",
    "Refers",
    "Requests",
    "Resource",
    "Service",
    "Slo",
    "State",
    "Step",
    "Topology",
    "TopologyKind",
    "Trigger",
    "Workflow",
]
