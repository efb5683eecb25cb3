"""Every message of the fleet. A new bounded context is added here, and nowhere else."""

from flotilla_contracts import counter, scheduler, tenant, tenant_views, workflow
from flotilla_contracts.message import Ask, Command, Event, Query

_CONTEXTS = (counter, scheduler, tenant, workflow)

EVENTS: dict[str, tuple[type[Event], ...]] = {one.SERVICE: one.EVENTS for one in _CONTEXTS}
"""By the service that publishes them."""
COMMANDS: tuple[type[Command], ...] = tuple(ask for one in _CONTEXTS for ask in one.COMMANDS)
QUERIES: tuple[type[Query], ...] = tuple(
    ask for one in (*_CONTEXTS, tenant_views) for ask in one.QUERIES
)
ASKS: tuple[type[Ask], ...] = (*COMMANDS, *QUERIES)
