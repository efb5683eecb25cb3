"""Composition root: a candidate for each log of the topology; whoever leads a log relays it.

Any number of replicas may run. Which one relays a log is decided by a lease in the log's own store;
that nothing is published twice is decided by the broker, whoever believes to lead (`relay.py`).

How logs spread over replicas is in `flotilla.replica`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import structlog
from nats.aio.client import Client

from flotilla import Bindings, Health, Lag, Leadership, LeaseStore, Outbox, Running, Unavailable
from flotilla.background import Background, background
from flotilla.doorbell import Ear
from flotilla.health import serve_health
from flotilla.metrics import (
    LOG_LAST_OFFSET,
    LOG_LEADER,
    LOG_OLDEST_WAITING_SECONDS,
    LOG_WAITING_EVENTS,
    RELAY_EVENTS,
    RELAY_HANDSHAKES,
)
from flotilla.nats import connected
from flotilla.replica import Replica, led, this_process
from flotilla.settings import StartRefused
from flotilla.stores import open_leases, open_store
from flotilla.stores.storable import MESSAGE_BYTES_MAX
from flotilla_contracts.health import health_subject
from flotilla_contracts.wire import doorbell_subject, relay_lease
from svc_outbox_relay.cloud_event import cloud_events
from svc_outbox_relay.jetstream import JetStreamLog
from svc_outbox_relay.log_stream import WrongLastSequence
from svc_outbox_relay.relay import Relay
from svc_outbox_relay.settings import Settings
from svc_outbox_relay.traced import TracedLogStream

NAME = "svc-outbox-relay"
SERVICE = "outbox-relay"
SHOW_EVERY_S = 2.0
PRUNE_EVERY_S = 30.0
PRUNE_ENTRIES_MAX = 5000

events_log = structlog.get_logger()


@asynccontextmanager
async def compose(bindings: Bindings) -> AsyncIterator[Running]:
    """Run the candidates while the block runs."""
    settings = Settings.read()
    clock, chance = bindings.clock, bindings.chance
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        nats = await enter(connected(bindings.nats_url, name=NAME))
        check_max_payload(nats)
        logs: dict[str, tuple[Outbox, LeaseStore]] = {}
        relays: list[Background] = []
        replica = Replica(this_process(bindings.ids), clock, chance, able=lambda: nats.is_connected)
        for log in bindings.logs:
            outbox = await enter(open_store(bindings.stores[log], service=log))
            leases = await enter(open_leases(bindings.stores[log], service=log))
            logs[log] = outbox, leases
            ear = await enter(Ear.at(nats, doorbell_subject(log)))
            leadership = replica.candidate(leases, relay_lease(log))
            relay = _relay((log, outbox), nats, settings, leadership, ear)
            work = replica.leading(leadership, partial(keep_relaying, relay, ear, settings))
            relays.append(await enter(background(f"relay.{log}", work, clock=clock, chance=chance)))

        async def show(_: Background) -> None:
            await _look(logs)
            await clock.sleep(SHOW_EVERY_S)

        async def health() -> Health:
            lag, leaderless = await _look(logs)
            return Health((*(r.trouble for r in relays if r.trouble), *leaderless), lag)

        async def prune(_: Background) -> None:
            await clock.sleep(PRUNE_EVERY_S)
            led_here = [o for log, (o, _) in logs.items() if relay_lease(log) in replica.leads]
            await prune_ledgers(led_here, settings.ledger_keep_s)

        await enter(background("relay.show", show, clock=clock, chance=chance))
        if settings.ledger_keep_s:
            await enter(background("relay.prune", prune, clock=clock, chance=chance))
        await serve_health(bindings.bus, health_subject(SERVICE), NAME, health)
        yield Running(NAME, health)


def check_max_payload(nats: Client) -> None:
    """Refuse to start with a broker that would refuse what the stores take."""
    if nats.max_payload < MESSAGE_BYTES_MAX:
        raise StartRefused(
            "max-payload-too-small",
            f"the NATS server takes messages of {nats.max_payload} bytes, and committed events have up"
            f" to {MESSAGE_BYTES_MAX}: set max_payload of the server to at least that (default: 1MB)",
        )


async def prune_ledgers(outboxes: Sequence[Outbox], keep_s: float) -> int:
    """Forget what is older than `keep_s` and behind all readers of its ledger; return how many.

    A store that does not answer keeps nobody else's ledger.
    """
    pruned = 0
    for outbox in outboxes:
        try:
            pruned += await outbox.prune(older_than_s=keep_s, limit=PRUNE_ENTRIES_MAX)
        except Unavailable as error:  # its next turn comes
            events_log.warning("relay.not_pruned", error=str(error))
    return pruned


async def keep_relaying(relay: Relay, ear: Ear, settings: Settings, shown: Background) -> None:
    """Shake hands, then relay until an error; whoever runs this runs it again."""
    last = await relay.handshake()
    shown.recovered()
    pause_s = settings.poll_min_s
    while True:
        before, last = last, await relay.relay(last)
        if last > before:
            pause_s = settings.poll_min_s
            continue
        if await ear.hear(timeout_s=pause_s):
            continue
        if await relay.stream.last_sequence() != last:  # nobody would notice before the next event
            raise WrongLastSequence(f"{relay.log}: the stream does not end at {last} any more")
        pause_s = min(settings.poll_max_s, pause_s * 2)


async def _look(
    logs: Mapping[str, tuple[Outbox, LeaseStore]],
) -> tuple[dict[str, Lag], list[str]]:
    """Return how far behind each log is and which have no leader, from their tables; show it."""
    lag: dict[str, Lag] = {}
    leaderless: list[str] = []
    for log, (outbox, leases) in logs.items():
        status = await outbox.status()
        lag[f"relay.{log}"] = Lag(status.waiting, status.oldest_waiting_s)
        LOG_LAST_OFFSET.labels(log).set(status.offset)
        LOG_WAITING_EVENTS.labels(log).set(status.waiting)
        LOG_OLDEST_WAITING_SECONDS.labels(log).set(status.oldest_waiting_s)
        leader = led(await leases.leases(), relay_lease(log))
        LOG_LEADER.labels(log).set(leader.holder is not None)
        if leader.is_missed:
            leaderless.append(f"the log {log!r} has had no leader for {leader.since_s:.0f} s")
    return lag, leaderless


def _relay(
    source: tuple[str, Outbox], nats: Client, settings: Settings, leadership: Leadership, ear: Ear
) -> Relay:
    log, outbox = source
    return Relay(
        log,
        outbox,
        TracedLogStream(JetStreamLog(nats, log)),
        cloud_events(log),
        on_handshake=lambda case: RELAY_HANDSHAKES.labels(log, case).inc(),
        on_recorded=RELAY_EVENTS.labels(log).inc,
        leads=lambda: leadership.trusted,
        lease=lambda: leadership.won,
        rang=ear.rang,
        batch_messages_max=settings.batch_messages_max,
    )
