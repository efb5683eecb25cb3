"""What people see of a service: spans, counts and durations, wrapped around handlers and stores."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import structlog
from prometheus_client import Counter as Metric
from prometheus_client import Histogram

from flotilla.bus import Answer, Handler, Request
from flotilla.errors import Corrupt, KernelError
from flotilla.metrics import (
    COMMAND_DURATION_SECONDS,
    COMMANDS,
    COMMIT_BATCH_UNITS,
    COMMIT_UNITS,
)
from flotilla.store import EventStore, Outcome, Unit
from flotilla.telemetry import about, current_traceparent, span

log = structlog.get_logger()


def observed(handler: Handler) -> Handler:
    """Return the same handler, seen: one span, one count, one duration for each request.

    The request that the handler gets carries the span's own trace context, so that events point to it.
    """

    async def handle(request: Request) -> Answer:
        context, subject = request.context, request.subject
        began = about.set({"tenant": context.tenant, "correlation_id": context.correlation_id})
        result = "ok"
        try:
            with (
                span(subject, traceparent=context.traceparent, tenant=context.tenant),
                _duration(subject).time(),
            ):
                answer = await handler(_traced(request))
            result = "replayed" if answer.replayed else "ok"
        except KernelError as error:
            result = error.family
            if isinstance(error, Corrupt):
                log.critical("handler.corrupt", subject=subject, error=str(error))
            raise
        except BaseException:
            result = "failed"
            raise
        else:
            return answer
        finally:
            _counted(subject, result).inc()
            about.reset(began)

    return handle


@cache
def _duration(subject: str) -> Histogram:
    """Return the histogram of a subject: looked up once, since every request needs it."""
    return COMMAND_DURATION_SECONDS.labels(subject)


@cache
def _counted(subject: str, result: str) -> Metric:
    return COMMANDS.labels(subject, result)


def _traced(request: Request) -> Request:
    """Return the request with the trace context of the current span, if there is one."""
    traceparent = current_traceparent()
    if traceparent in {None, request.context.traceparent}:
        return request
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
        for kind, count in Counter(map(type, outcomes)).items():
            COMMIT_UNITS.labels(kind.__name__.lower()).inc(count)
        return outcomes
