"""Composition root: one relay for each log of the topology."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from nats.aio.client import Client

from flotilla import Bindings, Health, Lag, Outbox, Running
from flotilla.background import Background, background
from flotilla.doorbell import Ear
from flotilla.health import serve_health
from flotilla.metrics import (
    LOG_LAST_OFFSET,
    LOG_OLDEST_WAITING_SECONDS,
    LOG_WAITING_EVENTS,
    RELAY_EVENTS,
    RELAY_HANDSHAKES,
)
from flotilla.nats import connected
from flotilla.stores import open_store
from flotilla_contracts.health import health_subject
from flotilla_contracts.wire import doorbell_subject
from svc_outbox_relay.cloud_event import cloud_event
from svc_outbox_relay.jetstream import JetStreamLog
from svc_outbox_relay.relay import Relay
from svc_outbox_relay.settings import Settings
from svc_outbox_relay.traced import TracedLogStream

NAME = "svc-outbox-relay"
SERVICE = "outbox-relay"
SHOW_EVERY_S = 2.0


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Run the relays while the block runs."""
    settings = Settings.read()
    clock, chance = bindings.clock, bindings.chance
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        nats = await enter(connected(bindings.nats_url, name=NAME))
        outboxes: dict[str, Outbox] = {}
        relays: list[Background] = []
        for log in bindings.logs:
            outboxes[log] = await enter(open_store(bindings.stores[log], service=log))
            ear = await enter(Ear.at(nats, doorbell_subject(log)))
            work = partial(keep_relaying, _relay(log, outboxes[log], nats, settings), ear, settings)
            relays.append(await enter(background(f"relay.{log}", work, clock=clock, chance=chance)))

        async def show(_: Background) -> None:
            await _lag(outboxes)
            await clock.sleep(SHOW_EVERY_S)

        async def health() -> Health:
            return Health(tuple(r.trouble for r in relays if r.trouble), await _lag(outboxes))

        await enter(background("relay.show", show, clock=clock, chance=chance))
        await serve_health(bindings.bus, health_subject(SERVICE), NAME, health)
        yield Running(NAME, health)


async def _lag(outboxes: Mapping[str, Outbox]) -> dict[str, Lag]:
    """Return how far behind each log is, from its table, and show it as metrics."""
    lag: dict[str, Lag] = {}
    for log, outbox in outboxes.items():
        status = await outbox.status()
        lag[f"relay.{log}"] = Lag(status.waiting, status.oldest_waiting_s)
        LOG_LAST_OFFSET.labels(log).set(status.offset)
        LOG_WAITING_EVENTS.labels(log).set(status.waiting)
        LOG_OLDEST_WAITING_SECONDS.labels(log).set(status.oldest_waiting_s)
    return lag


async def keep_relaying(relay: Relay, ear: Ear, settings: Settings, shown: Background) -> None:
    """Shake hands, then relay until an error; whoever runs this runs it again."""
    last = await relay.handshake()
    shown.recovered()
    pause_s = settings.poll_min_s
    while True:
        before, last = last, await relay.relay_once(last)
        if last > before:
            pause_s = settings.poll_min_s
            RELAY_EVENTS.labels(relay.log).inc(last - before)
            continue
        await ear.hear(timeout_s=pause_s)
        pause_s = min(settings.poll_max_s, pause_s * 2)


def _relay(log: str, outbox: Outbox, nats: Client, settings: Settings) -> Relay:
    return Relay(
        log,
        outbox,
        TracedLogStream(JetStreamLog(nats, log)),
        partial(cloud_event, log),
        on_handshake=lambda case: RELAY_HANDSHAKES.labels(log, case).inc(),
        batch_messages_max=settings.batch_messages_max,
    )
