"""What people see of a service: spans, counts and durations, wrapped around handlers and stores."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import structlog

from flotilla.bus import Answer, Handler, Request
from flotilla.errors import Corrupt, KernelError
from flotilla.metrics import (
    COMMAND_DURATION_SECONDS,
    COMMANDS,
    COMMIT_BATCH_UNITS,
    COMMIT_UNITS,
)
from flotilla.store import EventStore, Outcome, Unit
from flotilla.telemetry import current_traceparent, span

log = structlog.get_logger()


def observed(handler: Handler) -> Handler:
    """Return the same handler, seen: one span, one count, one duration for each request.

    The request that the handler gets carries the span's own trace context, so that events point to it.
    """

    async def handle(request: Request) -> Answer:
        context = request.context
        with (
            structlog.contextvars.bound_contextvars(
                tenant=context.tenant, correlation_id=context.correlation_id
            ),
            span(request.subject, traceparent=context.traceparent, tenant=context.tenant),
            COMMAND_DURATION_SECONDS.labels(request.subject).time(),
        ):
            result = "ok"
            try:
                answer = await handler(_traced(request))
                result = "replayed" if answer.replayed else "ok"
            except KernelError as error:
                result = error.family
                if isinstance(error, Corrupt):
                    log.critical("handler.corrupt", subject=request.subject, error=str(error))
                raise
            except BaseException:
                result = "failed"
                raise
            else:
                return answer
            finally:
                COMMANDS.labels(request.subject, result).inc()

    return handle


def _traced(request: Request) -> Request:
    traceparent = current_traceparent() or request.context.traceparent
    return replace(request, context=replace(request.context, traceparent=traceparent))


class ObservedStore:
    """An `EventStore` whose commits are counted by outcome, and measured by size."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self.load = store.load
        self.read = store.read
        self.forget_expired = store.forget_expired

    async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        """Commit, and count."""
        outcomes = await self._store.commit(units)
        COMMIT_BATCH_UNITS.observe(len(units))
        for kind, count in Counter(type(outcome) for outcome in outcomes).items():
            COMMIT_UNITS.labels(kind.__name__.lower()).inc(count)
        return outcomes
