"""Flotilla, driven at several depths: kernel, service, NATS, HTTP; and the kernel on libSQL.

The kernel is asked with commands, as the reference and the peers are: load or remember, decide, commit.
The service is `svc_counter.main.compose`, the real composition root, asked with messages: parsed,
counted, timed, within a deadline.
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

from bench.http_client import connect
from bench.measure import Ask, Load, Sample, closed_loop, fill
from bench.servers import Servers
from flotilla import (
    Aggregate,
    Bindings,
    ContractCodec,
    GroupCommitter,
    Lanes,
    SystemClock,
    execute,
    uuid7,
)
from flotilla.bus import Bus, Context, Request
from flotilla.buses.local import LocalBus
from flotilla.buses.nats import NatsBus
from flotilla.commit import BATCH_UNITS_MAX
from flotilla.store import EventStore
from flotilla.stores.libsql import LibsqlStore
from flotilla.stores.postgres import PostgresStore
from flotilla_contracts.counter import EVENTS, SERVICE, IncrementCounter
from svc_counter.application import Counters
from svc_counter.domain.counter import Bounds, decider
from svc_counter.main import CounterSnapshots, compose
from svc_counter.settings import Settings

FILLING_CALLERS = 128
"""How many callers open the aggregates before anything is measured."""


def asking(bus: Bus) -> Ask:
    """Return what sends one increment over `bus`, each under a new idempotency key."""
    keys = count()

    async def ask(counter: int) -> None:
        context = Context("acme", "bench", idempotency_key=f"k{next(keys)}")
        body = b'{"counter_id":"c%d","by":1}' % counter
        await bus.request(Request(IncrementCounter.subject, body, context))

    return ask


def bindings(service: str, store: str, nats_url: str, bus: Bus) -> Bindings:
    """Return what a composition root needs to run on this store, this broker and this bus."""
    return Bindings(
        stores={service: store},
        nats_url=nats_url,
        bus=bus,
        clock=SystemClock(),
        ids=uuid7,
        chance=random.Random(),  # noqa: S311 - jitter, not secrets
        services=(service,),
        logs=(service,),
    )


@asynccontextmanager
async def use_cases(
    store: EventStore,
    *,
    flights_max: int,
    batch_units_max: int = BATCH_UNITS_MAX,
    on_commit: Callable[[int], None] = lambda _units: None,
) -> AsyncIterator[Counters]:
    """Run svc-counter's use cases on `store`; `batch_units_max` 1: no grouping."""
    settings = Settings.read()
    committer = GroupCommitter(
        store, flights_max=flights_max, batch_units_max=batch_units_max, on_commit=on_commit
    )
    rules = decider(Bounds(settings.lower_bound, settings.upper_bound))
    aggregate = Aggregate(
        rules,
        ContractCodec(EVENTS),
        store,
        committer.commit,
        SystemClock(),
        uuid7,
        random.Random(),  # noqa: S311 - jitter, not secrets
        CounterSnapshots(settings.snapshot_every_events),
    )
    lanes = Lanes(partial(execute, aggregate))
    try:
        yield Counters(rules, lanes.settle, store, settings.idempotency_ttl_s)
    finally:
        await lanes.drain()


def commanding(counters: Counters) -> Ask:
    """Return what decides one increment, each under a new idempotency key."""
    keys = count()

    async def ask(counter: int) -> None:
        command = IncrementCounter(counter_id=f"c{counter}", by=1)
        context = Context("acme", "bench", idempotency_key=f"k{next(keys)}")
        await counters.answer(command, Request(command.subject, b"", context))

    return ask


@asynccontextmanager
async def on_postgres(servers: Servers) -> AsyncIterator[Ask]:
    """Run the kernel on PostgreSQL."""
    async with (
        PostgresStore.open(await servers.database("ours"), service=SERVICE) as store,
        use_cases(store, flights_max=store.flights_max) as counters,
    ):
        yield commanding(counters)


@asynccontextmanager
async def in_process(servers: Servers) -> AsyncIterator[Ask]:
    """Run svc-counter behind a `LocalBus`."""
    bus, store = LocalBus(), await servers.database("ours_service")
    async with compose(bindings(SERVICE, store, servers.nats_url, bus)):
        yield asking(bus)


@asynccontextmanager
async def over_nats(servers: Servers) -> AsyncIterator[Ask]:
    """Run svc-counter behind a `NatsBus`, asked through another connection."""
    store = await servers.database("ours_nats")
    async with (
        NatsBus(servers.nats_url, name="bench-server") as server,
        compose(bindings(SERVICE, store, servers.nats_url, server)),
        NatsBus(servers.nats_url, name="bench-client") as client,
    ):
        yield asking(client)


@dataclass(frozen=True, slots=True)
class OverHttp:
    """Asks an HTTP server. Connections are made anew for each run: the server closes idle ones."""

    url: str
    keys: "count[int]" = field(default_factory=count)

    @asynccontextmanager
    async def callers(self, number: int) -> AsyncIterator[list[Ask]]:
        """Lend callers with one keep-alive connection each."""
        connections = await connect(self.url, number, self.keys)
        try:
            yield [connection.increment for connection in connections]
        finally:
            for connection in connections:
                connection.close()

    async def run(self, load: Load, seconds: float) -> Sample:
        """Return the rate and the latencies."""
        async with self.callers(load.callers) as asks:
            return await closed_loop(asks, load, seconds)

    async def fill(self) -> None:
        """Use every aggregate once."""
        async with self.callers(FILLING_CALLERS) as asks:
            await fill(asks)


@asynccontextmanager
async def on_libsql(folder: Path, *, batch_units_max: int) -> AsyncIterator[Ask]:
    """Run the kernel on a libSQL file; `batch_units_max` 1: no grouping."""
    file = folder / f"libsql-{batch_units_max}.db"
    async with (
        LibsqlStore.open(f"libsql://{file}", service=SERVICE) as store,
        use_cases(
            store, flights_max=store.flights_max, batch_units_max=batch_units_max
        ) as counters,
    ):
        yield commanding(counters)
