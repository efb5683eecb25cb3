"""What people see of workflows: counts of what happened, durations of steps, and how late all is."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from flotilla import Answer, Clock, Health, Lag, Outbox, Request, ViewStore
from flotilla.background import Background
from flotilla.due import DueStore
from flotilla.errors import KernelError
from flotilla.heartbeat import Heartbeat, beat
from flotilla.lag import projection_lag
from flotilla.lease import LeaseStatus
from flotilla.metrics import (
    WORKFLOW_DUE_SECONDS,
    WORKFLOW_EVENTS,
    WORKFLOW_MOVING,
    WORKFLOW_STEP_DURATION_SECONDS,
)
from flotilla.observe import ObservedStore
from flotilla.replica import led
from flotilla.store import Committed, Outcome, Unit
from flotilla.telemetry import span
from flotilla.workflow.arrivals import NAME as ARRIVALS
from flotilla.workflow.instances import AGGREGATE
from flotilla.workflow.pump import Pump

LEASE = "workflow-arrivals"
STALENESS_BUDGET_S = 10.0
"""How late a workflow may hear of an event."""

Ask = Callable[[Request], Awaitable[Answer]]


class CountedStore(ObservedStore):
    """Counts what happened to workflows, by type, when it is durable."""

    async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        """Commit, and count."""
        outcomes = await super().commit(units)
        happened = Counter(
            event.type
            for unit, outcome in zip(units, outcomes, strict=True)
            if isinstance(outcome, Committed)
            for append in unit.appends
            for event in append.events
        )
        for kind, count in happened.items():
            WORKFLOW_EVENTS.labels(kind).inc(count)
        return outcomes


def asking(ask: Ask, clock: Clock) -> Ask:
    """Return the same way to ask, seen: one span and one duration for each try of a step."""

    async def seen(request: Request) -> Answer:
        began_s, outcome = clock.monotonic_s(), "unheard"
        key = request.context.idempotency_key or ""
        try:
            with span("workflow.step", subject=request.subject, key=key):
                answer = await ask(request)
            outcome = "done"
        except KernelError as error:
            outcome = error.family
            raise
        else:
            return answer
        finally:
            WORKFLOW_STEP_DURATION_SECONDS.labels(outcome).observe(clock.monotonic_s() - began_s)

    return seen


@dataclass(frozen=True, slots=True)
class Watch:
    """Looks at everything that workflows depend on."""

    store: DueStore
    views: ViewStore
    logs: Mapping[str, Outbox]
    leases: Callable[[], Awaitable[Sequence[LeaseStatus]]]
    pump: Pump
    work: Sequence[Background]
    clock: Clock
    late_max_s: float

    async def health(self) -> Health:
        """Return what is missing; how late what is due is, and how far events are behind."""
        missing = [work.trouble for work in self.work if work.trouble]
        next_in_s = (await self.store.claim(AGGREGATE, limit=0, lease_s=1.0)).next_in_s
        late_s = max(0.0, -(next_in_s or 0.0))
        WORKFLOW_DUE_SECONDS.set(late_s)
        WORKFLOW_MOVING.set(self.pump.moving)
        if late_s > self.late_max_s:
            missing.append(f"workflows are due for {late_s:.0f} s, and nobody moves them")
        lags = {"workflow.due": Lag(int(late_s > self.late_max_s), late_s)}
        for name, ledger in self.logs.items():
            offset = (await self.views.checkpoint(ARRIVALS, name)).offset
            lags[f"arrivals.{name}"] = lag = await projection_lag(ledger, offset, self.clock)
            if lag.seconds > STALENESS_BUDGET_S:
                missing.append(f"workflows hear of {name} {lag.seconds:.1f} s late")
        owner = led(await self.leases(), LEASE)
        if self.logs and owner.is_missed:
            missing.append(f"nobody has read events for workflows for {owner.since_s:.0f} s")
        return Health(tuple(missing), lags)

    async def show_life(self) -> None:
        """Leave a sign of life of whoever reads events, where its checkpoint is."""
        trouble = next((work.trouble for work in self.work if work.trouble), "") or ""
        now = self.clock.now()
        beats = [Heartbeat(ARRIVALS, log, STALENESS_BUDGET_S, now, trouble) for log in self.logs]
        await beat(self.views, beats)
