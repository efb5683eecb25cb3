"""The platform model: which services there are, and which topology runs them where.

    services/<name>.yaml      one `Service` a file
    topologies/<name>.yaml    one `Topology` a file

What a key means is its description here; what to write there is its example, and mistakes are
answered with it (`explaining`). Read a model with `platform.read_platform`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
        max_length=40,
        examples=["counter"],
    ),
]
"""Lower case, digits and single dashes: it becomes a file name, a subject token and a schema."""

Summary = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="One sentence for whoever has to choose.",
        examples=["Counters, the reference service."],
    ),
]

Entrypoint = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="The module and the compose function in it (`flotilla.service.Compose`).",
        examples=["svc_counter.main:compose"],
    ),
]

Need = Literal["store", "views", "logs", "bus", "http"]
"""What a service asks its topology for.

`store`: events and their outbox; `views`: tables of read models; `logs`: the stores of all services
that publish one, to relay or fold what is in them; `bus`: other services and the
broker; `http`: a port to listen on.
"""


class Part(BaseModel):
    """What every part of the model has in common: it cannot change, and it says nothing twice."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Service(Part):
    """A service: what runs when somebody needs it, and what it needs itself."""

    name: Annotated[Name, Field(description="Its name; also that of its file.")]
    summary: Summary
    entrypoint: Entrypoint
    log: Annotated[
        Name | None,
        Field(description="The log it publishes, named after it; null if it publishes none."),
    ]
    needs: Annotated[
        tuple[Need, ...],
        Field(description="What the topology has to give it.", examples=["[store, bus]"]),
    ]
    read_models: Annotated[
        Entrypoint | None,
        Field(
            description="The module and the function in it that names its projections"
            " (`flotilla.rebuild.ReadModels`), so that they can be made again.",
            examples=["svc_projector.read_models:read_models"],
        ),
    ] = None


class StoreResource(Part):
    """What stores and views are bound to. Both engines keep a service's data apart by its name."""

    engine: Annotated[Literal["libsql", "postgres"], Field(examples=["libsql"])]
    server: Annotated[Literal["embedded"], Field(examples=["embedded"])]


class BusResource(Part):
    """What carries logs and requests between processes."""

    engine: Annotated[Literal["nats"], Field(examples=["nats"])]
    server: Annotated[Literal["embedded"], Field(examples=["embedded"])]


class Resources(Part):
    """What a topology binds the needs of its services to."""

    store: Annotated[StoreResource, Field(examples=["{ engine: libsql, server: embedded }"])]
    bus: Annotated[BusResource, Field(examples=["{ engine: nats, server: embedded }"])]


class Deployable(Part):
    """Services that share a process, in the order in which they start."""

    name: Name
    services: Annotated[tuple[Name, ...], Field(min_length=1, examples=["[counter, web-bff]"])]
    replicas: Annotated[
        int, Field(ge=1, le=16, description="How many processes of it run.", examples=[2])
    ] = 1


class Topology(Part):
    """Where services run and what they are bound to."""

    name: Annotated[Name, Field(description="Its name; also that of its file.")]
    summary: Summary
    kind: Annotated[
        Literal["one-process", "processes"],
        Field(description="How its deployables are run.", examples=["one-process"]),
    ]
    resources: Annotated[
        Resources, Field(examples=["{ store: { … }, bus: { engine: nats, server: embedded } }"])
    ]
    deployables: Annotated[
        tuple[Deployable, ...],
        Field(min_length=1, examples=["[{ name: fleet, services: [counter, web-bff] }]"]),
    ]

    @property
    def services(self) -> tuple[str, ...]:
        """Return the names of all its services, wherever they run."""
        return tuple(name for deployable in self.deployables for name in deployable.services)
