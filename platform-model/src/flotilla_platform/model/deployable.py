"""A deployable: services that share a process and an image, and what that process is given."""

from typing import Annotated, Literal

from pydantic import Field

from flotilla_platform.model.part import OwnName, Part, Port, ServiceRef, Summary

ADMIN_PORT = 9090

State = Literal["none", "leased", "embedded"]
"""What of a deployable cannot be in two processes at once.

`none`: nothing, any number may run; `leased`: any number may run, and a lease says which of them does
a piece of work; `embedded`: files and servers in a directory of its own, so that exactly one runs.
"""


class Requests(Part):
    """What a process of it is given: the scheduler reserves requests, the kernel enforces limits."""

    cpu_request_millis: Annotated[
        int, Field(ge=1, description="Thousandths of a core it can count on.", examples=[100])
    ] = 100
    cpu_limit_millis: Annotated[
        int | None,
        Field(
            ge=1,
            description="What it may use at most; null: whatever is free. A limit throttles, and"
            " shows as latency.",
            examples=["null"],
        ),
    ] = None
    memory_request_mib: Annotated[
        int, Field(ge=16, description="Memory it can count on.", examples=[128])
    ] = 128
    memory_limit_mib: Annotated[
        int, Field(ge=16, description="With more it is killed.", examples=[256])
    ] = 256
    pids_limit: Annotated[
        int,
        Field(
            ge=8, le=4096, description="How many threads and processes it may have.", examples=[128]
        ),
    ] = 128


class Disruption(Part):
    """What may be taken away on purpose: roll-outs, drained machines."""

    max_unavailable: Annotated[
        int, Field(ge=0, le=16, description="How many of its replicas at once.", examples=[1])
    ] = 1


class Deployable(Part):
    """Services that share a process, in the order in which they start."""

    name: OwnName
    summary: Summary
    services: Annotated[
        tuple[ServiceRef, ...],
        Field(
            min_length=1,
            description="In the order in which they start; those that need http start last.",
            examples=["[counter, web-bff]"],
        ),
    ]
    image: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z0-9]+([._/-][a-z0-9]+)*$",
            description="The name of its image without registry and tag; null: flotilla/<name>.",
            examples=["flotilla/counter"],
        ),
    ] = None
    http_port: Annotated[
        Port | None,
        Field(description="Where it listens; null: none of its services does.", examples=[8080]),
    ] = None
    admin_port: Annotated[
        Port,
        Field(
            description="Where it says how it is (/healthz, /readyz, /metrics) in containers;"
            " locally it takes any free port.",
            examples=[ADMIN_PORT],
        ),
    ] = ADMIN_PORT
    machine_port: Annotated[
        Port | None,
        Field(
            description="Where it says the same on a machine that it shares, under systemd: replica"
            " n on 127.0.0.n; null: on any free port, where nobody can look for it.",
            examples=[9101],
        ),
    ] = None
    state: Annotated[
        State,
        Field(description="What cannot be in two processes at once.", examples=["leased"]),
    ] = "none"
    resources: Annotated[
        Requests, Field(examples=["{ cpu_request_millis: 100, memory_limit_mib: 256 }"])
    ] = Requests()
    stop_timeout_s: Annotated[
        int,
        Field(ge=1, le=600, description="From SIGTERM to SIGKILL.", examples=[10]),
    ] = 10
    disruption: Annotated[Disruption, Field(examples=["{ max_unavailable: 1 }"])] = Disruption()

    @property
    def image_name(self) -> str:
        """Return the name of its image, without registry and tag."""
        return self.image or f"flotilla/{self.name}"

    @property
    def may_be_replicated(self) -> bool:
        """Return whether more than one process of it may run."""
        return self.state != "embedded"
