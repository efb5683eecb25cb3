"""Composition root: the book of definitions, the pump, the arrivals of events, and who may ask.

Any number of replicas may run. All of them move what is due and answer; the version of an instance's
stream fences them. One of them, by a lease, reads the logs of others for events that workflows wait for;
that nothing is told twice is decided by the instances, whoever believes to have the lease.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from flotilla import Aggregate, Bindings, Bus, GroupCommitter, Health, Outbox, Running
from flotilla.background import Background, background
from flotilla.doorbell import Doorbell
from flotilla.health import serve_health
from flotilla.nats import connected
from flotilla.observe import observed
from flotilla.replica import Replica, this_process
from flotilla.stores import ServiceStore, open_leases, open_store, open_views
from flotilla.workflow.arrivals import Arrivals
from flotilla.workflow.book import Book
from flotilla.workflow.instance import decider
from flotilla.workflow.instances import CODEC, Instances
from flotilla.workflow.pump import Pump
from flotilla.workflow.snapshots import InstanceSnapshots
from flotilla.workflow.state import wake
from flotilla_contracts.health import health_subject
from flotilla_contracts.wire import doorbell_subject
from flotilla_contracts.workflow import COMMANDS, SERVICE, GetWorkflow
from svc_workflow.application import Workflows
from svc_workflow.definitions import contract, definitions, publish
from svc_workflow.settings import Settings
from svc_workflow.watching import LEASE, CountedStore, Watch, asking

NAME = "svc-workflow"
SHOW_EVERY_S = 2.0
CLEAN_UP_EVERY_S = 60.0


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Run the service while the block runs."""
    settings, known, clock = Settings.read(), contract(), bindings.clock
    wanted = definitions(bindings.workflows, settings.environment, known)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        store = await enter(open_store(bindings.stores[SERVICE], service=SERVICE))
        views = await enter(open_views(bindings.stores[SERVICE], service=SERVICE))
        leases = await enter(open_leases(bindings.stores[SERVICE], service=SERVICE))
        nats = await enter(connected(bindings.nats_url, name=NAME))
        logs: dict[str, Outbox] = {
            log: await enter(open_store(bindings.stores[log], service=log))
            for log in bindings.logs
            if log != SERVICE
        }
        bell = Doorbell(nats, doorbell_subject(SERVICE))
        book = Book(store, bindings.ids)
        await publish(book, wanted)
        pump = Pump(
            _instances(book, store, bell, settings, bindings),
            store,
            asking(bindings.bus.request, clock),
            clock,
            settings.concurrency_max,
        )
        arrivals = Arrivals(book, pump.tell, logs, views, clock, settings.arrivals_poll_ms / 1000)
        await arrivals.begin()  # who is told that this runs, is heard from then on
        replica = Replica(this_process(bindings.ids), clock, bindings.chance)
        reading = replica.leading(replica.candidate(leases, LEASE), arrivals.run)
        running = partial(background, clock=clock, chance=bindings.chance)
        work = [
            await enter(running("workflow.pump", pump.run)),
            await enter(running("workflow.arrivals", reading)),
        ]
        watch = Watch(store, views, logs, leases.leases, pump, work, clock, settings.due_late_max_s)
        await _serve(bindings.bus, Workflows(pump, known))

        async def health() -> Health:
            return await watch.health()

        async def show(_: Background) -> None:
            await watch.health()
            if LEASE in replica.leads:
                await watch.show_life()
            await clock.sleep(SHOW_EVERY_S)

        async def clean_up(_: Background) -> None:
            await store.forget_expired()
            await clock.sleep(CLEAN_UP_EVERY_S)

        await enter(running("workflow.show", show))
        await enter(running("workflow.clean-up", clean_up))
        await serve_health(bindings.bus, health_subject(SERVICE), NAME, health)
        yield Running(NAME, health)


def _instances(
    book: Book, store: ServiceStore, bell: Doorbell, settings: Settings, bindings: Bindings
) -> Instances:
    committer = GroupCommitter(
        CountedStore(store), on_commit=lambda _: bell.ring(), flights_max=store.flights_max
    )
    return Instances.of(
        book,
        lambda known: Aggregate(
            decider(known),
            CODEC,
            store,
            committer.commit,
            bindings.clock,
            bindings.ids,
            bindings.chance,
            InstanceSnapshots(settings.snapshot_every_events),
            wake=wake,
        ),
    )


async def _serve(bus: Bus, workflows: Workflows) -> None:
    """Answer what starts workflows, what people tell them, and how they are."""
    for subject in workflows.triggers:
        await bus.serve(subject, observed(workflows.start))
    for command in COMMANDS:
        await bus.serve(command.subject, observed(workflows.command_handler(command)))
    await bus.serve(GetWorkflow.subject, observed(workflows.get))
