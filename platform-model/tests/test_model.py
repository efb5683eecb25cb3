"""The model: what is shipped is right; every mistake is named where it stands, with its cure."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flotilla_platform import reading
from flotilla_platform.loading import ModelInvalid
from flotilla_platform.reading import find_model, read_platform

SERVICE = """\
name: counter
summary: Counts.
entrypoint: svc_counter.main:compose
log: counter
needs: [store, bus]
"""
BFF = """\
name: web-bff
summary: REST.
entrypoint: svc_web_bff.main:compose
log: null
needs: [bus, http]
"""
TOPOLOGY = """\
name: single
summary: One process.
kind: one-process
resources:
  store: { engine: libsql, server: embedded }
  bus: { engine: nats, server: embedded }
deployables:
  - name: fleet
    services: [counter, web-bff]
"""


@pytest.fixture
def mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    monkeypatch.chdir(tmp_path)

    def read(**files: str) -> list[str]:
        texts = {"counter": SERVICE, "web-bff": BFF, "single": TOPOLOGY} | files
        for name, text in texts.items():
            folder = tmp_path / ("topologies" if name.startswith("single") else "services")
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.yaml").write_text(text)
        with pytest.raises(ModelInvalid) as caught:
            read_platform(tmp_path)
        return str(caught.value).splitlines()

    return read


def test_what_is_shipped_is_right() -> None:
    platform = read_platform(find_model())
    assert list(platform.topologies) == ["single", "single-postgres", "vps"]
    assert set(platform.services) == {"counter", "outbox-relay", "projector", "web-bff"}
    for topology in platform.topologies.values():
        assert topology.services[-1] == "web-bff"
    assert {t.name: t.resources.store.engine for t in platform.topologies.values()} == {
        "single": "libsql",
        "single-postgres": "postgres",
        "vps": "postgres",
    }


def test_a_wheel_carries_the_model_beside_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(reading, "__file__", str(tmp_path / "reading.py"))
    assert find_model() == tmp_path.resolve() / "shipped"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "entrypoint:",
            "entrypont:",
            "3:1: there is no key 'entrypont' here; did you mean 'entrypoint'?",
        ),
        ("summary: Counts.\n", "", "1:1: the key 'summary' is missing; write `summary: "),
        ("needs:", "colour: red\nneeds:", "5:1: there is no key 'colour' here; write one of: "),
        (
            "[store, bus]",
            "[store, buss]",
            "5:16: \"buss\" is unknown here; did you mean 'bus'?",
        ),
        (
            "[store, bus]",
            "[store, gpu]",
            '5:16: "gpu" is unknown here; write one of: store, views, logs, bus, http',
        ),
        ("[store, bus]", "store", '5:8: needs: a list is expected, not "store"; write for example'),
        ("[store, bus]", "[store, bus, store]", "5:21: 'store' is here twice; remove one of them"),
        ("[store, bus]", "[bus]", "5:8: a service that publishes a log needs a store; add `store`"),
        (
            "log: counter",
            "log: counters",
            (
                "4:6: the log 'counters' is not named after the service that publishes it; write "
                "`log: counter`"
            ),
        ),
        (
            "svc_counter.main:compose",
            "svc_counter.main",
            (
                '3:13: entrypoint: this is not in the right form, not "svc_counter.main"; write '
                "for example `svc_counter.main:compose`"
            ),
        ),
        ("Counts.", "7", "2:10: summary: a text is expected, not 7; write for example"),
        (
            "Counts.",
            "yes: no: maybe",
            "2:13: this is not YAML: mapping values are not allowed here",
        ),
        (
            "name: counter\n",
            "name: counter\nname: counter\n",
            "2:1: the key 'name' is here twice (first in line 1); keep one of them",
        ),
        (
            "name: counter",
            "name: counters",
            (
                "1:7: the name 'counters' is not that of the file; write `name: counter`, or "
                "rename the file to counters.yaml"
            ),
        ),
        (SERVICE, "", "1:1: the file is empty; start with `name: …`"),
        (SERVICE, "- a\n", "1:1: this: keys with values are expected, not"),
        (SERVICE, "a: &a [*a]\n", ": this is nested too deeply; write it out flat"),
        (SERVICE, "name: \x07\n", "1:1: this is not YAML: unacceptable character"),
    ],
)
def test_mistakes_in_a_service(
    mistakes: Callable[..., list[str]], old: str, new: str, told: str
) -> None:
    assert old in SERVICE
    [line] = mistakes(counter=SERVICE.replace(old, new, 1))
    assert line.startswith("services/counter.yaml:")
    assert told in line


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("counter,", "countr,", "9:16: there is no service 'countr'; did you mean 'counter'?"),
        (
            "counter,",
            "zebra,",
            "9:16: there is no service 'zebra'; write one of: counter, web-bff",
        ),
        (
            "[counter, web-bff]",
            "[counter, web-bff, counter]",
            "9:34: the service 'counter' already runs in the deployable 'fleet'; remove one",
        ),
        (
            "  bus: { engine: nats, server: embedded }\n",
            "",
            "5:3: the key 'bus' is missing; write `bus: { engine: nats, server: embedded }`",
        ),
        ("libsql", "libsl", "5:20: \"libsl\" is unknown here; did you mean 'libsql'?"),
        ("libsql", "mongo", '5:20: "mongo" is unknown here; write one of: libsql, postgres'),
        (
            "server: embedded }\n  bus",
            "sever: embedded }\n  bus",
            "5:28: there is no key 'sever' here; did you mean 'server'?",
        ),
        ("one-process", "swarm", '3:7: "swarm" is unknown here; write one of: one-process'),
        ("[counter, web-bff]", "[]", "9:15: services: this must not be empty, not []; write for"),
        (
            "[counter, web-bff]\n",
            "[web-bff]\n  - name: second\n    services: [counter]\n",
            (
                "10:5: the deployable 'second' would be a second process, and a topology of the "
                "kind 'one-process' runs exactly one; move its services to 'fleet', or write "
                "`kind: processes`"
            ),
        ),
        (
            "    services: [counter, web-bff]\n",
            "    services: [counter, web-bff]\n    replicas: 2\n",
            "10:15: a topology of the kind 'one-process' runs one process, not 2; write",
        ),
        (
            "one-process\n",
            "processes\n",
            "5:20: a libSQL file belongs to one process, and this topology runs several; write",
        ),
    ],
)
def test_mistakes_in_a_topology(
    mistakes: Callable[..., list[str]], old: str, new: str, told: str
) -> None:
    assert old in TOPOLOGY
    [line] = mistakes(single=TOPOLOGY.replace(old, new, 1))
    assert line.startswith(f"topologies/single.yaml:{told}")


PROCESSES = (
    TOPOLOGY.replace("one-process", "processes")
    .replace("libsql", "postgres")
    .replace(
        "  - name: fleet\n    services: [counter, web-bff]\n",
        "  - name: counter\n    services: [counter]\n  - name: web-bff\n    services: [web-bff]\n",
    )
)


def test_a_process_a_service_is_no_mistake(tmp_path: Path) -> None:
    for name, text in {"services/counter": SERVICE, "services/web-bff": BFF}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "topologies").mkdir()
    (tmp_path / "topologies" / "single.yaml").write_text(
        PROCESSES.replace("[counter]\n", "[counter]\n    replicas: 2\n")
    )
    found = read_platform(tmp_path).topologies["single"]
    assert [(d.name, d.replicas) for d in found.deployables] == [("counter", 2), ("web-bff", 1)]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "services: [web-bff]",
            "services: [web-bff]\n    replicas: 2",
            (
                "12:15: 2 replicas of 'web-bff' would listen on one port, since 'web-bff' needs "
                "http; write `replicas: 1`"
            ),
        ),
        (
            "name: web-bff\n",
            "name: counter\n",
            "10:11: there are two deployables 'counter'; rename one of them",
        ),
        ("services: [web-bff]", "services: [web-bff]\n    replicas: 0", "12:15: replicas: "),
        ("services: [web-bff]", "services: [web-bff]\n    replicas: 99", "12:15: replicas: "),
    ],
)
def test_mistakes_in_a_topology_of_processes(
    mistakes: Callable[..., list[str]], old: str, new: str, told: str
) -> None:
    assert old in PROCESSES
    [line] = mistakes(single=PROCESSES.replace(old, new, 1))
    assert line.startswith(f"topologies/single.yaml:{told}")


def test_two_deployables_that_listen_on_one_port(mistakes: Callable[..., list[str]]) -> None:
    told = mistakes(single=PROCESSES, counter=SERVICE.replace("bus]", "http]"))
    assert told == [
        (
            "topologies/single.yaml:11:16: 'web-bff' would listen on the same port as 'counter'; "
            "keep one service that needs http"
        )
    ]


def test_two_deployables_with_the_same_service(mistakes: Callable[..., list[str]]) -> None:
    text = TOPOLOGY + "  - name: second\n    services: [counter]\n"
    told = mistakes(single=text)
    assert [line.split(": ")[0] for line in told] == [
        "topologies/single.yaml:10:5",
        "topologies/single.yaml:11:16",
    ]
    assert "already runs in the deployable 'fleet'" in told[1]


def test_two_services_that_listen(mistakes: Callable[..., list[str]]) -> None:
    told = mistakes(counter=SERVICE.replace("bus]", "http]"))
    assert told == [
        (
            "topologies/single.yaml:9:25: 'web-bff' would listen on the same port as 'counter'; "
            "keep one service that needs http"
        )
    ]


def test_all_mistakes_are_told_and_none_twice(mistakes: Callable[..., list[str]]) -> None:
    told = mistakes(
        counter=SERVICE.replace("summary", "sumary").replace("needs", "need"),
        single=TOPOLOGY.replace("web-bff", "web-bf"),
    )
    assert [line.split(": ")[0] for line in told] == [
        "services/counter.yaml:2:1",
        "services/counter.yaml:5:1",
        "topologies/single.yaml:9:25",
    ]


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match=r"services:1:1: no \*\.yaml is here; name the folder"):
        read_platform(tmp_path)
