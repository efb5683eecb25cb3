"""Composition root: the one place where this service's concrete things meet."""

import os
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
    Decision,
    Done,
    EventStore,
    GroupCommitter,
    Handler,
    Health,
    Lanes,
    Running,
    StreamId,
    Version,
    execute,
)
from flotilla.background import Background, background
from flotilla.doorbell import Doorbell
from flotilla.erasures import erasures_in
from flotilla.health import serve_health
from flotilla.nats import connected
from flotilla.observe import ObservedStore, observed
from flotilla.stores import open_store, open_vault
from flotilla.telemetry import span
from flotilla_contracts.health import health_subject
from flotilla_contracts.tenant import (
    COMMANDS,
    SERVICE,
    TENANT_EVENTS,
    GetMembership,
    GetQuotas,
    GetTenant,
    ListInvitations,
    ListMembers,
)
from flotilla_contracts.tenant_events import (
    ErasureRecorded,
    TenantEvent,
)
from flotilla_contracts.wire import doorbell_subject
from svc_tenant.application import Tenants
from svc_tenant.domain import erasure, rules
from svc_tenant.domain.asked import Asked
from svc_tenant.domain.tenant import Tenant
from svc_tenant.erasing import Erasing, erasure_of
from svc_tenant.queries import Questions
from svc_tenant.settings import Settings
from svc_tenant.streams import ERASURES

NAME = "svc-tenant"
CLEAN_UP_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Snapshots[S]:
    """How a state is remembered. Raise `schema` when its shape changes."""

    states: TypeAdapter[S]
    every_events: int
    schema: int = 1

    def dump(self, state: S) -> str:
        """Return the state as JSON."""
        return self.states.dump_json(state).decode()

    def load(self, text: str) -> S:
        """Return the state that `dump` wrote."""
        return self.states.validate_json(text)


def aggregates(
    store: EventStore, committer: GroupCommitter, bindings: Bindings, every_events: int
) -> tuple[Aggregate[Asked, Tenant, TenantEvent], Aggregate[ErasureRecorded, int, ErasureRecorded]]:
    """Return tenants and erasures, bound to their store."""
    at = store, committer.commit, bindings.clock, bindings.ids, bindings.chance
    tenants = Aggregate(
        rules.DECIDER,
        ContractCodec(TENANT_EVENTS),
        *at,
        Snapshots(TypeAdapter(Tenant), every_events),
    )
    erasures = Aggregate(
        erasure.DECIDER,
        ContractCodec([ErasureRecorded]),
        *at,
        Snapshots(TypeAdapter(int), every_events),
    )
    return tenants, erasures


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Run the service while the block runs."""
    settings, clock, chance, bus = Settings.read(), bindings.clock, bindings.chance, bindings.bus
    if bindings.keys is None:
        raise LookupError("tenants need keys: `needs: [keys]` in the model binds them")
    async with (
        open_store(bindings.stores[SERVICE], service=SERVICE) as store,
        open_vault(
            bindings.keys, clock=clock, erasures=erasures_in(store, ERASURES, erasure_of)
        ) as vault,
        connected(bindings.nats_url, name=NAME) as nats,
    ):
        bell = Doorbell(nats, doorbell_subject(SERVICE))
        committer = GroupCommitter(
            ObservedStore(store), on_commit=lambda _: bell.ring(), flights_max=store.flights_max
        )
        tenants, erasures = aggregates(store, committer, bindings, settings.snapshot_every_events)
        lanes = Lanes(partial(execute, tenants))

        async def settle(stream: StreamId, decision: Decision[Tenant, TenantEvent]) -> Done:
            with span("commit", stream=stream):
                return await lanes.settle(stream, decision)

        async def look(stream: StreamId) -> tuple[Tenant, Version]:
            loaded = await tenants.load(stream, [])
            return tenants.rehydrate(loaded), loaded.version

        told = Tenants(
            settle,
            Erasing(tenants, erasures, vault).erase,
            look,
            vault,
            clock,
            bindings.ids,
            os.urandom,
            settings.idempotency_ttl_s,
            settings.invitation_ttl_s,
        )
        asked = Questions(look, vault)
        await _serve(bus, told, asked)

        async def health() -> Health:
            await store.status()
            return Health()

        async def clean_up(_: Background) -> None:
            await store.forget_expired()
            await clock.sleep(CLEAN_UP_EVERY_S)

        try:
            async with background("tenant.clean-up", clean_up, clock=clock, chance=chance):
                await serve_health(bus, health_subject(SERVICE), NAME, health)
                yield Running(NAME, health)
        finally:
            await lanes.drain()  # what was accepted is committed before the store closes


async def _serve(bus: Bus, told: Tenants, asked: Questions) -> None:
    questions: dict[str, Handler] = {
        GetTenant.subject: asked.tenant,
        GetMembership.subject: asked.membership,
        ListMembers.subject: asked.members,
        ListInvitations.subject: asked.invitations,
        GetQuotas.subject: asked.quotas,
    }
    for command in COMMANDS:
        await bus.serve(command.subject, observed(told.command_handler(command)))
    for subject, handler in questions.items():
        await bus.serve(subject, observed(handler))
