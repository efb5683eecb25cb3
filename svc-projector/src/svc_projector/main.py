"""Composition root: the read models of the logs that the fleet has, and the queries on them.

Any number of replicas may run, and all of them answer. Which one folds a projection, or a partition of
one, is decided by a lease beside its view; that nothing is folded twice is decided by the checkpoint,
whoever believes to own it (`projector.py`). Orders about what is parked are safe on every replica: they
hold the checkpoint.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from nats.aio.client import Client

from flotilla import (
    Bindings,
    Bus,
    Clock,
    Handler,
    Health,
    LeaseStore,
    Outbox,
    Projection,
    Running,
    ViewStore,
)
from flotilla.background import Background, background
from flotilla.health import serve_health
from flotilla.nats import connected
from flotilla.observe import observed
from flotilla.partition import Repartitioned, parts_of, whole_name
from flotilla.replica import Replica, this_process
from flotilla.settings import StartRefused
from flotilla.stores import open_leases, open_store, open_views
from flotilla_contracts.counter import GetCounter, GetTenantTotals, ListActivity, ListCounters
from flotilla_contracts.health import health_subject
from flotilla_contracts.parked import retry_subject
from flotilla_contracts.wire import projection_lease, projection_reader
from svc_projector.audit import AuditView
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
from svc_projector.tenant_queries import TenantQueries

NAME = "svc-projector"
SERVICE = "projector"
SHOW_EVERY_S = 2.0


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Run the projections while the block runs."""
    settings, clock, bus = Settings.read(), bindings.clock, bindings.bus
    folded = [one for one in projections(settings) if one.log in bindings.logs]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        views = await enter(open_views(bindings.stores[SERVICE], service=SERVICE))
        sources = {
            log: await enter(open_store(bindings.stores[log], service=log))
            for log in sorted({projection.log for projection in folded})
        }
        projectors = [
            projector
            for projection in folded
            for projector in await _begun(
                projection, views, sources[projection.log], settings, clock
            )
        ]
        nats = await enter(connected(bindings.nats_url, name=NAME))
        holder, able = this_process(bindings.ids), lambda: nats.is_connected
        replica = Replica(holder, clock, bindings.chance, able)
        leases = await enter(open_leases(bindings.stores[SERVICE], service=SERVICE))
        running = [
            await enter(_running(projector, nats, replica, leases, settings))
            for projector in projectors
        ]
        await _serve(bus, views, projectors, settings.wait_max_s)

        async def health() -> Health:
            return await health_of(running, views, await leases.leases(), clock)

        async def show(_: Background) -> None:
            await health()
            await show_life(running, views, clock)
            for one in running:
                if one.is_owned:
                    await _say_how_far(one.projector)
            await clock.sleep(SHOW_EVERY_S)

        await enter(background("projection.show", show, clock=clock, chance=bindings.chance))
        await serve_health(bus, health_subject(SERVICE), NAME, health)
        yield Running(NAME, health)


async def _begun(
    projection: Projection, views: ViewStore, source: Outbox, settings: Settings, clock: Clock
) -> list[Projector]:
    """Return the projectors of a read model, one a partition: tables and checkpoints are there.

    Its ledger is not pruned from here on. Raises `StartRefused` for another number of partitions.
    """
    await views.migrate(projection.name, projection.tables)
    projectors = [
        Projector(
            part,
            views,
            source,
            on_applied=partial(applied, part),
            clock=clock,
            parked_max=settings.parked_max,
        )
        for part in parts_of(projection)
    ]
    for projector in projectors:
        try:
            await projector.begin()
        except Repartitioned as error:
            raise StartRefused(error.code, str(error)) from error
        await _say_how_far(projector)
    return projectors


async def _say_how_far(projector: Projector) -> None:
    """Tell the log, by the checkpoint in the view: what was not read is not pruned from the ledger."""
    of = projector.projection
    checkpoint = await projector.views.checkpoint(of.name, of.log)
    await projector.source.read_by(projection_reader(SERVICE, of.name), checkpoint.offset)


@asynccontextmanager
async def _running(
    projector: Projector, nats: Client, replica: Replica, leases: LeaseStore, settings: Settings
) -> AsyncIterator[RunningProjection]:
    """Fold a projection while this replica owns it; stand by otherwise."""
    of = projector.projection
    lease = projection_lease(of.name, of.log)
    fold = partial(keep_projecting, projector, nats, settings.batch_events_max)
    work = replica.leading(replica.candidate(leases, lease), fold)
    async with background(
        f"projection.{of.name}", work, clock=replica.clock, chance=replica.chance
    ) as shown:
        yield RunningProjection(projector, shown, lease, replica.leads)


async def _serve(
    bus: Bus, views: ViewStore, projectors: Sequence[Projector], wait_max_s: float
) -> None:
    """Answer queries of the read models, and orders about what is parked."""
    parkings = {projector.projection.name: projector.parking for projector in projectors}
    of_counters = [p for p in projectors if whole_name(p.projection.name) == CounterView.name]
    counters = CounterQueries(views, of_counters, wait_max_s)
    by_name = {projector.projection.name: projector for projector in projectors}
    handlers: dict[str, Handler] = {
        GetCounter.subject: counters.get,
        ListCounters.subject: counters.list,
        GetTenantTotals.subject: partial(answer_totals, views),
        ListActivity.subject: partial(answer_activity, views),
        retry_subject(SERVICE): partial(answer_retry, parkings),
    }
    if AuditView.name in by_name:
        handlers |= TenantQueries(views, by_name, wait_max_s).handlers
    for subject, handler in handlers.items():
        await bus.serve(subject, observed(handler))
