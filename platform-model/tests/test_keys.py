"""Keys of personal data: who is given them where, and `flotilla keys` on a fleet that has some."""

import asyncio
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from flotilla.bus import Context, Request
from flotilla.clock import SystemClock
from flotilla.master_key import new_master_key
from flotilla.privacy import Vault
from flotilla.stores import open_keys
from flotilla_platform.carrying import open_bus
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.generating import compose, kustomize, postgres, systemd
from flotilla_platform.key_places import bind_keys, key_variables
from flotilla_platform.loading import ModelInvalid
from flotilla_platform.model import Platform
from flotilla_platform.moving_keys import move_keys
from flotilla_platform.places import DataPlace
from flotilla_platform.reading import read_platform
from flotilla_platform.testing import Fleet

ROOT = Path(__file__).parents[1]
CONTEXT = Context(tenant="acme", correlation_id="c")
CANARY = "canary Ada Lovelace"
NEW = new_master_key(bytes(range(32)))

Up = Callable[..., Fleet]
Run = Callable[..., CompletedProcess[str]]


def one_of(path: str) -> set[str]:
    """Return which deployables a file is of."""
    return {"counter", "outbox-relay", "projector", "web-bff"} & set(Path(path).parts)


@pytest.fixture
def sealing() -> Platform:
    """The real model, in which counter and projector seal and open."""
    platform = read_platform(ROOT)
    changed = {
        name: platform.services[name].model_copy(
            update={"needs": (*platform.services[name].needs, "keys")}
        )
        for name in ("counter", "projector")
    }
    return replace(platform, services={**platform.services, **changed})


def test_every_way_of_running_gives_the_master_key_to_those_who_need_it_alone(
    sealing: Platform,
) -> None:
    composed = compose.generate(sealing)["compose/compose.yaml"]
    assert "FLOTILLA_MASTER_KEY_FILE: /run/secrets/counter-master-key" in composed
    assert "web-bff-master-key" not in composed
    units = systemd.generate(sealing)
    counter = units["systemd/flotilla-counter@.service"]
    assert "LoadCredential=master-key:/etc/flotilla/secrets/counter/master-key" in counter
    assert "Environment=FLOTILLA_MASTER_KEY_FILE=%d/master-key" in counter
    assert "master-key" not in units["systemd/flotilla-web-bff.service"]
    cluster = kustomize.generate(sealing)
    told = {name for name, text in cluster.items() if "FLOTILLA_MASTER_KEY" in text}
    assert {part for name in told for part in one_of(name)} == {"counter", "projector"}


def test_the_first_who_writes_owns_the_keys_and_the_others_delete_nothing(
    sealing: Platform,
) -> None:
    sql = postgres.generate(sealing)

    schemas, grants = sql["postgres/20-schemas.sql"], sql["postgres/30-grants.sql"]
    assert 'create schema if not exists "keys" authorization "counter";' in schemas
    assert 'grant usage on schema "keys" to "projector";' in grants
    assert "('keys', 'select, insert, update', 'data_key', 'projector')" in grants
    assert "'data_key', 'counter'" not in grants


def test_nothing_of_keys_is_where_nobody_needs_them() -> None:
    platform = read_platform(ROOT)
    if any("keys" in service.needs for service in platform.services.values()):
        services = {
            name: service.model_copy(
                update={"needs": tuple(need for need in service.needs if need != "keys")}
            )
            for name, service in platform.services.items()
        }
        platform = replace(platform, services=services)
    for generator in (compose, systemd, kustomize, postgres):
        text = "".join(generator.generate(platform).values()).lower()
        assert "master" not in text.replace("mergemaster", "")
        assert '"keys"' not in text


def test_no_service_is_called_what_the_place_of_keys_is_called(
    write_model: Callable[..., Path],
) -> None:
    with pytest.raises(ModelInvalid, match="data keys are kept under this name"):
        read_platform(write_model("keys", keys="tiny_services:compose"))


def test_a_master_key_is_made_once_and_only_where_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "master.key"
    first = bind_keys(tmp_path, None)
    assert (f"libsql://{tmp_path}/keys.db", first.master.ids) == (
        first.url,
        bind_keys(tmp_path, None).master.ids,
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key_variables(tmp_path) == {"FLOTILLA_MASTER_KEY_FILE": str(file)}

    monkeypatch.setenv("FLOTILLA_MASTER_KEY", NEW)
    assert first.master.ids != bind_keys(tmp_path, "postgresql://it").master.ids
    assert key_variables(tmp_path) == {"FLOTILLA_MASTER_KEY": NEW}
    bind_keys(tmp_path / "absent", None)

    monkeypatch.delenv("FLOTILLA_MASTER_KEY")
    with pytest.raises(Failure, match="there is no master key"):
        bind_keys(tmp_path / "absent", None, make=False)


async def test_keys_and_the_master_key_that_wraps_them_move_with_a_fleet(
    sealing: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = sealing.layouts["single"]
    old, new = (DataPlace(tmp_path / name, layout) for name in ("old", "new"))
    stores = {place: {"counter": f"libsql://{place.path}/counter.db"} for place in (old, new)}
    for place in (old, new):
        place.path.mkdir()
    assert await move_keys(old, new, stores[old], stores[new]) == ""  # nothing was ever sealed
    assert list(new.path.iterdir()) == []

    binding = bind_keys(old.path, None)
    async with open_keys(binding.url) as keys:
        sealed = await Vault(keys, binding.master, SystemClock()).seal("acme", "ada", CANARY)
    for _ in range(2):
        assert await move_keys(old, new, stores[old], stores[new]) == ""

    moved = bind_keys(new.path, None, make=False)
    async with open_keys(moved.url) as keys:
        assert await Vault(keys, moved.master, SystemClock()).open("acme", sealed) == CANARY
    assert stat.S_IMODE((new.path / "master.key").stat().st_mode) == 0o600
    monkeypatch.setenv("FLOTILLA_MASTER_KEY", NEW)
    left = await move_keys(old, new, stores[old], stores[new])
    assert left == "give the new fleet the same FLOTILLA_MASTER_KEY"
    monkeypatch.setenv("FLOTILLA_KEYS_URL", "postgresql://keys@elsewhere/keys")
    assert await move_keys(old, new, {}, {}) == ""


def test_a_fleet_seals_and_its_master_key_is_rotated_while_it_runs(up: Up, run: Run) -> None:
    runtime = up("seals").runtime()

    async def ask(subject: str, body: bytes) -> bytes:
        async with open_bus(runtime.nats_url, name="test") as bus:
            return (await bus.request(Request(subject, body, CONTEXT))).body

    sealed = asyncio.run(ask("cmd.seals.seal", CANARY.encode()))
    assert CANARY.encode() == asyncio.run(ask("qry.seals.open", sealed))
    before = json.loads(run("keys", "status", "--json").stdout)
    assert (before["alive"], before["destroyed"], before["missing"]) == (1, 0, [])

    data = Path(runtime.data)
    old = (data / "master.key").read_text().strip()
    lost = run("keys", "rotate", FLOTILLA_MASTER_KEY=NEW)
    assert (lost.returncode, before["master_id"] in lost.stderr) == (ExitCode.DATA_DIRECTORY, True)
    missing = run("keys", "status", FLOTILLA_MASTER_KEY=NEW)
    assert (missing.returncode, "nobody can open" in missing.stdout) == (ExitCode.UNHEALTHY, True)

    rotated = run("keys", "rotate", "--json", FLOTILLA_MASTER_KEY=f"{NEW},{old}")

    assert rotated.returncode == ExitCode.OK, rotated.stderr
    assert json.loads(rotated.stdout)["rewrapped"] == 1
    after = json.loads(run("keys", "status", "--json", FLOTILLA_MASTER_KEY=NEW).stdout)
    assert list(after["wrapped_by"].values()) == [1]
    assert list(after["wrapped_by"]) != list(before["wrapped_by"])
    kept = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
    assert CANARY.encode() not in kept
    for told in (rotated, lost, missing):
        said = told.stdout + told.stderr
        assert NEW not in said
        assert old not in said


def test_keys_of_a_fleet_that_has_none_are_not_found(up: Up, run: Run) -> None:
    up("tiny", tiny="tiny_services:compose").runtime()

    found = run("keys", "status")

    assert found.returncode == ExitCode.NOT_FOUND
    assert "keeps personal data" in found.stderr
