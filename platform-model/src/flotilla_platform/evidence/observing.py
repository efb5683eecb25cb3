"""observability: whether it works can be seen, and whoever is woken knows what to do.

Every service has an SLO and answers how it is; every deployable is asked for its health and readiness
where it is deployed; every metric that an alert or a dashboard names is one of the code, and every alert
leads to a runbook that is there. That staleness budgets are those of the code is in `model-to-code`.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flotilla_platform.evidence.depending import unreadable
from flotilla_platform.evidence.graph import package_of
from flotilla_platform.evidence.source import Module, modules_of
from flotilla_platform.evidence.tracing import name_of
from flotilla_platform.generating import DEPLOY
from flotilla_platform.loading import (
    Document,
    Mistake,
    ModelInvalid,
    Position,
    read_documents,
    suggest,
)
from flotilla_platform.model import Platform

KERNEL = "flotilla"
_METRIC = re.compile(r"\bflotilla_[a-z0-9_]+(?![a-z0-9_:(])")
_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "Counter": ("_total", "_created"),
    "Gauge": ("",),
    "Histogram": ("_bucket", "_sum", "_count", "_created"),
    "Summary": ("", "_sum", "_count", "_created"),
    "Info": ("_info",),
}
_RUNBOOK = re.compile(r"(docs/runbooks/[\w.-]+\.md)(?:#([\w-]+))?")


def check_observability(platform: Platform) -> list[Mistake]:
    """Return what of a fleet nobody would see, or be told in vain."""
    deploy = platform.root.parent / DEPLOY
    try:
        metrics = _metrics(platform)
    except SyntaxError as error:
        return [unreadable(error)]
    found = list(_check_slos(platform))
    for file in sorted(deploy.glob("prometheus/**/*.y*ml")):
        found += _check_rules(file, metrics, deploy.parent)
    for file in sorted(deploy.glob("grafana/**/*.json")):
        found += _check_named(file, metrics)
    for file in sorted(deploy.glob("compose/*.yaml")):
        found += _check_compose(platform, file)
    for file in sorted(deploy.glob("k3s/base/**/*.yaml")):
        found += _check_kubernetes(file)
    return found


def _check_slos(platform: Platform) -> Iterator[Mistake]:
    for name, service in platform.services.items():
        if service.slo is None:
            yield Mistake(
                platform.at("service", name, "name"),
                f"nobody says what the users of {name!r} may expect",
                "write `slo: { availability_percent: 99.9 }`",
            )
        elif service.slo.staleness_ms is not None and service.projections:
            latest = max(one.staleness_budget_ms for one in service.projections)
            if service.slo.staleness_ms < latest:
                yield Mistake(
                    platform.at("service", name, "slo", "staleness_ms"),
                    f"a projection of {name!r} may be {latest} ms late, which is more",
                    f"write `staleness_ms: {latest}`, or lower that budget",
                )


def _metrics(platform: Platform) -> set[str]:
    """Return every name under which the code of a fleet shows a metric."""
    packages = {KERNEL, "flotilla_platform", *map(package_of, platform.services.values())}
    return {
        name
        for package in packages
        for module in (modules_of(package) or {}).values()
        for name in _of_module(module)
    }


def _of_module(module: Module) -> Iterator[str]:
    if not any(name.startswith("prometheus_client") for name, _ in module.imports):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = str(node.args[0].value)
            for suffix in _SUFFIXES.get(name_of(node.func).removesuffix("MetricFamily"), ()):
                yield name.removesuffix("_total") + suffix


def _check_rules(file: Path, metrics: set[str], root: Path) -> Iterator[Mistake]:
    try:
        documents = read_documents(file)
    except ModelInvalid as invalid:
        yield from invalid.mistakes
        return
    recorded = {str(rule["record"]) for d in documents for _, rule in _rules(d) if "record" in rule}
    for document in documents:
        for steps, rule in _rules(document):
            where = document.at(*steps, "expr")
            yield from _unknown(where, str(rule.get("expr", "")), metrics | recorded)
            if "alert" in rule:
                yield from _check_alert(document, steps, rule, root)


def _rules(document: Document) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    content = document.content if isinstance(document.content, dict) else {}
    groups = content.get("groups") or ()
    for number, group in enumerate(groups):
        for index, rule in enumerate(group.get("rules") or ()):
            yield ("groups", number, "rules", index), rule


def _check_alert(
    document: Document, steps: tuple[str | int, ...], rule: Mapping[str, Any], root: Path
) -> Iterator[Mistake]:
    alert, annotations = rule["alert"], rule.get("annotations") or {}
    key = next((key for key in annotations if key.startswith("runbook")), None)
    if key is None:
        where = document.at_key(*steps, "alert")
        wrong = f"the alert {alert!r} does not say what to do"
        yield Mistake(where, wrong, "write `runbook: docs/runbooks/….md` in its annotations")
        return
    where = document.at(*steps, "annotations", key)
    link = _RUNBOOK.search(str(annotations[key]))
    known = sorted(f"docs/runbooks/{one.name}" for one in (root / "docs/runbooks").glob("*.md"))
    if link is None or not (root / link[1]).is_file():
        said = link[1] if link else str(annotations[key])
        yield Mistake(where, f"there is no runbook {said!r}", suggest(said, known))
    elif link[2]:
        anchors = sorted(_anchors((root / link[1]).read_text(encoding="utf-8").splitlines()))
        if link[2] not in anchors:
            wrong = f"{link[1]} has no section #{link[2]}"
            yield Mistake(where, wrong, suggest(link[2], anchors))


def _anchors(lines: Iterable[str]) -> set[str]:
    """Return the anchors of a Markdown file, as they are made from its headings."""
    heads = (line.lstrip("#").strip().lower() for line in lines if line.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}


def _check_named(file: Path, metrics: set[str]) -> Iterator[Mistake]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if '"expr"' in line or "label_values(" in line:
            yield from _unknown(Position(file, number, line.index('"') + 1), line, metrics)


def _unknown(where: Position, expression: str, metrics: set[str]) -> Iterator[Mistake]:
    for name in sorted(set(_METRIC.findall(expression)) - metrics):
        wrong = f"nothing in the code shows a metric {name!r}"
        yield Mistake(where, wrong, suggest(name, sorted(metrics)))


def _check_compose(platform: Platform, file: Path) -> Iterator[Mistake]:
    try:
        [document] = read_documents(file)
    except (ModelInvalid, ValueError):
        return  # `security` says what is wrong with it
    content = document.content if isinstance(document.content, dict) else {}
    for name, service in (content.get("services") or {}).items():
        if name in platform.deployables and "healthcheck" not in service:
            where = document.at_key("services", name)
            cure = "add a healthcheck that asks /readyz on its admin port"
            yield Mistake(where, f"nobody asks {name!r} how it is", cure)


def _check_kubernetes(file: Path) -> Iterator[Mistake]:
    try:
        documents = read_documents(file)
    except ModelInvalid:
        return  # as above
    steps = ("spec", "template", "spec", "containers")
    for document in documents:
        content: Any = document.content
        if not isinstance(content, dict) or content.get("kind") != "Deployment":
            continue
        for step in steps:
            content = content.get(step) if isinstance(content, dict) else None
        for index, one in enumerate(content or ()):
            for key, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
                if key not in one:
                    where = document.at(*steps, index)
                    cure = f"write `{key}: {{ httpGet: {{ path: {path}, port: admin }} }}`"
                    yield Mistake(where, f"the container {one.get('name')!r} has no {key}", cure)
