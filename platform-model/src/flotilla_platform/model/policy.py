"""A policy: what somebody may do on the bus. What no policy allows is denied."""

from typing import Annotated

from pydantic import Field

from flotilla_platform.model.part import Name, OwnName, Part, ServiceRef, Summary

OPERATOR = "operator"
"""Who is no service: a person with the command line."""

Subject = Annotated[
    str,
    Field(
        pattern=r"^[^\s.*>]+(\.([^\s.*>]+|\*))*(\.>)?$",
        max_length=200,
        description="A NATS subject; `*` is one token, a `>` at the end all that follow.",
        examples=["evt.counter.>"],
    ),
]


class Allowed(Part):
    """What of one service may be asked."""

    service: ServiceRef
    commands: Annotated[
        tuple[Annotated[Name, Field(examples=["increment"])], ...],
        Field(examples=["[increment]"]),
    ] = ()
    queries: Annotated[
        tuple[Annotated[Name, Field(examples=["get-counter"])], ...],
        Field(examples=["[get-counter]"]),
    ] = ()


class Policy(Part):
    """What one caller may do: a service, or the operator. It may always serve what it answers."""

    name: OwnName
    summary: Summary
    caller: Annotated[
        Name,
        Field(
            description="The service that may; `operator`: a person with the command line.",
            examples=["web-bff"],
        ),
    ]
    calls: Annotated[
        tuple[Allowed, ...],
        Field(
            description="Whom it may tell or ask what.",
            examples=["[{ service: counter, commands: [increment] }]"],
        ),
    ] = ()
    publishes: Annotated[
        tuple[Subject, ...],
        Field(description="Where it may publish, besides calls.", examples=["[evt.counter.>]"]),
    ] = ()
    subscribes: Annotated[
        tuple[Subject, ...],
        Field(description="What it may hear, besides replies.", examples=["[bell.counter]"]),
    ] = ()
