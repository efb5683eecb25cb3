"""Prometheus: what to scrape in a topology, what to record, what to wake somebody for.

    prometheus/<topology>.yaml          prometheus.yml: where deployables say how they are
    prometheus/rules/slo.yaml           objectives: errors in seven windows, budgets, burn rates
    prometheus/rules/fleet.yaml         logs, projections, processes
    prometheus/rules/<topology>.yaml    are all replicas there, do their connections fit?

Every series has `job`, the deployable, and `fleet="flotilla"`, so that others may share the server.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from flotilla_platform.generating.alerts import WINDOWS, Rule, burns, followers, placed, processes
from flotilla_platform.generating.artifact import Artifacts, Generator
from flotilla_platform.generating.objectives import lates, objectives
from flotilla_platform.generating.writing import yaml_text
from flotilla_platform.model import Layout, Placed, Platform

FLEET = {"fleet": "flotilla"}
SCRAPED_KINDS = frozenset({"processes", "containers"})
"""In Kubernetes, pods are found by what their objects say, and not by a list."""
ALERTMANAGER = {"containers": "alertmanager:9093", "processes": "127.0.0.1:9093"}


def generate(platform: Platform) -> Artifacts:
    """Return rules for every fleet, and rules and a configuration for every topology that is scraped."""
    found = {
        "prometheus/rules/slo.yaml": _rules(_objectives(platform)),
        "prometheus/rules/fleet.yaml": _rules(
            {
                "flotilla-followers": followers(platform),
                "flotilla-processes": processes(),
            }
        ),
    }
    for layout in platform.layouts.values():
        if layout.kind == "one-process":
            continue
        found[f"prometheus/rules/{layout.name}.yaml"] = _rules(
            {f"flotilla-{layout.name}": placed(layout)}
        )
        if layout.kind in SCRAPED_KINDS:
            found[f"prometheus/{layout.name}.yaml"] = yaml_text(_configuration(layout))
    return found


def _rules(groups: dict[str, Iterable[Rule]]) -> str:
    return yaml_text({"groups": [{"name": n, "rules": list(r)} for n, r in groups.items()]})


def _objectives(platform: Platform) -> dict[str, Iterable[Rule]]:
    every = [one for service in platform.services.values() for one in lates(platform, service)]
    late = [
        {
            "record": one.record,
            "expr": f"max by ({one.kind}) ({one.lag_metric}{of}) > bool {one.budget_s:g}",
            "labels": {one.kind: one.name},
        }
        for one in every
        if (of := f'{{{one.kind}="{one.name}"}}')
    ]
    budgets = [
        {
            "record": f"flotilla:{one.kind}_budget:seconds",
            "expr": f"vector({one.budget_s:g})",
            "labels": {one.kind: one.name},
        }
        for one in every
    ]
    return {
        "flotilla-late": late + budgets,
        "flotilla-errors": list(_errors(platform)),
        "flotilla-burns": burns(),
    }


def _errors(platform: Platform) -> Iterator[Rule]:
    promised: dict[tuple[str, str], float] = {}
    for one in objectives(platform):
        promised[one.service, one.slo] = one.budget_ratio
        for window in WINDOWS:
            yield {
                "record": f"flotilla:slo_errors:ratio_rate{window}",
                "expr": one.errors_in(window),
                "labels": {**one.labels, "slo": one.slo},
            }
    for (service, slo), budget in promised.items():
        yield {
            "record": "flotilla:slo_budget:ratio",
            "expr": f"vector({budget:g})",
            "labels": {"service": service, "slo": slo},
        }


def _configuration(layout: Layout) -> dict[str, Any]:
    rules = ("slo", "fleet", layout.name)
    return {
        "global": {
            "scrape_interval": "15s",
            "scrape_timeout": "10s",
            "evaluation_interval": "15s",
            "external_labels": {"topology": layout.name},
        },
        "rule_files": [f"rules/{name}.yaml" for name in rules],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [ALERTMANAGER[layout.kind]]}]}]
        },
        "scrape_configs": [
            _scraped(layout, one)
            for one in layout.deployables
            if layout.kind == "containers" or one.deployable.machine_port
        ],
    }


def _scraped(layout: Layout, one: Placed) -> dict[str, Any]:
    """Return where the replicas of a deployable are found: by their one name, or one by one."""
    job: dict[str, Any] = {"job_name": one.name}
    if layout.kind == "containers":
        relabel = [{"target_label": name, "replacement": value} for name, value in FLEET.items()]
        found = {"names": [one.name], "type": "A", "port": one.deployable.admin_port}
        job |= {"dns_sd_configs": [found | {"refresh_interval": "15s"}], "relabel_configs": relabel}
    else:
        port = one.deployable.machine_port
        targets = [f"127.0.0.{number}:{port}" for number in range(1, one.replicas + 1)]
        job["static_configs"] = [{"targets": targets, "labels": FLEET}]
    return job


PROMETHEUS = Generator("prometheus", "scrapes, records and alerts", ("prometheus",), generate)
