"""Every message of the fleet. A new bounded context is added here, and nowhere else."""

from flotilla_contracts import counter, tenant, tenant_views
from flotilla_contracts.message import Ask, Command, Event, Query

EVENTS: dict[str, tuple[type[Event], ...]] = {
    counter.SERVICE: counter.EVENTS,
    tenant.SERVICE: tenant.EVENTS,
}
"""By the service that publishes them."""
COMMANDS: tuple[type[Command], ...] = (*counter.COMMANDS, *tenant.COMMANDS)
QUERIES: tuple[type[Query], ...] = (*counter.QUERIES, *tenant.QUERIES, *tenant_views.QUERIES)
ASKS: tuple[type[Ask], ...] = (*COMMANDS, *QUERIES)
