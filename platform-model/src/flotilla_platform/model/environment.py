"""An environment: a topology somewhere, for some purpose, with what is different there."""

from typing import Annotated, Literal

from pydantic import Field

from flotilla_platform.model.part import DeployableRef, Name, OwnName, Part, Summary, TopologyRef
from flotilla_platform.model.topology import Placement


class ReleasedImage(Part):
    """An image, to the byte."""

    deployable: DeployableRef
    digest: Annotated[
        str,
        Field(
            pattern=r"^sha256:[0-9a-f]{64}$",
            description="Of its manifest, as the registry tells it.",
            examples=["sha256:" + 64 * "7"],
        ),
    ]


class GitSource(Part):
    """Where a cluster finds what it is to run."""

    url: Annotated[
        str,
        Field(
            pattern=r"^(https|ssh)://[^\s@]*(git@)?[^\s@]+$",
            max_length=300,
            description="The repository, without a password.",
            examples=["https://git.flotilla.example/flotilla.git"],
        ),
    ]
    branch: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
            max_length=200,
            description="What is on it runs.",
            examples=["main"],
        ),
    ] = "main"


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
    registry: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-][a-z0-9]+)*)*$",
            max_length=200,
            description="Where its images are pulled from; null: they are on its machines.",
            examples=["registry.flotilla.example"],
        ),
    ] = None
    release: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$",
            description="The tag of its images, when `image_tag` is branch or version.",
            examples=["0.1.0"],
        ),
    ] = "main"
    source: Annotated[
        GitSource | None,
        Field(
            description="Where Flux takes it from; null: it is applied by hand.",
            examples=["{ url: https://git.flotilla.example/flotilla.git }"],
        ),
    ] = None
    images: Annotated[
        tuple[ReleasedImage, ...],
        Field(
            description="When `image_tag` is digest: what was tested. What is not here was not"
            " released, and cannot be pulled.",
            examples=['[{ deployable: counter, digest: "sha256:' + 64 * "7" + '" }]'],
        ),
    ] = ()
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
