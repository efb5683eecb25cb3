"""What all parts of the platform model are made of: names, summaries, references to other parts."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

KindName = Literal[
    "service",
    "deployable",
    "topology",
    "resource",
    "environment",
    "workflow",
    "policy",
    "capability",
    "owner",
]
"""What a file of the model is about."""


class Part(BaseModel):
    """What every part of the model has in common: it cannot change, and it says nothing twice."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


@dataclass(frozen=True, slots=True)
class Refers:
    """Marks a name as that of another part; whoever reads a model checks that it is there."""

    kind: KindName


Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
        max_length=40,
        examples=["counter"],
    ),
]
"""Lower case, digits and single dashes: it becomes a file name, a subject token and a schema."""

OwnName = Annotated[Name, Field(description="Its name; also that of its file.")]

Summary = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="One sentence for whoever has to choose.",
        examples=["Counters, the reference service."],
    ),
]

EventTypeName = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*\.v[1-9][0-9]*$",
        max_length=120,
        description="An event as it is stored: `<aggregate>.<event>.v<version>`.",
        examples=["counter.opened.v1"],
    ),
]

Port = Annotated[int, Field(ge=1, le=65_535, examples=[8080])]
Replicas = Annotated[
    int, Field(ge=1, le=16, description="How many processes of it run.", examples=[2])
]

ServiceRef = Annotated[Name, Refers("service")]
DeployableRef = Annotated[Name, Refers("deployable")]
TopologyRef = Annotated[Name, Refers("topology"), Field(examples=["single"])]
ResourceRef = Annotated[Name, Refers("resource"), Field(examples=["nats-embedded"])]
EnvironmentRef = Annotated[Name, Refers("environment"), Field(examples=["staging"])]
CapabilityRef = Annotated[Name, Refers("capability"), Field(examples=["leases"])]
OwnerRef = Annotated[Name, Refers("owner"), Field(examples=["fleet-team"])]
