"""A service: what it owns, what it can be asked, what it needs. Where it runs is not its business."""

from typing import Annotated, Literal

from pydantic import Field

from flotilla_platform.model.part import (
    CapabilityRef,
    EventTypeName,
    Name,
    OwnerRef,
    OwnName,
    Part,
    ServiceRef,
    Summary,
)

Entrypoint = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="The module and the compose function in it (`flotilla.service.Compose`).",
        examples=["svc_counter.main:compose"],
    ),
]

Need = Literal["store", "views", "logs", "keys", "bus", "http"]
"""What a service asks its topology for.

`store`: events and their outbox; `views`: tables of read models; `logs`: the stores of all services
that publish a log, to relay or fold what is in them; `keys`: the data keys of personal text, and what
unwraps them; `bus`: other services and the broker; `http`: a port to listen on.
"""

KEYS_SCHEMA = "keys"
"""Where data keys are in a database that others use too; no service is called that."""

HEALTH_QUERY = "get-health"
"""What every service is asked, without saying so (`flotilla_contracts.health`)."""


class CommandSpec(Part):
    """A command it answers, on `cmd.<service>.<name>`."""

    name: Annotated[
        Name, Field(description="The last token of its subject.", examples=["increment"])
    ]
    idempotency_scope: Annotated[
        Name | None,
        Field(
            description="Within what an idempotency key is one; null: it takes no key, and"
            " repeating it must be harmless.",
        ),
    ] = None


class ProjectionSpec(Part):
    """A read model: the logs it folds, and how late it may be."""

    name: Annotated[Name, Field(examples=["counters"])]
    logs: Annotated[
        tuple[ServiceRef, ...],
        Field(min_length=1, description="Whose logs it folds.", examples=["[counter]"]),
    ]
    staleness_budget_ms: Annotated[
        int, Field(ge=1, description="How far behind it may be.", examples=[5000])
    ]
    partition_key: Annotated[
        Literal["stream", "tenant"] | None,
        Field(
            description="What tells its rows apart, so that it may be folded in parts; null: only"
            " in one.",
            examples=["stream"],
        ),
    ] = None
    partitions: Annotated[
        int, Field(ge=1, le=64, description="In how many parts it is folded.", examples=[1])
    ] = 1


class Slo(Part):
    """What its users may expect, over 30 days."""

    availability_percent: Annotated[
        float,
        Field(gt=0, lt=100, description="Requests that get an answer.", examples=[99.9]),
    ]
    latency_p99_ms: Annotated[
        int | None,
        Field(ge=1, description="Of its answers; null: nobody waits for it.", examples=[250]),
    ] = None
    staleness_ms: Annotated[
        int | None,
        Field(
            ge=1,
            description="How old what it has still to do may be; null: as its projections say.",
            examples=[10_000],
        ),
    ] = None


class Service(Part):
    """A service: what runs when somebody needs it, and what it needs itself."""

    name: OwnName
    summary: Summary
    owner: Annotated[OwnerRef | None, Field(description="Who answers for it.")] = None
    entrypoint: Entrypoint
    log: Annotated[
        Name | None,
        Field(description="The log it publishes, named after it; null if it publishes none."),
    ]
    needs: Annotated[
        tuple[Need, ...],
        Field(description="What the topology has to give it.", examples=["[store, bus]"]),
    ]
    aggregates: Annotated[
        tuple[Annotated[Name, Field(examples=["counter"])], ...],
        Field(description="The entities whose history it owns.", examples=["[counter]"]),
    ] = ()
    commands: Annotated[
        tuple[CommandSpec, ...],
        Field(
            description="What it can be told.",
            examples=["[{ name: increment, idempotency_scope: counter }]"],
        ),
    ] = ()
    events: Annotated[
        tuple[EventTypeName, ...],
        Field(
            description="What it stores and publishes, every version ever stored.",
            examples=["[counter.opened.v1]"],
        ),
    ] = ()
    queries: Annotated[
        tuple[Annotated[Name, Field(examples=["get-counter"])], ...],
        Field(
            description="What it can be asked: the last token of `qry.<service>.<name>`."
            " `get-health` is understood.",
            examples=["[get-counter]"],
        ),
    ] = ()
    projections: Annotated[
        tuple[ProjectionSpec, ...],
        Field(
            description="The read models it keeps.",
            examples=["[{ name: counters, logs: [counter], staleness_budget_ms: 5000 }]"],
        ),
    ] = ()
    read_models: Annotated[
        Entrypoint | None,
        Field(
            description="The module and the function in it that names its projections"
            " (`flotilla.rebuild.ReadModels`), so that they can be made again.",
            examples=["svc_projector.read_models:read_models"],
        ),
    ] = None
    settings: Annotated[
        Entrypoint | None,
        Field(
            description="The module and the class in it with its settings"
            " (`flotilla.settings.ServiceSettings`).",
            examples=["svc_counter.settings:Settings"],
        ),
    ] = None
    slo: Annotated[Slo | None, Field(examples=["{ availability_percent: 99.9 }"])] = None
    capabilities: Annotated[
        tuple[CapabilityRef, ...],
        Field(description="What of the platform it uses.", examples=["[event-store, bus]"]),
    ] = ()

    @property
    def settings_prefix(self) -> str:
        """Return how the environment variables with its settings begin."""
        return f"FLOTILLA_{self.name.upper().replace('-', '_')}_"

    @property
    def connection_name(self) -> str:
        """Return what its own connections to the broker are called: after its package."""
        return self.entrypoint.split(":")[0].split(".")[0].replace("_", "-")

    @property
    def command_subjects(self) -> tuple[str, ...]:
        """Return where it takes commands."""
        return tuple(f"cmd.{self.name}.{command.name}" for command in self.commands)

    @property
    def query_subjects(self) -> tuple[str, ...]:
        """Return where it answers, with `get-health`."""
        return tuple(f"qry.{self.name}.{query}" for query in (*self.queries, HEALTH_QUERY))

    @property
    def staleness_ms(self) -> int | None:
        """Return how late it may be: as its SLO says, else as its latest projection may be."""
        budgets = (projection.staleness_budget_ms for projection in self.projections)
        return (self.slo and self.slo.staleness_ms) or max(budgets, default=None)

    @property
    def keeps(self) -> bool:
        """Return whether anything of its own is in the store."""
        return bool({"store", "views"} & set(self.needs))

    @property
    def follows_logs(self) -> bool:
        """Return whether it works on logs by itself: of its replicas, one at a time on each."""
        return "logs" in self.needs
