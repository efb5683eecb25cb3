"""What watches the fleet: alerts on metrics that exist, and pages whose links lead somewhere."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from prometheus_client import REGISTRY
from ruamel.yaml import YAML

import flotilla.metrics
from flotilla import telemetry
from flotilla_platform.generating import artifacts
from flotilla_platform.generating.alerts import BURNS, RUNBOOK, WINDOWS
from flotilla_platform.generating.mermaid import Flowchart, node_id
from flotilla_platform.generating.objectives import le, objectives
from flotilla_platform.reading import read_platform
from svc_web_bff.metrics import DURATION_BUCKETS_S, http_metrics

ROOT = Path(__file__).parents[1]
PLATFORM = read_platform(ROOT / "platform-model")
FILES = artifacts(PLATFORM)
RULE_FILES = sorted(path for path in FILES if path.startswith("prometheus/rules/"))
DASHBOARD: dict[str, Any] = json.loads(FILES["grafana/dashboards/flotilla.json"])
PAGES = sorted(path for path in FILES if path.startswith("catalog/"))
FROM_PROMETHEUS = {"up", "ALERTS", "process_start_time_seconds"}
FROM_THE_CLIENT = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
OF_HISTOGRAMS = ("_bucket", "_count", "_sum")


def yaml_of(path: str) -> Any:
    return YAML(typ="safe", pure=True).load(FILES[path])


def rules() -> Iterator[dict[str, Any]]:
    for path in RULE_FILES:
        for group in yaml_of(path)["groups"]:
            yield from group["rules"]


def queries() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def known_metrics() -> dict[str, set[str]]:
    """Return every metric of the code with its labels."""
    http_metrics()
    assert flotilla.metrics.READY  # what is imported is registered
    found: dict[str, set[str]] = {}
    for metric, names in REGISTRY._collector_to_names.items():
        labels = set(getattr(metric, "_labelnames", ()))
        for name in names:
            found[name] = labels | ({"le"} if name.endswith("_bucket") else set())
    return found


def metrics_of(expr: str) -> set[str]:
    assert promql_parser.parse(expr) is not None
    return set(
        re.findall(r"(?<![\w:])(?:flotilla[_:]|process_|up\b|ALERTS\b)[\w:]*", without_text(expr))
    )


def without_text(expr: str) -> str:
    return re.sub(r'"[^"]*"', '""', expr)


def test_every_query_parses_and_asks_for_metrics_that_the_code_or_a_rule_has() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = known_metrics().keys() | recorded | FROM_PROMETHEUS | FROM_THE_CLIENT
    for expr in queries():
        assert metrics_of(expr) <= known, expr
        assert metrics_of(expr) or expr.startswith("vector("), expr


def test_a_query_selects_by_labels_that_its_metric_has() -> None:
    known = known_metrics()
    for expr in queries():
        for metric, matchers in re.findall(r"(flotilla_\w+)\{([^}]*)\}", expr):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", without_text(matchers)))
            assert labels <= known[metric], expr


def test_what_does_not_parse_is_noticed() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        metrics_of("sum(rate(flotilla_commands_total[5m])")


def test_every_promise_of_the_model_is_recorded_in_every_window_and_has_a_budget() -> None:
    promised = {(one.service, one.slo) for one in objectives(PLATFORM)}
    assert {
        ("web-bff", "availability"),
        ("web-bff", "latency"),
        ("counter", "latency"),
        ("projector", "freshness"),
        ("outbox-relay", "freshness"),
    } <= promised
    found = list(rules())
    for window in WINDOWS:
        of = [r for r in found if r.get("record") == f"flotilla:slo_errors:ratio_rate{window}"]
        assert {(r["labels"]["service"], r["labels"]["slo"]) for r in of} == promised
    budgets = [r for r in found if r.get("record") == "flotilla:slo_budget:ratio"]
    assert {(r["labels"]["service"], r["labels"]["slo"]) for r in budgets} == promised
    assert len(budgets) == len(promised), "a second one makes every alert ambiguous"
    for one in objectives(PLATFORM):
        fastest = max(times for _, _, windows in BURNS for _, _, times in windows)
        assert 0 < fastest * one.budget_ratio < 1, f"{one}: more than everything cannot go wrong"


def test_what_latencies_promise_is_a_limit_of_their_histogram() -> None:
    commands = flotilla.metrics.COMMAND_DURATION_SECONDS._kwargs["buckets"]
    for service in PLATFORM.services.values():
        limit_ms = service.slo and service.slo.latency_p99_ms
        if limit_ms and ("http" in service.needs or service.queries):
            limits = DURATION_BUCKETS_S if "http" in service.needs else commands
            assert limit_ms / 1000 in limits, service.name
    assert le(250) == 'le="0.25"'
    assert re.fullmatch(
        le(2000).removeprefix('le=~"').removesuffix('"').replace("\\\\", "\\"), "2.0"
    )


def test_every_alert_says_how_bad_it_is_what_it_is_and_what_to_do() -> None:
    headings = anchors((ROOT / RUNBOOK).read_text())
    alerts = [rule for rule in rules() if "alert" in rule]
    for rule in alerts:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"].endswith(".")
        file, _, heading = rule["annotations"]["runbook"].partition("#")
        assert (ROOT / file).is_file()
        assert heading in headings, f"{rule['alert']} has no section in {file}"
        assert re.fullmatch(r"\d+[smh]", rule["for"])
    names = {rule["alert"].lower() for rule in alerts}
    said = {
        heading
        for heading in headings
        if re.search(rf"^### {heading}$", runbook_text(), re.IGNORECASE | re.MULTILINE)
    }
    assert said == names, "the runbook tells of alerts that there are, and of no others"


def runbook_text() -> str:
    return (ROOT / RUNBOOK).read_text()


def anchors(markdown: str) -> set[str]:
    """Return what a link may point to, as GitHub makes it of headings."""
    heads = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_promtool_finds_nothing_where_there_is_one() -> None:
    tests = Path(__file__).with_name("alerts.promtool.yaml")
    told = {rule["alert"] for rule in rules() if "alert" in rule}
    text = tests.read_text()
    patterns = re.findall(r'alertname(?:=~?"|: )([\w.+|]+)', text)
    untested = {n for n in told if not any(re.fullmatch(one, n) for one in patterns)}
    assert untested == {"ErrorBudgetBurns"}, (
        "what needs a day to fire is of the same rule as its like"
    )
    if promtool := shutil.which("promtool"):
        files = [ROOT / "deploy" / path for path in RULE_FILES]
        run(promtool, "check", "rules", *files)
        run(promtool, "check", "config", ROOT / "deploy/prometheus/compose.yaml")
        run(promtool, "check", "config", ROOT / "deploy/prometheus/vps.yaml")
        run(promtool, "test", "rules", tests)


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("topology", ["compose", "vps"])
def test_every_replica_is_scraped_where_it_listens(topology: str) -> None:
    jobs = {
        job["job_name"]: job for job in yaml_of(f"prometheus/{topology}.yaml")["scrape_configs"]
    }
    layout = PLATFORM.layouts[topology]
    assert jobs.keys() == {placed.name for placed in layout.deployables}
    taken: set[str] = set()
    for placed in layout.deployables:
        job, deployable = jobs[placed.name], placed.deployable
        if topology == "compose":
            [found] = job["dns_sd_configs"]
            assert (found["names"], found["port"]) == ([placed.name], deployable.admin_port)
            continue
        [found] = job["static_configs"]
        assert len(found["targets"]) == placed.replicas
        assert taken.isdisjoint(found["targets"]), "two processes cannot listen at one place"
        taken |= set(found["targets"])
        [unit] = [
            t for p, t in FILES.items() if re.search(rf"flotilla-{placed.name}@?\.service", p)
        ]
        assert f"FLOTILLA_ADMIN_PORT={deployable.machine_port}\n" in unit
        host = "127.0.0.1" if deployable.http_port else "127.0.0.%i"
        assert f"FLOTILLA_ADMIN_HOST={host}\n" in unit


def test_panels_of_the_dashboard_are_numbered_once_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] in {"row", "timeseries", "stat"}
        at = panel["gridPos"]
        assert at["w"] >= 3
        assert at["x"] + at["w"] <= 24
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert {t["datasource"]["uid"] for t in panel["targets"]} == {"prometheus"}
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


def test_the_dashboard_tells_of_every_service_log_and_projection() -> None:
    rows = {panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"}
    assert rows == {
        "Promises",
        "counter: commands and queries",
        "projector: commands and queries",
        "web-bff: HTTP",
        "scheduler: commands and queries",
        "tenant: commands and queries",
        "workflow: commands and queries",
        "Log counter",
        "Log scheduler",
        "Log tenant",
        "Log workflow",
        "Projections",
        "Store and processes",
    }
    [source] = yaml_of("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["uid"] == "prometheus"


COMPONENTS = {
    "receivers": {"otlp"},
    "processors": {"memory_limiter", "redaction", "batch"},
    "exporters": {"otlp_http", "prometheus"},
    "extensions": {"health_check"},
}
"""Of the contrib distribution, by their names since 0.144."""


@pytest.mark.parametrize("topology", ["compose", "vps"])
def test_the_collector_has_parts_that_exist_and_uses_all_of_them(topology: str) -> None:
    told = yaml_of(f"otel/{topology}.yaml")
    assert told.keys() == {*COMPONENTS, "service"}
    used: dict[str, set[str]] = {"extensions": set(told["service"]["extensions"])}
    for pipeline in told["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter", "first, or it is too late"
        assert pipeline["processors"][-1] == "batch", "last, so that what goes is what was kept"
        for kind, names in pipeline.items():
            used.setdefault(kind, set()).update(names)
    for kind, names in COMPONENTS.items():
        assert told[kind].keys() == names == used[kind]
    local = topology == "vps"
    for where in re.findall(r"endpoint: ([\d.]+):\d+", FILES[f"otel/{topology}.yaml"]):
        assert where == ("127.0.0.1" if local else "0.0.0.0")
    for pattern in told["processors"]["redaction"]["blocked_key_patterns"]:
        assert re.fullmatch(pattern, "user.password")
        assert not re.fullmatch(pattern, "tenant")


@pytest.mark.parametrize("topology", ["compose", "vps"])
def test_logs_go_from_a_source_through_the_redaction_to_loki(topology: str) -> None:
    told = yaml_of(f"vector/{topology}.yaml")
    assert told.keys() == {"data_dir", "sources", "transforms", "sinks"}
    [(source, lines)], [(step, fields)] = told["sources"].items(), told["transforms"].items()
    assert fields["inputs"] == [source]
    assert fields["drop_on_error"] is True, "what could not be redacted does not leave"
    assert fields["file"] == "/etc/vector/flotilla.vrl"
    [sink] = told["sinks"].values()
    assert sink["inputs"] == [step]
    assert sink["labels"].keys() == {"fleet", "service", "level"}
    for label in sink["labels"]:
        assert f"\n.{label} = " in FILES["vector/flotilla.vrl"]
    if topology == "compose":
        assert lines == {"type": "docker_logs", "include_containers": ["flotilla-"]}
    else:
        templates = {re.sub(r"@\d+", "@", unit) for unit in lines["include_units"]}
        assert {path.split("/")[1] for path in FILES if path.endswith(".service")} <= templates


def test_vector_takes_for_secrets_what_the_fleet_takes_for_secrets() -> None:
    [words] = re.findall(r"^secret = r'\(\?i\)(.+)'$", FILES["vector/flotilla.vrl"], re.MULTILINE)
    assert words == telemetry._SECRET_WORDS.pattern
    [harmless] = re.findall(r"^harmless = r'(.+)'$", FILES["vector/flotilla.vrl"], re.MULTILINE)
    assert all(re.match(harmless, name) for name in telemetry._NO_SECRETS)


@pytest.mark.parametrize("path", PAGES)
def test_every_link_of_the_catalog_leads_somewhere(path: str) -> None:
    page = ROOT / "deploy" / path
    links = re.findall(r"\]\(([^)\s]+)\)", FILES[path])
    assert links
    for link in links:
        if link.startswith(("https://", "mailto:")):
            continue
        file, _, heading = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if heading:
            assert heading in anchors(target.read_text()), link


def test_the_catalog_tells_of_every_part_of_the_model() -> None:
    for parts, path in (
        (PLATFORM.services, "catalog/services.md"),
        (PLATFORM.topologies, "catalog/topologies.md"),
        (PLATFORM.capabilities, "catalog/capabilities.md"),
        (PLATFORM.owners, "catalog/owners.md"),
    ):
        assert parts.keys() <= anchors(FILES[path])
    for name in (*PLATFORM.deployables, *PLATFORM.environments):
        assert f"**{name}**" in FILES["catalog/topologies.md"]


NODE = r'n_\w+(?:\["[^"]*"\]|\[\("[^"]*"\)\]|\(\["[^"]*"\]\))'
EDGE = r'(n_\w+) (?:-->|-\.->)(?:\|"[^"]*"\|)? (n_\w+)'
LINE = re.compile(rf' +(?:{NODE}|{EDGE}|subgraph n_\w+\["[^"]*"\]|end)')


def diagrams() -> Iterator[str]:
    for path in PAGES:
        yield from re.findall(r"```mermaid\n(.*?)\n```", FILES[path], re.DOTALL)


def test_diagrams_are_flowcharts_whose_arrows_join_what_was_drawn() -> None:
    assert len(list(diagrams())) == 2 + len(PLATFORM.topologies)
    for text in diagrams():
        head, *lines = text.splitlines()
        assert head in {"flowchart LR", "flowchart TB"}
        joined: set[str] = set()
        for line in lines:
            found = LINE.fullmatch(line)
            assert found, line
            joined |= {name for name in found.groups() if name}
        drawn = set(re.findall(rf"^ +(?:subgraph )?(?={NODE}|n_\w+\[)(n_\w+)", text, re.MULTILINE))
        assert joined <= drawn
        assert text.count("subgraph ") == sum(line.strip() == "end" for line in lines)


def test_names_and_labels_may_be_anything() -> None:
    chart = Flowchart()
    chart.node("end", 'a "quoted" [label]')
    assert chart.lines == ['  n_end["a #quot;quoted#quot; [label]"]']
    assert node_id("a-b.c") == "n_a_b_c"
