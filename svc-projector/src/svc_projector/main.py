"""Composition root: the read models, and the queries on them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial

from nats.aio.client import Client

from flotilla import Bindings, Clock, Health, LogEvent, Outbox, Running
from flotilla.background import Background, background
from flotilla.health import serve_health
from flotilla.lag import projection_lag
from flotilla.metrics import PROJECTION_EVENTS, PROJECTION_LAG_EVENTS, PROJECTION_LAG_SECONDS
from flotilla.nats import connected
from flotilla.observe import observed
from flotilla.stores import open_store, open_views
from flotilla.telemetry import mark
from flotilla_contracts.counter import GetCounter, ListCounters
from flotilla_contracts.health import health_subject
from svc_projector.counters import CounterView
from svc_projector.log_reader import LogReader
from svc_projector.projector import Projector
from svc_projector.queries import CounterQueries
from svc_projector.settings import Settings

NAME = "svc-projector"
SERVICE = "projector"
SHOW_EVERY_S = 2.0


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Run the projections while the block runs."""
    settings, view = Settings.read(), CounterView()
    clock, chance = bindings.clock, bindings.chance
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        views = await enter(open_views(bindings.stores[SERVICE], service=SERVICE))
        source = await enter(open_store(bindings.stores[view.log], service=view.log))
        nats = await enter(connected(bindings.nats_url, name=NAME))
        await views.migrate(view.name, view.tables)
        projector = Projector(view, views, source, on_applied=partial(_applied, view.name))
        work = await enter(
            background(
                f"projection.{view.name}",
                partial(keep_projecting, projector, nats, settings.batch_events_max),
                clock=clock,
                chance=chance,
            )
        )
        queries = CounterQueries(views, projector, settings.wait_max_s)
        await bindings.bus.serve(GetCounter.subject, observed(queries.get))
        await bindings.bus.serve(ListCounters.subject, observed(queries.list))

        async def health() -> Health:
            return await _health(projector, work, source, clock)

        async def show(_: Background) -> None:
            await health()
            # What we have not read is not pruned from the ledger.
            await source.read_by(f"projection:{SERVICE}:{view.name}", projector.checkpoint.offset)
            await clock.sleep(SHOW_EVERY_S)

        await enter(background("projection.show", show, clock=clock, chance=chance))
        await serve_health(bindings.bus, health_subject(SERVICE), NAME, health)
        yield Running(NAME, health)


async def keep_projecting(
    projector: Projector, nats: Client, batch_events_max: int, shown: Background
) -> None:
    """Follow the log from the checkpoint until an error; whoever runs this runs it again."""
    after = await projector.start()
    reader = LogReader(nats, projector.projection.log, batch_events_max=batch_events_max)
    async with aclosing(reader.batches(after=after)) as batches:
        async for batch in batches:
            await projector.project(batch)
            shown.recovered()


def _applied(name: str, batch: Sequence[LogEvent]) -> None:
    PROJECTION_EVENTS.labels(name).inc(len(batch))
    mark(f"project.{name}", (event.traceparent for event in batch))


async def _health(projector: Projector, work: Background, source: Outbox, clock: Clock) -> Health:
    view = projector.projection
    checkpoint = await projector.views.checkpoint(view.name, view.log)
    lag = await projection_lag(source, checkpoint.offset, clock)
    PROJECTION_LAG_EVENTS.labels(view.name).set(lag.events)
    PROJECTION_LAG_SECONDS.labels(view.name).set(lag.seconds)
    missing = [work.trouble] if work.trouble else []
    if lag.seconds > view.staleness_budget_s:
        missing.append(
            f"{view.name} is {lag.seconds:.1f} s behind; {view.staleness_budget_s} allowed"
        )
    return Health(tuple(missing), {f"projection.{view.name}": lag})
