"""Composition root: the one place where this service's concrete things meet.

Any number of replicas may run: all answer, and all fire. Nobody leads, and nobody owns a schedule.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from pydantic import TypeAdapter

from flotilla import (
    Aggregate,
    Bindings,
    Bus,
    ContractCodec,
    GroupCommitter,
    Health,
    Lag,
    Lanes,
    Running,
    execute,
)
from flotilla.background import Background, background
from flotilla.doorbell import Doorbell
from flotilla.health import serve_health
from flotilla.nats import connected
from flotilla.observe import ObservedStore, observed
from flotilla.stores import ServiceStore, open_store
from flotilla_contracts.health import health_subject
from flotilla_contracts.scheduler import (
    PLATFORM_TENANT,
    SCHEDULE_COMMANDS,
    SERVICE,
    DeclareSchedules,
    GetSchedule,
    PreviewOccurrences,
    ScheduleChanged,
    ScheduleCreated,
    ScheduleDeleted,
    ScheduleFired,
    ScheduleMissed,
    SchedulePaused,
    ScheduleResumed,
    SchedulesDeclared,
)
from flotilla_contracts.wire import doorbell_subject
from svc_scheduler import declaring
from svc_scheduler.application import Schedules
from svc_scheduler.declaring import Declarations, Ids, of_workflows
from svc_scheduler.domain.schedule import Asked, Event, Schedule, decider, wake
from svc_scheduler.firing import Firing
from svc_scheduler.settings import Settings

NAME = "svc-scheduler"
CLEAN_UP_EVERY_S = 60.0
_STATE = TypeAdapter(Schedule)
EVENTS: tuple[type[Event], ...] = (
    ScheduleCreated,
    ScheduleChanged,
    SchedulePaused,
    ScheduleResumed,
    ScheduleDeleted,
    ScheduleFired,
    ScheduleMissed,
)


@dataclass(frozen=True, slots=True)
class ScheduleSnapshots:
    """How a schedule is remembered. Raise `schema` when `Schedule` or `Terms` change."""

    every_events: int
    schema: int = 1

    def dump(self, state: Schedule) -> str:
        """Return the state as JSON."""
        return _STATE.dump_json(state).decode()

    def load(self, text: str) -> Schedule:
        """Return the state that `dump` wrote."""
        return _STATE.validate_json(text)


def lanes_of(
    store: ServiceStore, committer: GroupCommitter, bindings: Bindings, every_events: int
) -> tuple[Lanes[Schedule, Event], Lanes[Ids, SchedulesDeclared]]:
    """Return the lanes in which schedules, and declarations of them, are decided."""
    commit, clock, ids, chance = committer.commit, bindings.clock, bindings.ids, bindings.chance
    schedules: Aggregate[Asked, Schedule, Event] = Aggregate(
        decider(),
        ContractCodec(EVENTS),
        store,
        commit,
        clock,
        ids,
        chance,
        ScheduleSnapshots(every_events),
        wake=wake,
    )
    declarations: Aggregate[SchedulesDeclared, Ids, SchedulesDeclared] = Aggregate(
        declaring.decider(),
        ContractCodec((SchedulesDeclared,)),
        store,
        commit,
        clock,
        ids,
        chance,
    )
    return Lanes(partial(execute, schedules)), Lanes(partial(execute, declarations))


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Run the service while the block runs."""
    settings, clock, chance = Settings.read(), bindings.clock, bindings.chance
    async with (
        open_store(bindings.stores[SERVICE], service=SERVICE) as store,
        connected(bindings.nats_url, name=NAME) as nats,
    ):
        bell = Doorbell(nats, doorbell_subject(SERVICE))
        committer = GroupCommitter(
            ObservedStore(store), on_commit=lambda _: bell.ring(), flights_max=store.flights_max
        )
        lanes, wishes = lanes_of(store, committer, bindings, settings.snapshot_every_events)
        schedules = Schedules(decider(), lanes.settle, store, settings.idempotency_ttl_s)
        firing = Firing(schedules.tell, store, clock, poll_max_s=settings.poll_max_ms / 1000)
        declarations = Declarations(schedules, wishes.settle)
        await _serve(bindings.bus, schedules, declarations)

        wanted = of_workflows(bindings.workflows)

        async def declare(_: Background) -> None:
            await declarations.apply(PLATFORM_TENANT, wanted, {})
            await asyncio.Event().wait()  # until the process ends: its model does not change

        async def clean_up(_: Background) -> None:
            await store.forget_expired()
            await clock.sleep(CLEAN_UP_EVERY_S)

        try:
            async with (
                background("scheduler.clean-up", clean_up, clock=clock, chance=chance),
                background("scheduler.declare", declare, clock=clock, chance=chance) as declares,
                background("scheduler.fire", firing.run, clock=clock, chance=chance) as fires,
            ):

                async def health() -> Health:
                    await store.status()
                    missing = tuple(work.trouble for work in (fires, declares) if work.trouble)
                    return Health(missing, {"schedules": Lag(0, firing.behind_s)})

                await serve_health(bindings.bus, health_subject(SERVICE), NAME, health)
                yield Running(NAME, health)
        finally:
            await lanes.drain()  # what was accepted is committed before the store closes
            await wishes.drain()


async def _serve(bus: Bus, schedules: Schedules, declarations: Declarations) -> None:
    for command in SCHEDULE_COMMANDS:
        await bus.serve(command.subject, observed(schedules.command_handler(command)))
    await bus.serve(DeclareSchedules.subject, observed(declarations.declare))
    await bus.serve(GetSchedule.subject, observed(schedules.get))
    await bus.serve(PreviewOccurrences.subject, observed(schedules.preview))
