"""Composition root: the read models, and the queries on them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from flotilla import (
    Bindings,
    Bus,
    Clock,
    Handler,
    Health,
    Outbox,
    Projection,
    Running,
    ViewStore,
)
from flotilla.background import Background, background
from flotilla.health import serve_health
from flotilla.nats import connected
from flotilla.observe import observed
from flotilla.stores import open_store, open_views
from flotilla_contracts.counter import GetCounter, GetTenantTotals, ListActivity, ListCounters
from flotilla_contracts.health import health_subject
from flotilla_contracts.parked import retry_subject
from svc_projector.counters import CounterView
from svc_projector.projector import Projector
from svc_projector.queries import CounterQueries, answer_activity, answer_totals
from svc_projector.read_models import projections
from svc_projector.running import (
    RunningProjection,
    answer_retry,
    applied,
    health_of,
    keep_projecting,
    show_life,
)
from svc_projector.settings import Settings

NAME = "svc-projector"
SERVICE = "projector"
SHOW_EVERY_S = 2.0


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Run the projections while the block runs."""
    settings, clock, bus = Settings.read(), bindings.clock, bindings.bus
    folded = projections(settings)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        views = await enter(open_views(bindings.stores[SERVICE], service=SERVICE))
        sources = {
            log: await enter(open_store(bindings.stores[log], service=log))
            for log in sorted({projection.log for projection in folded})
        }
        projectors = [
            await _begun(projection, views, sources[projection.log], settings, clock)
            for projection in folded
        ]
        nats = await enter(connected(bindings.nats_url, name=NAME))
        running = [
            RunningProjection(
                projector,
                await enter(
                    background(
                        f"projection.{projector.projection.name}",
                        partial(keep_projecting, projector, nats, settings.batch_events_max),
                        clock=clock,
                        chance=bindings.chance,
                    )
                ),
            )
            for projector in projectors
        ]
        await _serve(bus, views, projectors, settings.wait_max_s)

        async def health() -> Health:
            return await health_of(running, views, clock)

        async def show(_: Background) -> None:
            await health()
            await show_life(running, views, clock)
            for projector in projectors:  # what was not read is not pruned from the ledger
                reader = f"projection:{SERVICE}:{projector.projection.name}"
                await projector.source.read_by(reader, projector.checkpoint.offset)
            await clock.sleep(SHOW_EVERY_S)

        await enter(background("projection.show", show, clock=clock, chance=bindings.chance))
        await serve_health(bus, health_subject(SERVICE), NAME, health)
        yield Running(NAME, health)


async def _begun(
    projection: Projection, views: ViewStore, source: Outbox, settings: Settings, clock: Clock
) -> Projector:
    """Return the projector of a read model whose tables and checkpoint are there."""
    await views.migrate(projection.name, projection.tables)
    projector = Projector(
        projection,
        views,
        source,
        on_applied=partial(applied, projection.name),
        clock=clock,
        parked_max=settings.parked_max,
    )
    await projector.begin()
    return projector


async def _serve(
    bus: Bus, views: ViewStore, projectors: Sequence[Projector], wait_max_s: float
) -> None:
    """Answer queries of the read models, and orders about what is parked."""
    by_name = {projector.projection.name: projector for projector in projectors}
    counters = CounterQueries(views, by_name[CounterView.name], wait_max_s)
    parkings = {name: projector.parking for name, projector in by_name.items()}
    handlers: dict[str, Handler] = {
        GetCounter.subject: counters.get,
        ListCounters.subject: counters.list,
        GetTenantTotals.subject: partial(answer_totals, views),
        ListActivity.subject: partial(answer_activity, views),
        retry_subject(SERVICE): partial(answer_retry, parkings),
    }
    for subject, handler in handlers.items():
        await bus.serve(subject, observed(handler))
