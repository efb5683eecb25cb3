"""A fleet in memory that keeps the contracts: for the tests of this service, and of its clients."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from flotilla.bus import Answer, Bus, Handler, Request
from flotilla.errors import KeyReused, Rejected, Unavailable, VersionMismatch
from flotilla_contracts.counter import (
    ActivityPage,
    CounterPage,
    CounterReply,
    DecrementCounter,
    GetCounter,
    GetCounterHistory,
    GetTenantTotals,
    HistoryPage,
    IncrementCounter,
    ListActivity,
    ListCounters,
    ResetCounter,
    TenantTotals,
)
from flotilla_contracts.health import HealthReply, LagReply, health_subject
from svc_web_bff.testing.tenants import InMemoryTenants

UPPER_BOUND = 10**15
_RECORDED_AT = "2026-11-22T17:04:05.123456Z"


@dataclass(slots=True)
class _Counter:
    value: int = 0
    events: list[tuple[str, dict[str, str | int]]] = field(default_factory=list)


class InMemoryFleet:
    """Answers what the edge asks. `requests` is everything that was asked."""

    def __init__(self) -> None:
        self.tenants = InMemoryTenants()
        self.requests: list[Request] = []
        self.failure: Exception | None = None
        """Raised instead of the next answers, while it is set."""
        self._counters: dict[tuple[str, str], _Counter] = {}
        self._replies: dict[tuple[str, str], tuple[bytes, bytes]] = {}

    async def serve(self, bus: Bus) -> None:
        """Answer on `bus`."""
        handlers: dict[str, Callable[[Request], Answer]] = {
            IncrementCounter.subject: self._command,
            DecrementCounter.subject: self._command,
            ResetCounter.subject: self._command,
            GetCounter.subject: self._get,
            ListCounters.subject: self._list,
            GetCounterHistory.subject: self._history,
            GetTenantTotals.subject: self._totals,
            ListActivity.subject: self._activity,
            health_subject("counter"): self._health,
            **self.tenants.handlers(),
        }
        for subject, handler in handlers.items():
            await bus.serve(subject, self._watched(handler))

    def _watched(self, handler: Callable[[Request], Answer]) -> Handler:
        async def answer(request: Request) -> Answer:
            self.requests.append(request)
            if self.failure is not None:
                raise self.failure
            return handler(request)

        return answer

    def _command(self, request: Request) -> Answer:
        context = request.context
        claim = (context.tenant, context.idempotency_key or "")
        asked = request.subject.encode() + request.body
        if claim in self._replies:
            known, reply = self._replies[claim]
            if known != asked:
                raise KeyReused("this key was used for something else")
            return Answer(reply, replayed=True)
        counter = self._decide(request)
        fields = json.loads(request.body)
        version = len(counter.events)
        # White space, so that a caller can see whether its bytes are passed on as they are.
        reply = json.dumps(
            {"counter_id": fields["counter_id"], "value": counter.value, "version": version}
        ).encode()
        self._replies[claim] = (asked, reply)
        return Answer(reply, version=version)

    def _decide(self, request: Request) -> _Counter:
        fields = json.loads(request.body)
        counter_id, by = fields["counter_id"], fields.get("by", 0)
        counter = self._counters.get((request.context.tenant, counter_id), _Counter())
        expected = request.context.expected_version
        if expected is not None and expected != len(counter.events):
            raise VersionMismatch(f"the counter is at version {len(counter.events)}")
        value = {"increment": counter.value + by, "decrement": counter.value - by, "reset": 0}[
            request.subject.rsplit(".", 1)[1]
        ]
        if value > UPPER_BOUND:
            raise Rejected("it would pass its upper bound", code="counter-upper-bound-passed")
        if value < -UPPER_BOUND:
            raise Rejected("it would pass its lower bound", code="counter-lower-bound-passed")
        self._counters[request.context.tenant, counter_id] = counter
        if not counter.events:
            counter.events.append(("counter.opened.v1", {"counter_id": counter_id}))
        if value != counter.value:
            changed: dict[str, str | int] = {"counter_id": counter_id, "by": by, "value": value}
            counter.events.append(("counter.incremented.v1", changed))
        counter.value = value
        return counter

    def _get(self, request: Request) -> Answer:
        self._wait_for_token(request)
        counter_id = GetCounter.model_validate_json(request.body).counter_id
        counter = self._known(request, counter_id)
        reply = CounterReply(
            counter_id=counter_id, value=counter.value, version=len(counter.events)
        )
        return Answer(reply.model_dump_json().encode())

    def _list(self, request: Request) -> Answer:
        self._wait_for_token(request)
        query = ListCounters.model_validate_json(request.body)
        found = [
            (key, counter)
            for (tenant, key), counter in sorted(self._counters.items(), key=lambda item: item[0])
            if tenant == request.context.tenant and (query.after is None or key > query.after)
        ]
        items = tuple(
            CounterReply(counter_id=key, value=counter.value, version=len(counter.events))
            for key, counter in found[: query.limit]
        )
        more = len(found) > query.limit
        page = CounterPage(items=items, next_cursor=items[-1].counter_id if more else None)
        return Answer(page.model_dump_json().encode())

    def _history(self, request: Request) -> Answer:
        query = GetCounterHistory.model_validate_json(request.body)
        events = self._known(request, query.counter_id).events
        items = [
            {"version": version, "type": kind, "recorded_at": _RECORDED_AT, "data": data}
            for version, (kind, data) in enumerate(events, 1)
            if version > query.after
        ]
        more = len(items) > query.limit
        page = {
            "items": items[: query.limit],
            "next_after": items[query.limit - 1]["version"] if more else None,
        }
        return Answer(HistoryPage.model_validate_json(json.dumps(page)).model_dump_json().encode())

    def _totals(self, request: Request) -> Answer:
        mine = [c for (tenant, _), c in self._counters.items() if tenant == request.context.tenant]
        reply = TenantTotals(
            counters=len(mine),
            value_sum=sum(counter.value for counter in mine),
            events=sum(len(counter.events) for counter in mine),
        )
        return Answer(reply.model_dump_json().encode())

    def _activity(self, request: Request) -> Answer:
        """Here one counter's events all come after the other's: the order of a log is not known."""
        query = ListActivity.model_validate_json(request.body)
        events = [
            {"counter_id": key, "type": kind, "recorded_at": _RECORDED_AT}
            for (tenant, key), counter in self._counters.items()
            for kind, _ in counter.events
            if tenant == request.context.tenant
        ]
        items = [
            {"offset": offset, **entry}
            for offset, entry in reversed(list(enumerate(events, 1)))
            if query.before is None or offset < query.before
        ]
        more = len(items) > query.limit
        page = {
            "items": items[: query.limit],
            "next_before": items[query.limit - 1]["offset"] if more else None,
        }
        return Answer(ActivityPage.model_validate_json(json.dumps(page)).model_dump_json().encode())

    def _health(self, _request: Request) -> Answer:
        reply = HealthReply(
            service="counter", ready=True, lag={"outbox": LagReply(events=3, seconds=0.5)}
        )
        return Answer(reply.model_dump_json().encode())

    def _known(self, request: Request, counter_id: str) -> _Counter:
        counter = self._counters.get((request.context.tenant, counter_id))
        if counter is None:
            raise Rejected(f"there is no counter {counter_id}", code="counter-not-found")
        return counter

    def _wait_for_token(self, request: Request) -> None:
        """Nothing becomes visible later here: what is not there now will not be there in time."""
        if (token := request.context.consistency_token) is None:
            return
        stream, version = token.rsplit("@", 1)
        tenant, _, counter_id = stream.split("/")
        counter = self._counters.get((tenant, counter_id), _Counter())
        if len(counter.events) < int(version):
            raise Unavailable("the view is behind", code="view-behind")
