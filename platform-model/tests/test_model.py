"""The model: what is shipped is right; every mistake is named where it stands, with its cure."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from flotilla_platform import reading
from flotilla_platform.loading import ModelInvalid
from flotilla_platform.model import KINDS
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
FLEET = """\
name: fleet
summary: All of it.
services: [counter, web-bff]
http_port: 8080
state: embedded
"""
FILES = """\
name: files
summary: Files.
engine: libsql
server: embedded
"""
NATS = """\
name: nats
summary: NATS.
engine: nats
server: embedded
"""
TOPOLOGY = """\
name: single
summary: One process.
kind: one-process
resources: { store: files, bus: nats }
placements:
  - { deployable: fleet }
"""
FILES_OF = {
    "services/counter": SERVICE,
    "services/web-bff": BFF,
    "deployables/fleet": FLEET,
    "resources/files": FILES,
    "resources/nats": NATS,
    "topologies/single": TOPOLOGY,
}


@pytest.fixture
def mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Read a small model in which some files are others, or more; return its mistakes."""
    monkeypatch.chdir(tmp_path)

    def read(files: dict[str, str]) -> list[str]:
        for name, text in (FILES_OF | files).items():
            file = tmp_path / f"{name}.yaml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        with pytest.raises(ModelInvalid) as caught:
            read_platform(tmp_path)
        return str(caught.value).splitlines()

    return read


def test_what_is_shipped_is_right() -> None:
    platform = read_platform(find_model())
    assert list(platform.topologies) == ["compose", "k3s", "single", "single-postgres", "vps"]
    assert set(platform.services) == {
        *("counter", "outbox-relay", "projector", "scheduler", "tenant", "web-bff", "workflow")
    }
    for layout in platform.layouts.values():
        assert layout.services[-1] == "web-bff"
    assert {name: one.resources.store.engine for name, one in platform.layouts.items()} == {
        "single": "libsql",
        "single-postgres": "postgres",
        "vps": "postgres",
        "compose": "postgres",
        "k3s": "postgres",
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
            '5:16: "gpu" is unknown here; write one of: store, views, logs, keys, bus, http',
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
        ("log: counter", f"log: {'9' * 5000}", "4:6: log: at most 40 characters are"),
        (
            "log: counter",
            "log: 0.5",
            "4:6: log: a text is expected, not 0.5; write for example `counter`",
        ),
        ("Counts.", '"\\ud800 {x}"', "1:1: this: Invalid JSON"),
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
    [line] = mistakes({"services/counter": SERVICE.replace(old, new, 1)})
    assert line.startswith("services/counter.yaml:")
    assert told in line


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        (
            "topologies/single",
            "{ store: files, bus: nats }",
            "{ store: files }",
            "4:12: the key 'bus' is missing; write `bus: nats-embedded`",
        ),
        (
            "topologies/single",
            "store: files",
            "stor: files",
            "4:14: there is no key 'stor' here; did you mean 'store'?",
        ),
        (
            "topologies/single",
            "one-process",
            "swarm",
            '3:7: "swarm" is unknown here; write one of: one-process, processes, containers, kube',
        ),
        (
            "topologies/single",
            "\n  - { deployable: fleet }",
            " []",
            "5:13: placements: this must not be empty, not []; write for example",
        ),
        (
            "topologies/single",
            "deployable: fleet",
            "deployable: fleat",
            "6:19: there is no deployable 'fleat'; did you mean 'fleet'?",
        ),
        (
            "topologies/single",
            "fleet }",
            "fleet, replicas: 0 }",
            "6:36: replicas: at least 1 is expected, not 0; write for example `2`",
        ),
        (
            "resources/files",
            "libsql",
            "libsl",
            "3:9: \"libsl\" is unknown here; did you mean 'libsql'?",
        ),
        (
            "resources/files",
            "libsql",
            "mongo",
            '3:9: "mongo" is unknown here; write one of: libsql, postgres, nats',
        ),
        (
            "deployables/fleet",
            "counter,",
            "countr,",
            "3:12: there is no service 'countr'; did you mean 'counter'?",
        ),
        (
            "deployables/fleet",
            "counter,",
            "zebra,",
            "3:12: there is no service 'zebra'; write one of: counter, web-bff",
        ),
        (
            "deployables/fleet",
            "[counter, web-bff]",
            "[]",
            "3:11: services: this must not be empty, not []; write for",
        ),
        (
            "deployables/fleet",
            "[counter, web-bff]",
            "[counter, web-bff, counter]",
            "3:30: the service 'counter' is already in this deployable; remove one of the two",
        ),
    ],
)
def test_mistakes_in_other_parts(
    mistakes: Callable[..., list[str]], file: str, old: str, new: str, told: str
) -> None:
    text = FILES_OF[file]
    assert old in text
    [line] = mistakes({file: text.replace(old, new, 1)})
    assert line.startswith(f"{file}.yaml:{told}")


def test_two_services_of_a_deployable_that_listen(mistakes: Callable[..., list[str]]) -> None:
    told = mistakes({"services/counter": SERVICE.replace("bus]", "http]")})
    assert told == [
        (
            "deployables/fleet.yaml:3:21: 'web-bff' would listen on the same port as 'counter'; "
            "keep one service that needs http"
        )
    ]


def test_all_mistakes_are_told_and_none_twice(mistakes: Callable[..., list[str]]) -> None:
    told = mistakes(
        {
            "services/counter": SERVICE.replace("summary", "sumary").replace("needs", "need"),
            "deployables/fleet": FLEET.replace("web-bff", "web-bf"),
            "resources/nats": NATS.replace("nats\nserver", "libsql\nserver"),
        }
    )
    assert [line.split(": ")[0] for line in told] == [
        "services/counter.yaml:2:1",
        "services/counter.yaml:5:1",
        "deployables/fleet.yaml:3:21",
        "topologies/single.yaml:4:33",
    ]


def test_a_file_that_would_be_passed_over(
    mistakes: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "late.yml").write_text(SERVICE)
    [line] = mistakes({})
    assert line == "services/late.yml:1:1: only *.yaml is read; rename it to late.yaml"


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match=r"services:1:1: no \*\.yaml is here; name the folder"):
        read_platform(tmp_path)


def test_a_wheel_carries_every_folder_of_the_model() -> None:
    project = tomllib.loads((find_model() / "pyproject.toml").read_text())
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    here = [kind.folder for kind in KINDS.values() if (find_model() / kind.folder).is_dir()]
    wanted = {folder: f"flotilla_platform/shipped/{folder}" for folder in [*here, "schemas"]}
    assert carried == wanted
