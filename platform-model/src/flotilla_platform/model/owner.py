"""An owner: the team that answers for something. Its services name it themselves."""

from typing import Annotated

from pydantic import Field

from flotilla_platform.model.part import OwnName, Part, Summary


class Owner(Part):
    """A team, how to reach it, and what it owns besides the services that name it."""

    name: OwnName
    summary: Summary
    contact: Annotated[
        str,
        Field(
            pattern=r"^(mailto:\S+@\S+|https://\S+)$",
            description="Where it can be reached: an address that a program can open.",
            examples=["mailto:fleet@flotilla.example"],
        ),
    ]
    paths: Annotated[
        tuple[
            Annotated[str, Field(pattern=r"^[^/\s]\S*$", examples=["kernel/"])],
            ...,
        ],
        Field(
            description="What it owns of the repository, from its root, as in CODEOWNERS.",
            examples=["[kernel/, contracts/]"],
        ),
    ] = ()
