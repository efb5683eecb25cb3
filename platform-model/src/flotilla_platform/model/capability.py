"""A capability: something the platform does for services, and how well in which topology."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from flotilla_platform.model.part import OwnName, Part, Summary, TopologyRef

CapabilityState = Literal["off", "embedded", "single-node", "distributed"]
"""How far a capability goes, in this order.

`off`: it is not there; `embedded`: it lives and dies with the process of the fleet; `single-node`: it
has a process of its own, and dies with its machine; `distributed`: it outlives any one machine.
"""

LADDER: tuple[CapabilityState, ...] = get_args(CapabilityState)


class Given(Part):
    """What one topology gives."""

    topology: TopologyRef
    state: Annotated[CapabilityState, Field(examples=["single-node"])]
    limits: Annotated[
        str,
        Field(
            min_length=1,
            max_length=300,
            description="What it does not do there, in words.",
            examples=["One server; with its machine it is gone until it is restored."],
        ),
    ]


class Capability(Part):
    """Something the platform does for services. Every topology says how far."""

    name: OwnName
    summary: Summary
    topologies: Annotated[
        tuple[Given, ...],
        Field(
            min_length=1,
            description="What each topology gives; every one is here.",
            examples=["[{ topology: single, state: embedded, limits: One process. }]"],
        ),
    ]

    def state_in(self, topology: str) -> CapabilityState:
        """Return how far it goes in a topology; `off` where that is not said."""
        return next((g.state for g in self.topologies if g.topology == topology), "off")
