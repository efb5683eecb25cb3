"""A projection that runs: following its log, saying how it is, taking orders about what is parked."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from dataclasses import dataclass

from nats.aio.client import Client

from flotilla import (
    Answer,
    Clock,
    Health,
    Lag,
    LeaseStatus,
    LogEvent,
    Projection,
    Rejected,
    Request,
    ViewStore,
)
from flotilla.background import Background
from flotilla.commands import parse
from flotilla.heartbeat import Heartbeat, beat
from flotilla.lag import projection_lag
from flotilla.metrics import (
    PROJECTION_EVENTS,
    PROJECTION_LAG_EVENTS,
    PROJECTION_LAG_SECONDS,
    PROJECTION_OWNER,
    PROJECTION_PARKED_EVENTS,
    PROJECTION_PARKED_OLDEST_SECONDS,
)
from flotilla.parked import parked_counts
from flotilla.parking import Parking
from flotilla.partition import Partition, whole_name
from flotilla.replica import led
from flotilla.telemetry import mark
from flotilla_contracts.parked import RetriedReply, RetryParked
from svc_projector.log_reader import LogReader
from svc_projector.projector import Projector

NOBODY = Lag(0, 0.0)


@dataclass(frozen=True, slots=True)
class RunningProjection:
    """A projector, the work that drives it, and the lease without which it stands by."""

    projector: Projector
    work: Background
    lease: str
    leads: AbstractSet[str]
    """The leases that this replica has."""

    @property
    def is_owned(self) -> bool:
        """Whether this replica is the one that folds it."""
        return self.lease in self.leads


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


def applied(projection: Projection, batch: Sequence[LogEvent]) -> None:
    """Count what a projection has folded, and leave a span in the traces of it."""
    name = whole_name(projection.name)
    own = [e for e in batch if not isinstance(projection, Partition) or projection.owns(e)]
    PROJECTION_EVENTS.labels(name).inc(len(own))
    mark(f"project.{name}", (event.traceparent for event in own))


async def health_of(
    running: Iterable[RunningProjection],
    views: ViewStore,
    leases: Sequence[LeaseStatus],
    clock: Clock,
) -> Health:
    """Return what is missing, and how far each projection is behind: `projection.<name>`.

    A projection in partitions is as far behind as the slowest, and owned when all of them are.
    Whoever stands by is as well as the one who owns: it answers from the same view.
    Parked events are told as `parked.<name>`, and do not make it unready: it answers, and one event
    must not take every tenant's reads away. `flotilla status` and the metrics alarm.
    """
    missing: list[str] = []
    behind: dict[str, Lag] = {}
    owned: dict[str, bool] = {}
    for one in running:
        part = one.projector.projection
        name = whole_name(part.name)
        checkpoint = await views.checkpoint(part.name, part.log)
        lag = await projection_lag(one.projector.source, checkpoint.offset, clock)
        slowest = behind.get(name, NOBODY)
        behind[name] = Lag(max(lag.events, slowest.events), max(lag.seconds, slowest.seconds))
        if one.work.trouble:
            missing.append(one.work.trouble)
        owner = led(leases, one.lease)
        owned[name] = owned.get(name, True) and owner.holder is not None
        if owner.is_missed:
            missing.append(f"{part.name} has had no owner for {owner.since_s:.0f} s")
        if lag.seconds > part.staleness_budget_s:
            missing.append(
                f"{part.name} is {lag.seconds:.1f} s behind; {part.staleness_budget_s} allowed"
            )
    parked = await _parked(views, clock)
    lags = {f"projection.{name}": lag for name, lag in behind.items()}
    for name, lag in behind.items():
        PROJECTION_OWNER.labels(name).set(owned[name])
        PROJECTION_LAG_EVENTS.labels(name).set(lag.events)
        PROJECTION_LAG_SECONDS.labels(name).set(lag.seconds)
        aside = parked.get(name, NOBODY)
        PROJECTION_PARKED_EVENTS.labels(name).set(aside.events)
        PROJECTION_PARKED_OLDEST_SECONDS.labels(name).set(aside.seconds)
        if aside.events:
            lags[f"parked.{name}"] = aside
    return Health(tuple(missing), lags)


async def _parked(views: ViewStore, clock: Clock) -> dict[str, Lag]:
    """Return how many events of each projection are parked, and for how long the oldest."""
    now, parked = clock.now(), dict[str, Lag]()
    for c in await parked_counts(views):
        before = parked.get(whole_name(c.projection), NOBODY)
        age_s = (now - c.oldest_parked_at).total_seconds()
        parked[whole_name(c.projection)] = Lag(before.events + c.events, max(before.seconds, age_s))
    return parked


async def show_life(running: Iterable[RunningProjection], views: ViewStore, clock: Clock) -> None:
    """Leave a sign of life of every projection that is owned here, or troubled, where its view is."""
    now = clock.now()
    beats = [
        Heartbeat(p.name, p.log, p.staleness_budget_s, now, one.work.trouble or "")
        for one in running
        for p in [one.projector.projection]
        if one.is_owned or one.work.trouble
    ]
    await beat(views, beats)


async def answer_retry(parkings: Mapping[str, Parking], request: Request) -> Answer:
    """Fold what is parked of a key again, and answer with how many events that were.

    Raises `Rejected` when there is no such projection or key, or an event of it fails again.
    """
    wanted = parse(RetryParked, request)
    if wanted.projection not in parkings:
        known = ", ".join(sorted(parkings))
        raise Rejected(
            f"no projection {wanted.projection!r} runs here: {known}", code="projection-unknown"
        )
    events = await parkings[wanted.projection].retry(wanted.key)
    return Answer(RetriedReply(events=events).model_dump_json().encode())
