"""Alerts: what somebody has to do something about. Each has a section in the runbook.

`critical` wakes somebody, `warning` waits until morning. Whatever cures itself within its `for` says
nothing: leases change hands within 5 s, a process that was replaced is back within a minute.
"""

from collections.abc import Iterator
from typing import Any, Literal

from flotilla_platform.generating.objectives import Late, lates
from flotilla_platform.model import Layout, Platform, Service

RUNBOOK = "docs/runbooks/observability.md"
BURNS: tuple[tuple[str, str, tuple[tuple[str, str, float], ...]], ...] = (
    ("ErrorBudgetBurnsFast", "critical", (("1h", "5m", 14.4), ("6h", "30m", 6))),
    ("ErrorBudgetBurns", "warning", (("1d", "2h", 3), ("3d", "6h", 1))),
)
"""By how much faster than evenly over 30 days, within a long window and, still, in a short one: 2 % of
the budget within 1 h, 5 % within 6 h; 10 % within 1 d, 10 % within 3 d (Google, The Site Reliability
Workbook, chapter 5)."""
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
PARKED_OLDEST_S_MAX = 24 * 60 * 60
RESTARTS_MAX = 3
CONNECTIONS_RATIO_MAX = 0.8

type Rule = dict[str, Any]
Severity = Literal["critical", "warning"]


def alert(name: str, expr: str, wait: str, severity: str, summary: str, **labels: str) -> Rule:
    """Return an alerting rule whose section of the runbook is named after it."""
    return {
        "alert": name,
        "expr": expr,
        "for": wait,
        "labels": {"severity": severity, **labels},
        "annotations": {"summary": summary, "runbook": f"{RUNBOOK}#{name.lower()}"},
    }


def burns() -> Iterator[Rule]:
    """Yield the alerts of all objectives: their budgets are series of the same labels."""
    for name, severity, windows in BURNS:
        yield alert(
            name,
            "\nor\n".join(_burning(*window) for window in windows),
            "2m",
            severity,
            "{{ $labels.service }} breaks its promise of {{ $labels.slo }}:"
            " {{ $value | humanizePercentage }} of it went wrong.",
        )


def _burning(long: str, short: str, times: float) -> str:
    budget = f"on (service, slo) group_left () ({times:g} * flotilla:slo_budget:ratio)"
    both = (f"flotilla:slo_errors:ratio_rate{window} > {budget}" for window in (long, short))
    return "(" + " and ".join(both) + ")"


def followers(platform: Platform) -> Iterator[Rule]:
    """Yield the alerts of every service that keeps up with logs."""
    for service in platform.services.values():
        found = list(lates(platform, service))
        if found:
            names = {"service": service.name} | ({"owner": service.owner} if service.owner else {})
            yield from _following(found, names)
            if service.projections:
                yield from _parked(service, names)


def _following(found: list[Late], labels: dict[str, str]) -> Iterator[Rule]:
    kind = found[0].kind
    title, of = kind.capitalize(), f"{{{kind}=~{_any(one.name for one in found)}}}"
    which = f"{title} {{{{ $labels.{kind} }}}}"
    waiting, done, led, missing = {
        "log": ("log_waiting_events", "relay_events_total", "log_leader", "Leader"),
        "projection": (
            "projection_lag_events",
            "projection_events_total",
            "projection_owner",
            "Owner",
        ),
    }[kind]
    behind = f"max by ({kind}) (flotilla_{waiting}{of})"
    yield alert(
        f"{title}Late",
        f"max by ({kind}) ({found[0].lag_metric}{of})"
        f" > on ({kind}) group_left () flotilla:{kind}_budget:seconds",
        "2m",
        "warning",
        f"{which} is {{{{ $value | humanizeDuration }}}} late, longer than it may be.",
        **labels,
    )
    yield alert(
        f"{title}FallsBehind",
        f"min_over_time({behind}[15m:1m]) > 0"
        f" and max by ({kind}) (deriv(flotilla_{waiting}{of}[15m])) > 0",
        "15m",
        "warning",
        f"{which} has {{{{ $value }}}} events to do at least, and gets ever more.",
        **labels,
    )
    yield alert(
        f"{title}Stuck",
        f"min_over_time({behind}[5m:1m]) > 0"
        f" unless on ({kind}) (sum by ({kind}) (increase(flotilla_{done}{of}[5m])) > 0)",
        "2m",
        "critical",
        f"{which} has {{{{ $value }}}} events to do and does none.",
        **labels,
    )
    yield alert(
        f"{title}Without{missing}",
        f"max by ({kind}) (flotilla_{led}{of}) == 0",
        "1m",
        "critical",
        f"{which}: no replica works on it.",
        **labels,
    )


def _parked(service: Service, labels: dict[str, str]) -> Iterator[Rule]:
    of = f"{{projection=~{_any(one.name for one in service.projections)}}}"
    which = "Projection {{ $labels.projection }}"
    yield alert(
        "EventsParked",
        f"max by (projection) (flotilla_projection_parked_events{of}) > 0",
        "0m",
        "warning",
        f"{which} could not fold {{{{ $value }}}} events; their keys wait for somebody.",
        **labels,
    )
    yield alert(
        "EventsParkedLong",
        f"max by (projection) (flotilla_projection_parked_oldest_seconds{of}) > {PARKED_OLDEST_S_MAX}",
        "0m",
        "critical",
        f"{which}: an event has been parked for {{{{ $value | humanizeDuration }}}}.",
        **labels,
    )


def processes() -> Iterator[Rule]:
    """Yield the alerts of every process of the fleet."""
    yield alert(
        "NotReady",
        "min by (job, instance) (flotilla_ready) == 0",
        "2m",
        "warning",
        "{{ $labels.job }} at {{ $labels.instance }} lacks something that it needs.",
    )
    yield alert(
        "CrashLoop",
        f'changes(process_start_time_seconds{{fleet="flotilla"}}[15m]) > {RESTARTS_MAX}',
        "0m",
        "critical",
        "{{ $labels.job }} at {{ $labels.instance }} started {{ $value }} times within 15 min.",
    )
    yield alert(
        "DataCorrupt",
        'sum by (subject) (increase(flotilla_commands_total{result="corrupt"}[15m])) > 0',
        "0m",
        "critical",
        "{{ $labels.subject }} met data that cannot be right, and refused to go on with it.",
    )


def placed(layout: Layout) -> Iterator[Rule]:
    """Yield the alerts that depend on where deployables run: are they there, do they fit?"""
    for one in layout.deployables:
        there = f'count(up{{fleet="flotilla",job="{one.name}"}} == 1)'
        yield alert(
            "NobodyServes",
            f'absent(up{{fleet="flotilla",job="{one.name}"}} == 1)',
            "1m",
            "critical",
            f"No process of {one.name} answers.",
            deployable=one.name,
        )
        if one.replicas > 1:
            yield alert(
                "ReplicasMissing",
                f"{there} < {one.replicas}",
                "5m",
                "warning",
                f"{{{{ $value }}}} of {one.replicas} processes of {one.name} answer.",
                deployable=one.name,
            )
    if connections := layout.resources.store.limits.max_connections:
        yield alert(
            "StoreConnectionsNearLimit",
            f"sum(flotilla_store_connections) > {CONNECTIONS_RATIO_MAX:g} * {connections}",
            "5m",
            "warning",
            f"{{{{ $value }}}} of the {connections} connections to PostgreSQL are open.",
        )


def _any(names: Iterator[str]) -> str:
    return f'"{"|".join(names)}"'
