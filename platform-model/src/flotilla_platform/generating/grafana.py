"""One dashboard of the fleet: what its users see, what logs and projections wait for, what runs.

Its rows come from the model: a row of objectives, one a service that is asked, one a log, one of
projections, one of processes. The provisioning files let Grafana find it and Prometheus by themselves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flotilla_platform.generating.artifact import Artifacts, Generator
from flotilla_platform.generating.objectives import API
from flotilla_platform.generating.running import logs
from flotilla_platform.generating.writing import json_text, yaml_text
from flotilla_platform.model import Platform, Service

WIDTH = 24
HEIGHT = 8
SOURCE = {"type": "prometheus", "uid": "prometheus"}
FOLDER = "/var/lib/grafana/dashboards/flotilla"
QUANTILES = (0.5, 0.99)

type Panel = dict[str, Any]
type Queries = Sequence[tuple[str, str]]
"""PromQL, and how its series are called."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A panel: what it shows, in which unit, and from where on it is too much."""

    title: str
    unit: str
    queries: Queries
    limit: float | None = None
    kind: Literal["timeseries", "stat"] = "timeseries"


def generate(platform: Platform) -> Artifacts:
    """Return the dashboard and how Grafana finds it."""
    source = {
        "name": "Prometheus",
        **SOURCE,
        "access": "proxy",
        "url": "${FLOTILLA_PROMETHEUS_URL}",
        "isDefault": True,
    }
    provider = {
        "name": "flotilla",
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": FOLDER},
    }
    return {
        "grafana/dashboards/flotilla.json": json_text(_dashboard(platform)),
        "grafana/provisioning/dashboards/flotilla.yaml": yaml_text(
            {"apiVersion": 1, "providers": [provider]}
        ),
        "grafana/provisioning/datasources/prometheus.yaml": yaml_text(
            {"apiVersion": 1, "datasources": [source]}
        ),
    }


def _dashboard(platform: Platform) -> dict[str, Any]:
    return {
        "uid": "flotilla",
        "title": "Flotilla",
        "tags": ["flotilla"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "templating": {"list": []},
        "links": [],
        "panels": list(_panels(platform)),
    }


def _panels(platform: Platform) -> Iterator[Panel]:
    top, number = 0, 0
    for title, graphs in _rows(platform):
        number += 1
        at = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        row: Panel = {"id": number, "type": "row", "title": title, "collapsed": False}
        yield row | {"gridPos": at, "panels": []}
        width = WIDTH // len(graphs)
        for column, graph in enumerate(graphs):
            number += 1
            at = {"h": HEIGHT, "w": width, "x": column * width, "y": top + 1}
            yield _panel(number, graph, at)
        top += 1 + HEIGHT


def _rows(platform: Platform) -> Iterator[tuple[str, Sequence[Graph]]]:
    yield "Promises", _promises()
    for service in platform.services.values():
        if "http" in service.needs:
            yield f"{service.name}: HTTP", _http(service)
        elif service.commands or service.queries:
            yield f"{service.name}: commands and queries", _asked(service)
    for service in logs(platform):
        yield f"Log {service.log}", _log(str(service.log))
    if budgets := [
        p.staleness_budget_ms for s in platform.services.values() for p in s.projections
    ]:
        yield "Projections", _projections(min(budgets) / 1000)
    yield "Store and processes", _processes()


def _promises() -> list[Graph]:
    name = "{{service}} {{slo}} {{projection}}{{log}}"
    budget = "on (service, slo) group_left () flotilla:slo_budget:ratio"
    firing = 'count(ALERTS{alertstate="firing"}) or vector(0)'
    return [
        Graph("Firing", "short", [(firing, "alerts")], 1, "stat"),
        *(
            Graph(
                f"Budget burnt: times as fast as may be, {window}",
                "short",
                [(f"flotilla:slo_errors:ratio_rate{window} / {budget}", name)],
                limit,
            )
            for window, limit in (("1h", 14.4), ("3d", 1))
        ),
    ]


def _http(service: Service) -> list[Graph]:
    total = f"flotilla_http_requests_total{{{API}}}"
    failed = f'flotilla_http_requests_total{{{API},status=~"5.."}}'
    durations = f"flotilla_http_request_duration_seconds_bucket{{{API}}}"
    return _red(service, total, failed, durations, ("route", "status"))


def _asked(service: Service) -> list[Graph]:
    subject = f'subject=~"(cmd|qry)[.]{service.name}[.].+"'
    total = f"flotilla_commands_total{{{subject}}}"
    failed = f'flotilla_commands_total{{{subject},result!="ok"}}'
    durations = f"flotilla_command_duration_seconds_bucket{{{subject}}}"
    return _red(service, total, failed, durations, ("subject", "result"))


def _red(
    service: Service, total: str, failed: str, durations: str, by: tuple[str, str]
) -> list[Graph]:
    """Return requests, what was not answered well, durations."""
    what, how = by
    limit_ms = service.slo.latency_p99_ms if service.slo else None
    rate = "sum by ({}) (rate({}[5m]))"
    return [
        Graph("Requests", "reqps", [(rate.format(what, total), f"{{{{{what}}}}}")]),
        Graph(
            "Not answered as asked",
            "reqps",
            [(rate.format(f"{what}, {how}", failed), f"{{{{{what}}}}} {{{{{how}}}}}")],
        ),
        Graph(
            "Duration",
            "s",
            [
                (f"histogram_quantile({q:g}, {rate.format('le', durations)})", f"p{q * 100:g}")
                for q in QUANTILES
            ],
            limit_ms / 1000 if limit_ms else None,
        ),
    ]


def _log(log: str) -> list[Graph]:
    of = f'{{log="{log}"}}'
    return [
        Graph("Head: last offset", "short", [(f"max(flotilla_log_last_offset{of})", log)]),
        Graph("Relayed", "ops", [(f"sum(rate(flotilla_relay_events_total{of}[5m]))", log)]),
        Graph("Waiting", "short", [(f"max(flotilla_log_waiting_events{of})", "events")]),
        Graph("Oldest waiting", "s", [(f"max(flotilla_log_oldest_waiting_seconds{of})", "age")]),
        Graph("Leader", "bool_yes_no", [(f"max(flotilla_log_leader{of})", "led")], None, "stat"),
    ]


def _projections(budget_s: float) -> list[Graph]:
    def each(metric: str) -> Queries:
        return [(f"max by (projection) (flotilla_projection_{metric})", "{{projection}}")]

    folded = "sum by (projection) (rate(flotilla_projection_events_total[5m]))"
    return [
        Graph("Folded", "ops", [(folded, "{{projection}}")]),
        Graph("Behind", "short", each("lag_events")),
        Graph("Late", "s", each("lag_seconds"), budget_s),
        Graph("Parked", "short", each("parked_events"), 1),
        Graph("Oldest parked", "s", each("parked_oldest_seconds"), 24 * 60 * 60),
        Graph("Owner", "bool_yes_no", each("owner"), None, "stat"),
    ]


def _processes() -> list[Graph]:
    ours, process = '{fleet="flotilla"}', "{{job}} {{instance}}"
    connections = "sum by (schema) (flotilla_store_connections)"
    units = "sum by (outcome) (rate(flotilla_commit_units_total[5m]))"
    return [
        Graph("Ready", "bool_yes_no", [("min by (job) (flotilla_ready)", "{{job}}")], None, "stat"),
        Graph("Units committed", "ops", [(units, "{{outcome}}")]),
        Graph("Connections to the store", "short", [(connections, "{{schema}}")]),
        Graph("CPU", "percentunit", [(f"rate(process_cpu_seconds_total{ours}[5m])", process)]),
        Graph("Memory", "bytes", [(f"process_resident_memory_bytes{ours}", process)]),
        Graph("Starts", "short", [(f"changes(process_start_time_seconds{ours}[1h])", process)]),
    ]


def _panel(number: int, graph: Graph, at: dict[str, int]) -> Panel:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if graph.limit is not None:
        steps.append({"color": "red", "value": graph.limit})
    defaults: dict[str, Any] = {
        "unit": graph.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    if graph.kind == "timeseries":
        style = "off" if graph.limit is None else "line"
        defaults |= {"min": 0, "custom": {"thresholdsStyle": {"mode": style}}}
        options = {"legend": {"displayMode": "list", "placement": "bottom"}}
    return {
        "id": number,
        "type": graph.kind,
        "title": graph.title,
        "datasource": SOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expr, "legendFormat": name}
            for i, (expr, name) in enumerate(graph.queries)
        ],
    }


GRAFANA = Generator("grafana", "a dashboard, and how it is found", ("grafana",), generate)
