"""Validators that look at code and at deployed files: a right fleet passes, each mistake is told."""

# ruff: noqa: E501 - a case a line: the cases read as a table

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flotilla_contracts.generate import ROOT
from flotilla_platform.cli import app
from flotilla_platform.evidence.depending import covers
from flotilla_platform.evidence.graph import dependency_graph
from flotilla_platform.evidence.messages import shape
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.reading import inspect_platform

HERE = Path(__file__).parent
RUNBOOK = "# The relay\n\n## It waits\n\nLook.\n"

Fleet = Callable[..., Path]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Copy the good fleet, its code and what is deployed of it; replace texts; return its model."""

    def copy(*changes: tuple[str, str, str]) -> Path:
        shutil.copytree(HERE / "models" / "good", tmp_path / "model")
        shutil.copytree(HERE / "fleets", tmp_path / "code")
        shutil.copytree(HERE / "deployed", tmp_path / "deploy")
        for part in ("schemas", "released", "emitted"):
            shutil.copytree(ROOT / part, tmp_path / "contracts" / part)
        shutil.copy(ROOT / "asyncapi.json", tmp_path / "contracts")
        (tmp_path / "contracts" / "openapi.json").write_text("{}")
        (tmp_path / "docs" / "runbooks").mkdir(parents=True)
        (tmp_path / "docs" / "runbooks" / "relay.md").write_text(RUNBOOK)
        for name, old, new in changes:
            file = tmp_path / name
            text = file.read_text()
            assert old in text, f"{name} does not say {old}"
            file.write_text(text.replace(old, new, 1))
        return tmp_path / "model"

    for name in [name for name in sys.modules if name.startswith("good_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.chdir(tmp_path)
    return copy


def test_a_right_fleet_passes_every_validator(fleet: Fleet) -> None:
    result = CliRunner().invoke(app, ["model", "check", "--model", str(fleet())])
    assert result.exit_code == ExitCode.OK, result.output
    assert [line.split()[0] for line in result.output.splitlines()] == ["✓"] * 7


def test_the_graph_is_what_the_code_does(fleet: Fleet) -> None:
    graph = dependency_graph(inspect_platform(fleet()))
    assert graph.edges() == [("edge", "counter")]
    assert sorted(call.subject for call in graph.calls) == [
        "cmd.counter.increment",
        "qry.counter.get-health",
        "qry.counter.get-history",
    ]
    assert sorted(graph.uses["counter"].serves) == [
        "cmd.counter.decrement",
        "cmd.counter.increment",
        "qry.counter.get-health",
        "qry.counter.get-history",
    ]
    assert list(graph.uses["edge"].hears) == ["bell.*"]


COUNTER, EDGE, ASKING = (
    "code/good_counter/main.py",
    "code/good_edge/main.py",
    "code/good_edge/asking.py",
)
WORKER, POLICY = "code/good_worker/main.py", "model/policies/edge.yaml"
COMPOSE, ALERTS, K3S = (
    "deploy/compose/compose.yaml",
    "deploy/prometheus/alerts.yaml",
    "deploy/k3s/base/edge.yaml",
)
SENT, SCHEMAS = "contracts/emitted", "contracts/schemas"
NATS, UNIT = "deploy/nats/nats-server.conf", "deploy/systemd/edge.service"
BROKEN = [
    # dependency-graph
    ("dependency-graph", POLICY, "[increment]", "[]", "code/good_edge/asking.py:23:47", "add increment"),
    ("dependency-graph", POLICY, "[increment]", "[increment, decrement]", f"{POLICY}:5:47", "remove it"),
    ("dependency-graph", POLICY, "bell.*", "bell.edge", "code/good_edge/main.py:28:37", "subscribes"),
    ("dependency-graph", EDGE, '"""The edge', 'import good_counter\n"""The edge', f"{EDGE}:1:1", "over the bus"),
    ("dependency-graph", ASKING, "from flotilla.bus", "import flotilla.stores\nfrom flotilla.bus", f"{ASKING}:5:1", "take the port"),
    ("dependency-graph", ASKING, "Request(message.subject", "Request(vars()['x']", f"{ASKING}:23:47", "message of the contracts"),
    ("dependency-graph", EDGE, '"""The edge', 'def ("""The edge', f"{EDGE}:1:5", "correct it"),
    ("dependency-graph", "model/services/edge.yaml", "good_edge.main", "good_egde.main", "model/services/edge.yaml:4:13", "make setup"),
    # model-to-code
    ("model-to-code", COUNTER, '"decrement": DecrementCounter', "", "model/services/counter.yaml:10:13", "decrement"),
    ("model-to-code", COUNTER, "GetCounterHistory.subject", "'qry.counter.get-all'", "model/services/counter.yaml:12:11", "get-all"),
    ("model-to-code", COUNTER, "CounterOpened, CounterIncremented)", "CounterOpened,)", "model/services/counter.yaml:11:29", "counter.opened.v1"),
    ("model-to-code", COUNTER, '"counter", command', '"tally", command', "model/services/counter.yaml:7:14", "tally"),
    ("model-to-code", COUNTER, 'scope="counter"', 'scope="all"', "model/services/counter.yaml:10:43", "all"),
    ("model-to-code", COUNTER, "async def compose", "async def composed", "model/services/counter.yaml:4:13", "did you mean 'composed'?"),
    ("model-to-code", "code/good_counter/settings.py", "FLOTILLA_COUNTER_", "FLOTILLA_", "code/good_counter/settings.py:11:20", 'env_prefix="FLOTILLA_COUNTER_"'),
    ("model-to-code", WORKER, '"totals", 2.0', '"totals", 3.0', "model/services/worker.yaml:8:59", "staleness_budget_ms: 3000"),
    ("model-to-code", WORKER, "partitions=4", "partitions=2", "model/services/worker.yaml:8:100", "partitions: 2"),
    ("model-to-code", WORKER, 'log: str = "counter"', 'log: str = "edge"', "model/services/worker.yaml:8:27", "logs: [edge]"),
    ("model-to-code", WORKER, '"feed"', '"fed"', "model/services/worker.yaml:9:13", "did you mean 'fed'?"),
    ("model-to-code", WORKER, 'Folded("feed", 9.0)', 'Folded("feed", 9.0), Folded("more", 1.0)', "code/good_worker/main.py:15:1", "add it to `projections`"),
    ("model-to-code", WORKER, 'await serve_health(bindings.bus, health_subject("worker"), "worker", health)', "pass", "model/services/worker.yaml:4:13", "serve_health"),
    # contract-drift
    ("contract-drift", f"{SENT}/replies/CounterReply.json", '"value"', '"valeu"', f"{SENT}/replies/CounterReply.json:4:5", "correct the producer"),
    ("contract-drift", f"{SENT}/events/counter.opened.v1.json", '"counter_id"', '"more": 1, "counter_id"', f"{SENT}/events/counter.opened.v1.json:3:5", "Additional properties"),
    ("contract-drift", f"{SENT}/envelope.json", "ce-tenant", "ce-tennant", f"{SENT}/envelope.json:1:1", "correct the producer"),
    ("contract-drift", f"{SENT}/problem.json", '"status": 422', '"status": "422"', f"{SENT}/problem.json:15:5", "not of type 'integer'"),
    ("contract-drift", f"{SENT}/problem.json", "[", "", f"{SENT}/problem.json:1:1", "no JSON"),
    ("contract-drift", f"{SCHEMAS}/commands/ResetCounter.json", '"type": "object"', '"type": "string"', f"{SCHEMAS}/commands/ResetCounter.json:19:1", "make generate"),
    ("contract-drift", "contracts/asyncapi.json", "{", "{{", "contracts/asyncapi.json:1:1", "make generate"),
    ("contract-drift", "contracts/openapi.json", "{}", '{"paths": {}}', "contracts/openapi.json:1:1", "make generate"),
    ("contract-drift", "contracts/released/0.2.0/replies/CounterReply.json", '"value": {', '"worth": {', "contracts/released/0.2.0/replies/CounterReply.json:1:1", "this breaks 0.2.0"),
    # security
    ("security", POLICY, "subscribes: [bell.*]", "subscribes: [bell.*, evt.>]", f"{POLICY}:6:22", "never does"),
    ("security", EDGE, "doorbell_subject(log)", "doorbell_subject('counter')", f"{POLICY}:6:14", "write bell.counter"),
    ("security", "model/resources/nats.yaml", "limits: { max_payload_bytes: 1048576 }\n", "", "model/resources/nats.yaml:1:1", "max_payload_bytes"),
    ("security", "model/resources/postgres.yaml", "secrets: [postgres-password]\n", "", "model/resources/postgres.yaml:4:9", "postgres-password"),
    ("security", COMPOSE, "/run/secrets/nats-url", "nats://edge:gotcha@nats", f"{COMPOSE}:6:44", "flotilla secrets set"),
    ("security", COMPOSE, "127.0.0.1:8080", "8080", f"{COMPOSE}:7:13", "127.0.0.1:"),
    ("security", COMPOSE, ", pids: 128", "", f"{COMPOSE}:2:3", "pids: 128"),
    ("security", COMPOSE, "memory: 256M, ", "", f"{COMPOSE}:2:3", "memory: 256M"),
    ("security", COMPOSE, "user: 65532:65532", "user: 0:0", f"{COMPOSE}:4:11", "65532"),
    ("security", COMPOSE, "image:", "privileged: true\n    image:", f"{COMPOSE}:3:17", "remove it"),
    ("security", K3S, "runAsNonRoot: true", "runAsUser: 0", f"{K3S}:7:11", "runAsNonRoot: true"),
    ("security", K3S, "memory: 256Mi", "cpu: 1", f"{K3S}:7:11", "256Mi"),
    ("security", UNIT, "TasksMax=128\n", "", f"{UNIT}:1:1", "TasksMax"),
    ("security", UNIT, "DynamicUser=yes", "User=root", f"{UNIT}:3:1", "DynamicUser=yes"),
    ("security", NATS, "$edge_password", '"gotcha"', f"{NATS}:4:32", "$name"),
    ("security", NATS, "_INBOX_edge.>", ">", f"{NATS}:4:82", "name what it needs"),
    ("security", NATS, "max_payload: 1048576\n", "", f"{NATS}:1:1", "max_payload"),
    ("security", "deploy/docker/Dockerfile", "65532:65532", "root", "deploy/docker/Dockerfile:2:1", "65532"),
    # observability
    ("observability", "model/services/edge.yaml", "slo: { availability_percent: 99 }\n", "", "model/services/edge.yaml:1:7", "slo:"),
    ("observability", "model/services/worker.yaml", "staleness_ms: 9000", "staleness_ms: 8000", "model/services/worker.yaml:11:48", "staleness_ms: 9000"),
    ("observability", ALERTS, "flotilla_commands_total", "flotilla_comands_total", f"{ALERTS}:7:15", "did you mean 'flotilla_commands_total'?"),
    ("observability", ALERTS, "relay.md#it-waits", "relais.md", f"{ALERTS}:8:33", "relay.md"),
    ("observability", ALERTS, "#it-waits", "#it-wait", f"{ALERTS}:8:33", "did you mean 'it-waits'?"),
    ("observability", ALERTS, "annotations: { runbook: docs/runbooks/relay.md#it-waits }", "labels: {}", f"{ALERTS}:6:9", "runbook"),
    ("observability", COMPOSE, 'healthcheck: { test: [CMD, "true"] }', "restart: always", f"{COMPOSE}:2:3", "healthcheck"),
    ("observability", K3S, "readinessProbe", "startupProbe", f"{K3S}:7:11", "/readyz"),
]  # fmt: skip
CODES = {
    "dependency-graph": ExitCode.DEPENDENCIES_WRONG,
    "contract-drift": ExitCode.CONTRACTS_DRIFTED,
    "security": ExitCode.INSECURE,
    "observability": ExitCode.UNOBSERVABLE,
    "model-to-code": ExitCode.CODE_DIFFERS,
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_mistake_is_told_with_its_place_and_its_cure(
    fleet: Fleet, case: tuple[str, str, str, str, str, str]
) -> None:
    name, file, old, new, at, cure = case
    root = fleet((file, old, new))
    result = CliRunner().invoke(app, ["model", "check", "--only", name, "--model", str(root)])
    told = [line.strip() for line in result.output.splitlines()[1:]]
    assert result.exit_code == CODES[name], result.output
    assert any(line.startswith(f"{at}: ") and cure in line for line in told), result.output


def test_services_that_wait_for_each_other_are_told(fleet: Fleet) -> None:
    asks = "\n    bus = bindings.bus\n    await bus.request(Request(health_subject('edge'), b'', None))"
    root = fleet(
        (COUNTER, "codec: Any = ContractCodec(EVENTS)", f"codec: Any = ContractCodec(EVENTS){asks}")
    )
    (root / "policies" / "counter.yaml").write_text(
        "name: counter\nsummary: It asks back.\ncaller: counter\n"
        "calls: [{ service: edge, queries: [get-health] }]\n"
    )
    result = CliRunner().invoke(
        app, ["model", "check", "--only", "dependency-graph", "--model", str(root)]
    )
    assert result.exit_code == ExitCode.DEPENDENCIES_WRONG
    assert "counter → edge → counter" in result.output


def test_what_nobody_sends_and_what_nobody_described_is_told(fleet: Fleet) -> None:
    root = fleet()
    sent = root.parent / "contracts" / "emitted"
    (sent / "queries" / "GetCounter.json").rename(sent / "queries" / "GuessCounter.json")
    result = CliRunner().invoke(
        app, ["model", "check", "--only", "contract-drift", "--model", str(root)]
    )
    assert result.exit_code == ExitCode.CONTRACTS_DRIFTED
    assert "schemas/queries/GetCounter.json:1:1: nobody ever sent" in result.output
    assert "emitted/queries/GuessCounter.json:1:1: this was sent, and no contract" in result.output


@pytest.mark.parametrize(
    ("allowed", "used", "answer"),
    [
        ("bell.*", "bell.counter", True),
        ("bell.counter", "bell.>", False),
        ("evt.>", "evt.>", True),
        ("evt.>", "evt", False),
        ("a.b", "a.b.c", False),
        ("a.*.c", "a.b.c", True),
    ],
)
def test_an_allow_list_covers_what_it_says(allowed: str, used: str, answer: bool) -> None:
    assert covers(allowed, used) is answer


def test_the_shape_of_a_subject_ends_where_it_is_unknown() -> None:
    assert shape("evt.*%2Ev1.*.*") == "evt.>"
    assert shape("qry.*.get-health") == "qry.*.get-health"
    assert shape("bell.counter") == "bell.counter"
