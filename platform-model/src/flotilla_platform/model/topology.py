"""A topology: which deployables run, how many of each, on which resources. Not in which environment."""

from typing import Annotated, Literal

from pydantic import Field

from flotilla_platform.model.part import (
    DeployableRef,
    Name,
    OwnName,
    Part,
    Replicas,
    ResourceRef,
    Summary,
)

TopologyKind = Literal["one-process", "processes", "containers", "kubernetes"]
"""How the deployables of a topology are run, and by whom.

`one-process`: one, by `flotilla up`; `processes`: several on one machine, supervised; `containers`:
several on one machine, by a container engine; `kubernetes`: on as many machines as there are.
"""


class Placement(Part):
    """A deployable in a topology, and how many of it."""

    deployable: DeployableRef
    replicas: Replicas = 1


class Bindings(Part):
    """What the needs of the services are bound to, by the names of resources."""

    store: Annotated[
        ResourceRef,
        Field(
            description="What `store`, `views` and `logs` are bound to.",
            examples=["libsql-embedded"],
        ),
    ]
    bus: Annotated[
        ResourceRef, Field(description="What `bus` is bound to.", examples=["nats-embedded"])
    ]


class Cluster(Part):
    """What a Kubernetes cluster calls what the fleet does not bring along."""

    ingress_class: Annotated[
        Name, Field(description="Who takes requests from outside.", examples=["traefik"])
    ] = "traefik"
    ingress_namespace: Annotated[
        Name, Field(description="The namespace it is in.", examples=["kube-system"])
    ] = "kube-system"
    monitoring_namespace: Annotated[
        Name, Field(description="The namespace Prometheus asks from.", examples=["monitoring"])
    ] = "monitoring"


class Topology(Part):
    """Where services run and what they are bound to."""

    name: OwnName
    summary: Summary
    kind: Annotated[
        TopologyKind,
        Field(description="How its deployables are run.", examples=["one-process"]),
    ]
    resources: Annotated[
        Bindings, Field(examples=["{ store: libsql-embedded, bus: nats-embedded }"])
    ]
    placements: Annotated[
        tuple[Placement, ...],
        Field(min_length=1, examples=["[{ deployable: fleet, replicas: 1 }]"]),
    ]
    cluster: Annotated[
        Cluster,
        Field(
            description="Of the kind `kubernetes`: what the cluster brings along.",
            examples=["{ ingress_class: traefik }"],
        ),
    ] = Cluster()
