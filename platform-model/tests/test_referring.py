"""What parts of a model say of each other: every reference that dangles is told where it stands.

Each case breaks one text of the model in `models/good`, and is told in exactly one line.
"""

import shutil
from pathlib import Path

import pytest

from flotilla_platform.loading import ModelInvalid
from flotilla_platform.reading import read_platform

GOOD = Path(__file__).parent / "models" / "good"

REFERENCES = [
    (
        "services/counter: owner: counters -> owner: conters",
        "3:8: there is no owner 'conters'; did you mean 'counters'?",
    ),
    (
        "services/counter: owner: counters\n -> ",
        "1:7: nobody owns this service; write `owner: …` with one of: counters",
    ),
    (
        "services/counter: capabilities: [store] -> capabilities: [stor]",
        "14:16: there is no capability 'stor'; did you mean 'store'?",
    ),
    (
        "services/counter: counter.opened.v1 -> conter.opened.v1",
        (
            "11:10: 'conter.opened.v1' is of 'conter', which is no aggregate of this service; did "
            "you mean 'counter'?"
        ),
    ),
    (
        "services/counter: name: decrement -> name: increment",
        "10:5: 'increment' is here twice; remove one of them",
    ),
    (
        "services/counter: [get-history] -> [get-history, get-health]",
        "12:24: every service answers this, unsaid; remove it",
    ),
    (
        "services/worker: name: feed, logs: [counter] -> name: feed, logs: [conter]",
        "9:26: there is no service 'conter'; did you mean 'counter'?",
    ),
    (
        "services/worker: name: feed, logs: [counter] -> name: feed, logs: [edge]",
        "9:26: the service 'edge' publishes no log; write one of: counter",
    ),
    (
        "services/worker: partition_key: stream, ->",
        (
            "8:78: nothing tells the rows of its partitions apart; write `partition_key: stream`, "
            "or `partitions: 1`"
        ),
    ),
    (
        "services/worker: needs: [views, logs, bus] -> needs: [logs, bus]",
        "6:8: a service with projections needs views; add what is missing",
    ),
    (
        "deployables/counter: [counter] -> [conter]",
        "3:12: there is no service 'conter'; did you mean 'counter'?",
    ),
    (
        "topologies/many: deployable: edge -> deployable: egde",
        "8:19: there is no deployable 'egde'; did you mean 'edge'?",
    ),
    (
        "topologies/one: nats-here -> nats-her",
        "4:33: there is no resource 'nats-her'; did you mean 'nats-here'?",
    ),
    (
        "environments/staging: topology: many -> topology: mny",
        "3:11: there is no topology 'mny'; did you mean 'many'?",
    ),
    (
        "environments/staging: deployable: worker -> deployable: wrker",
        "7:19: there is no deployable 'wrker'; did you mean 'worker'?",
    ),
    (
        "environments/staging: deployable: worker -> deployable: all",
        "7:19: 'many' does not run 'all'; write one of: counter, worker, edge",
    ),
    (
        "workflows/count-twice: [staging] -> [stging]",
        "7:16: there is no environment 'stging'; did you mean 'staging'?",
    ),
    (
        "policies/edge: caller: edge -> caller: egde",
        "3:9: there is no service 'egde'; did you mean 'edge'?",
    ),
    (
        "policies/edge: service: counter -> service: conter",
        "5:16: there is no service 'conter'; did you mean 'counter'?",
    ),
    (
        "policies/edge: [increment] -> [incremnt]",
        "5:36: the service 'counter' has no command 'incremnt'; did you mean 'increment'?",
    ),
    (
        "policies/edge: get-history -> get-histry",
        "5:58: the service 'counter' has no query 'get-histry'; did you mean 'get-history'?",
    ),
    (
        "policies/edge: bell.* -> bell.*x",
        "6:14: 0: this is not in the right form",
    ),
    (
        "capabilities/store: topology: one -> topology: on",
        "4:3: nothing is said of one; say what every topology gives",
    ),
    (
        "capabilities/leases: topology: many -> topology: one",
        "4:3: nothing is said of many; say what every topology gives",
    ),
    (
        "capabilities/leases: single-node -> single",
        "5:30: \"single\" is unknown here; did you mean 'single-node'?",
    ),
    (
        "owners/counters: name: counters -> name: counter",
        "1:7: the name 'counter' is not that of the file; write `name: counters`, or rename",
    ),
]

PLACES = [
    (
        "topologies/one: deployable: all } -> deployable: all, replicas: 2 }",
        "topologies/one: 6:34: 2 replicas of 'all', whose state is 'embedded': exactly one may run",
    ),
    (
        "environments/staging: deployable: worker, -> deployable: edge,",
        "environments/staging: 7:35: 3 replicas of 'edge' would listen on one port, 8080",
    ),
    (
        "topologies/many:   - { deployable: edge }\n -> ",
        "topologies/many: 6:3: the service 'edge' runs nowhere in this topology; place 'all'",
    ),
    (
        "topologies/many: deployable: edge } -> deployable: edge }\n  - { deployable: edge }",
        "topologies/many: 9:19: the deployable 'edge' is already placed; remove one of the two",
    ),
    (
        "deployables/counter: [counter] -> [counter, worker]",
        (
            "deployables/counter: 1:1: the service 'worker' follows logs: one replica at a time "
            "may, on each; write `state: leased`"
        ),
    ),
    (
        "services/worker: capabilities: [leases] -> capabilities: []",
        (
            "deployables/worker: 3:12: the service 'worker' follows logs and does not use the "
            "capability 'leases'; add leases to the capabilities of the service"
        ),
    ),
    (
        "capabilities/leases: state: single-node -> state: off",
        (
            "services/worker: 10:16: the topology 'many', which runs this service, has 'leases' "
            "off; remove it here"
        ),
    ),
    (
        "deployables/edge: http_port: 8080 -> http_port: 4222",
        (
            "topologies/many: 8:19: 'edge' would listen on the port 4222, as the resource 'nats' "
            "does; choose another http_port"
        ),
    ),
    (
        "deployables/edge: http_port: 8080 -> http_port: 9090",
        (
            "deployables/edge: 4:12: it would listen on 9090 twice: for requests and for its "
            "admin; choose another http_port"
        ),
    ),
    (
        "deployables/edge: http_port: 8080\n -> ",
        (
            "deployables/edge: 3:12: 'edge' needs http, and there is no port for it; write "
            "`http_port: 8080`"
        ),
    ),
    (
        "deployables/counter: [counter] -> [counter]\nhttp_port: 8080",
        "deployables/counter: 4:12: none of its services needs http; remove it",
    ),
    (
        "topologies/many: store: postgres -> store: files",
        "topologies/many: 4:21: 'files' (libsql, embedded) is files of one process, and this",
    ),
    (
        "topologies/one: store: files -> store: postgres",
        "topologies/one: 4:21: a topology of the kind 'one-process' runs its own servers",
    ),
    (
        "topologies/one: bus: nats-here -> bus: files",
        "topologies/one: 4:33: 'files' (libsql, embedded) cannot be a bus; write one of: nats",
    ),
    (
        "topologies/many: kind: processes -> kind: containers | bus: nats -> bus: nats-here",
        "topologies/many: 4:36: 'nats-here' (nats, embedded) is run by a process of the fleet",
    ),
    (
        "topologies/one: deployable: all } -> deployable: all }\n  - { deployable: counter }",
        (
            "topologies/one: 7:5: the deployable 'counter' would be a second process, and a "
            "topology of the kind 'one-process' runs exactly one"
        ),
    ),
]


def told(root: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Change a copy of the good model (`file: old -> new | old -> new`); return its mistakes."""
    shutil.copytree(GOOD, root)
    monkeypatch.chdir(root)
    name, _, texts = change.partition(": ")
    file = root / f"{name}.yaml"
    for pair in texts.split(" | "):
        old, _, new = pair.partition(" ->")
        assert old in file.read_text(), f"{old!r} is not in {file}"
        file.write_text(file.read_text().replace(old, new.removeprefix(" "), 1))
    with pytest.raises(ModelInvalid) as caught:
        read_platform(root)
    return [str(mistake).replace(".yaml:", ": ", 1) for mistake in caught.value.mistakes]


@pytest.mark.parametrize(("change", "line"), REFERENCES)
def test_what_is_said_of_another_part_is_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, line: str
) -> None:
    first, *_ = found = told(tmp_path / "model", change, monkeypatch)
    file = change.partition(": ")[0]
    assert any(one.startswith(f"{file}: {line}") for one in found), found
    assert first.startswith(file)


@pytest.mark.parametrize(("change", "line"), PLACES)
def test_a_topology_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, line: str
) -> None:
    found = told(tmp_path / "model", change, monkeypatch)
    assert any(one.startswith(line) for one in found), found


def test_two_deployables_that_say_how_they_are_on_one_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "model"
    shutil.copytree(GOOD, root)
    monkeypatch.chdir(root)
    for name in ("counter", "worker"):
        file = Path(f"deployables/{name}.yaml")
        file.write_text(file.read_text() + "machine_port: 9101\n")
    with pytest.raises(
        ModelInvalid,
        match=r"'worker' would listen on the port 9101, as the deployable 'counter' does",
    ):
        read_platform(root)


def test_two_deployables_on_one_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "model"
    shutil.copytree(GOOD, root)
    monkeypatch.chdir(root)
    deployable, service = Path("deployables/counter.yaml"), Path("services/counter.yaml")
    deployable.write_text(deployable.read_text() + "http_port: 8080\n")
    service.write_text(service.read_text().replace("[store, bus]", "[store, bus, http]"))
    with pytest.raises(
        ModelInvalid, match=r"many\.yaml:8:19: 'edge' would listen on the port 8080"
    ):
        read_platform(root)


COMPENSATION = """\
    compensation:
      service: counter
      command: decrement
      parameters: { counter_id: "${steps.first.result.counter_id}", by: 5 }
"""
WORKFLOW = [
    (
        "depends_on: [pause] -> depends_on: [paus]",
        "34:18: there is no step 'paus'; did you mean 'pause'?",
    ),
    (
        "- name: first -> - name: first\n    depends_on: [second]",
        (
            "10:17: these steps wait for each other: first → second → pause → agreed → first; "
            "remove one of them from a depends_on"
        ),
    ),
    (
        COMPENSATION + " -> ",
        "9:5: nothing undoes the step 'first' when one after it fails; write its `compensation`",
    ),
    (
        "command: decrement -> command: decrment",
        "17:16: the service 'counter' has no command 'decrment'; did you mean 'decrement'?",
    ),
    (
        "event: counter.opened.v1 -> event: counter.opend.v1",
        "5:19: no service stores 'counter.opend.v1'; did you mean 'counter.opened.v1'?",
    ),
    (
        "{ event: counter.opened.v1 } -> {}",
        "5:10: exactly one thing starts a workflow, and it has none; keep one of: command",
    ),
    (
        "{ event: counter.opened.v1 } -> { schedule: { cron: '0 3 * * 9' } }",
        "5:30: '9' is no weekday; write `*`, or numbers from 0 to 7",
    ),
    (
        (
            "{ event: counter.opened.v1 } -> "
            "{ schedule: { cron: '0 3 * * 1-5', time_zone: Europe/Viena } }"
        ),
        "5:56: there is no time zone 'Europe/Viena'; did you mean 'Europe/Vienna'?",
    ),
    (
        "{ event: counter.opened.v1 } -> { command: { service: counter, command: set } }",
        "5:50: the service 'counter' has no command 'set'",
    ),
    (
        "timer_s: 60 -> approval: { by: counters }\n    timer_s: 60",
        "26:5: the step 'pause' has timer_s and approval; keep one of: call, wait_for",
    ),
    (
        "steps.first.result.value -> steps.frst.result.value",
        "33:44: the step 'frst' is not done before this; add it to depends_on, or did you mean",
    ),
    (
        "steps.first.result.value -> first.value",
        "33:44: `${first.value}` refers to nothing; write `${trigger.<field>}` or",
    ),
    (
        "backoff_max_s: 10 -> backoff_max_s: 0.1",
        "14:14: the first pause is longer than the longest",
    ),
    (
        "by: 5 } -> by: [5] }",
        "13:62: by: a text, a number, true or false is expected, not [5]",
    ),
    (
        "name: pause -> name: seen",
        "26:11: there are two steps 'seen'; rename one of them",
    ),
]


@pytest.mark.parametrize(("change", "line"), WORKFLOW)
def test_a_workflow_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, line: str
) -> None:
    found = told(tmp_path / "model", f"workflows/count-twice: {change}", monkeypatch)
    assert any(one.startswith(f"workflows/count-twice: {line}") for one in found), found


def test_a_compensation_of_nothing_has_to_be_said(tmp_path: Path) -> None:
    root = tmp_path / "model"
    shutil.copytree(GOOD, root)
    file = root / "workflows" / "count-twice.yaml"
    file.write_text(file.read_text().replace(COMPENSATION, "    compensation: null\n", 1))
    assert read_platform(root).workflows["count-twice"].steps[0].compensation is None
