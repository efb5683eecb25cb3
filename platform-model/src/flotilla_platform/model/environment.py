"""An environment: a topology somewhere, for some purpose, with what is different there."""

from typing import Annotated, Literal

from pydantic import Field

from flotilla_platform.model.part import Name, OwnName, Part, Summary, TopologyRef
from flotilla_platform.model.topology import Placement


class Environment(Part):
    """Where a topology is deployed. What it says of nothing is as the topology says."""

    name: OwnName
    summary: Summary
    topology: Annotated[TopologyRef, Field(description="What is deployed there.")]
    host: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$",
            max_length=253,
            description="The host name under which its API is found.",
            examples=["staging.flotilla.example"],
        ),
    ]
    namespace: Annotated[
        Name | None,
        Field(
            description="The Kubernetes namespace, or the project's name; null: flotilla-<name>.",
            examples=["flotilla-staging"],
        ),
    ] = None
    profile: Annotated[
        Literal["development", "production"],
        Field(
            description="Who says which tenant it is: `development` believes the caller.",
            examples=["production"],
        ),
    ]
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="The least important lines to write.", examples=["info"]),
    ] = "info"
    image_tag: Annotated[
        Literal["branch", "version", "digest"],
        Field(
            description="How images are named: `branch` moves with every build, `version` is a"
            " release, `digest` is what was tested, to the byte.",
            examples=["digest"],
        ),
    ] = "digest"
    replicas: Annotated[
        tuple[Placement, ...],
        Field(
            description="How many there are instead of what the topology says.",
            examples=["[{ deployable: counter, replicas: 3 }]"],
        ),
    ] = ()

    @property
    def namespace_name(self) -> str:
        """Return the Kubernetes namespace, or the project's name."""
        return self.namespace or f"flotilla-{self.name}"
