"""A resource: a server, or files, that services are bound to."""

from typing import Annotated, Literal

from pydantic import Field

from flotilla_platform.model.deployable import Requests
from flotilla_platform.model.part import Name, OwnName, Part, Port, Summary

Engine = Literal["libsql", "postgres", "nats"]
Server = Literal["embedded", "external", "container"]
"""Who runs it: `embedded`: the fleet itself, from a wheel; `container`: the topology, beside the
fleet; `external`: somebody else."""

STORE_ENGINES: frozenset[Engine] = frozenset({"libsql", "postgres"})
BUS_ENGINES: frozenset[Engine] = frozenset({"nats"})


class Limits(Part):
    """What it is given, and refuses beyond; null: the engine's own default."""

    max_connections: Annotated[
        int | None, Field(ge=1, description="Clients at once.", examples=[100])
    ] = None
    max_payload_bytes: Annotated[
        int | None,
        Field(ge=65_536, description="The largest message it takes.", examples=[1_048_576]),
    ] = None
    storage_mib: Annotated[
        int | None, Field(ge=16, description="How much it may keep.", examples=[10_240])
    ] = None


class Resource(Part):
    """What stores or buses are bound to. Engines keep a service's data apart by its name."""

    name: OwnName
    summary: Summary
    engine: Annotated[Engine, Field(description="What it is.", examples=["postgres"])]
    server: Annotated[Server, Field(description="Who runs it.", examples=["embedded"])]
    port: Annotated[
        Port | None,
        Field(
            description="Where it listens; null: on any free port, or it is no server.",
            examples=[5432],
        ),
    ] = None
    image: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z0-9]+([._/-][a-z0-9]+)*:[A-Za-z0-9_][A-Za-z0-9_.-]*$",
            max_length=200,
            description="The image and tag of its container; null: it is in no container.",
            examples=["postgres:18"],
        ),
    ] = None
    requests: Annotated[
        Requests | None,
        Field(
            description="What its container is given; null: it is in none.",
            examples=["{ cpu_request_millis: 250, memory_limit_mib: 1024 }"],
        ),
    ] = None
    stop_timeout_s: Annotated[
        int,
        Field(ge=1, le=600, description="From being asked to stop to SIGKILL.", examples=[60]),
    ] = 30
    networks: Annotated[
        tuple[
            Annotated[str, Field(pattern=r"^[0-9a-f.:]+/[0-9]{1,3}$", examples=["10.20.0.0/24"])],
            ...,
        ],
        Field(
            description="Of an external server: the networks that it is in. Nothing else is let"
            " through to it.",
            examples=["[10.20.0.0/24]"],
        ),
    ] = ()
    limits: Annotated[Limits, Field(examples=["{ max_connections: 100 }"])] = Limits()
    secrets: Annotated[
        tuple[Annotated[Name, Field(examples=["postgres-password"])], ...],
        Field(
            description="The names of the secrets that whoever uses it must have. Never values.",
            examples=["[postgres-password]"],
        ),
    ] = ()
