"""What services promise, as ratios that Prometheus can compute: how much went wrong, of how much.

    availability  requests that failed, of all            (whoever is asked: over HTTP, or the bus)
    latency       requests slower than the promise, of all; 1 % may be: it is the 99th percentile
    freshness     time in which a log or a projection was later than it may be, of all time

What is late is looked at where it is stored, so that a process that does nothing looks as late as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from flotilla_platform.generating.running import logs
from flotilla_platform.model import Platform, ProjectionSpec, Service

API = 'route=~"/v1/.+"'
"""Pages for operators and what is no route promise nothing."""
ANSWERED = "ok|replayed|rejected|conflict"
"""Results that are answers; the others are that there was none."""
LATENCY_RATIO = 0.01

Indicator = Literal["availability", "latency", "freshness"]


@dataclass(frozen=True, slots=True)
class Late:
    """A log or a projection that may be late for so long."""

    kind: Literal["log", "projection"]
    name: str
    budget_s: float

    @property
    def record(self) -> str:
        """Return the name of the series that is 1 while it is late, else 0."""
        return f"flotilla:{self.kind}_late:bool"

    @property
    def lag_metric(self) -> str:
        """Return the metric that says how late it is, in seconds."""
        of = {"log": "log_oldest_waiting", "projection": "projection_lag"}
        return f"flotilla_{of[self.kind]}_seconds"


@dataclass(frozen=True, slots=True)
class Objective:
    """One promise of a service: which ratio of errors it may have over 30 days."""

    service: str
    slo: Indicator
    budget_ratio: float
    errors: str
    """PromQL of the ratio of errors in `{window}`."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def errors_in(self, window: str) -> str:
        """Return PromQL of the ratio of errors within a window, as `5m`."""
        return self.errors.replace("{window}", window)


def objectives(platform: Platform) -> Iterator[Objective]:
    """Yield every promise of every service."""
    for service in platform.services.values():
        if service.slo is None:
            continue
        budget = round(1 - service.slo.availability_percent / 100, 9)
        names = {"service": service.name} | ({"owner": service.owner} if service.owner else {})
        if found := _requests(service):
            total, failed, buckets = found
            yield Objective(service.name, "availability", budget, _failed(total, failed), names)
            if limit_ms := service.slo.latency_p99_ms:
                slow = _slow(buckets, limit_ms)
                yield Objective(service.name, "latency", LATENCY_RATIO, slow, names)
        for late in lates(platform, service):
            yield Objective(
                service.name,
                "freshness",
                budget,
                f'avg_over_time({late.record}{{{late.kind}="{late.name}"}}[{{window}}])',
                names | {late.kind: late.name},
            )


def lates(platform: Platform, service: Service) -> Iterator[Late]:
    """Yield what a service has to keep up with: its projections, or all logs when it has none."""
    for projection in service.projections:
        yield Late("projection", projection.name, _budget_s(projection))
    if service.follows_logs and not service.projections and service.staleness_ms:
        for log in logs(platform):
            yield Late("log", str(log.log), service.staleness_ms / 1000)


def le(limit_ms: int) -> str:
    """Return a matcher of the bucket of a histogram; Prometheus 3 writes `1.0` where 2 had `1`."""
    seconds = limit_ms / 1000
    return f'le=~"{seconds:g}(\\\\.0)?"' if seconds.is_integer() else f'le="{seconds:g}"'


def _budget_s(projection: ProjectionSpec) -> float:
    return projection.staleness_budget_ms / 1000


def _requests(service: Service) -> tuple[str, str, str] | None:
    """Return selectors of a service's requests, of those that failed, and of its durations."""
    if "http" in service.needs:
        return (
            f"flotilla_http_requests_total{{{API}}}",
            f'flotilla_http_requests_total{{{API},status=~"5.."}}',
            f"flotilla_http_request_duration_seconds{{{API}}}",
        )
    if not (service.commands or service.queries):
        return None
    subject = f'subject=~"(cmd|qry)[.]{service.name}[.].+"'
    return (
        f"flotilla_commands_total{{{subject}}}",
        f'flotilla_commands_total{{{subject},result!~"{ANSWERED}"}}',
        f"flotilla_command_duration_seconds{{{subject}}}",
    )


def _failed(total: str, failed: str) -> str:
    """Return the ratio; 0 and not nothing where nothing has ever failed."""
    every = f"sum(rate({total}[{{window}}]))"
    return f"(sum(rate({failed}[{{window}}])) or 0 * {every}) / {every}"


def _slow(durations: str, limit_ms: int) -> str:
    metric, _, matchers = durations.partition("{")
    fast = f"{metric}_bucket{{{matchers[:-1]},{le(limit_ms)}}}"
    every = f"{metric}_count{{{matchers}"
    return f"1 - sum(rate({fast}[{{window}}])) / sum(rate({every}[{{window}}]))"
