"""What runs the fleet on machines is what the model says, limited, without privileges or secrets."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flotilla.stores.postgres import connection, leases, store, views
from flotilla_platform.generating import artifacts
from flotilla_platform.generating.env import settings_class
from flotilla_platform.generating.nats import accounts
from flotilla_platform.generating.postgres import (
    OPERATOR_CONNECTIONS,
    POOL_CONNECTIONS,
    TIMEOUTS,
    connections_max,
    roles,
)
from flotilla_platform.generating.running import running
from flotilla_platform.reading import read_platform

MODEL = Path(__file__).parents[1] / "platform-model"
PLATFORM = read_platform(MODEL)
FILES = artifacts(PLATFORM)
COMPOSE: dict[str, Any] = YAML(typ="safe").load(FILES["compose/compose.yaml"])
UNITS = {path: text for path, text in FILES.items() if path.endswith(".service")}
OURS = {one.name: one for one in running(PLATFORM)}
JOBS = {"store-roles", "bus-volume"}
SUPERUSER_RESERVED = 3


def test_the_same_model_gives_the_same_bytes_whatever_the_hash_seed() -> None:
    program = (
        "import hashlib, json, sys; from pathlib import Path;"
        "from flotilla_platform.generating import artifacts;"
        "from flotilla_platform.reading import read_platform;"
        "found = artifacts(read_platform(Path(sys.argv[1])));"
        "print(hashlib.sha256(json.dumps(found).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program, MODEL],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(digests) == 1
    assert artifacts(read_platform(MODEL)) == FILES


def test_nothing_generated_holds_a_password() -> None:
    for path, text in FILES.items():
        for line in text.splitlines():
            if re.match(r"\s*#|--", line):
                continue
            assert not re.search(r"://[^/\s{}]+:[^/\s{}]+@", line), f"{path}: {line}"
            value = r"password['\"]?(:\s+|=|\s+)['\"][^'\"$]"
            assert not re.search(value, line, re.IGNORECASE), f"{path}: {line}"


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_every_container_is_hardened_and_limited(name: str) -> None:
    one = COMPOSE["services"][name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert any(mount.startswith("/tmp:") for mount in one["tmpfs"])
    assert one["logging"]["options"].keys() == {"max-size", "max-file"}
    limits = one["deploy"]["resources"]["limits"]
    assert limits.keys() >= {"memory", "pids"}
    if name in JOBS:
        assert one.get("ports") is None
    else:
        assert "cpus" in limits
        assert not one["user"].startswith("0"), "no server runs as root"
        assert one["restart"] == "unless-stopped"
        assert one["healthcheck"]["test"][0] == "CMD"
    assert one["user"] != "0:0" or one["network_mode"] == "none"


def test_a_deployable_has_its_own_secrets_and_nobody_elses() -> None:
    for name in OURS:
        one = COMPOSE["services"][name]
        assert one["secrets"]
        assert all(secret.startswith(f"{name}-") for secret in one["secrets"])
        mounted = {f"/run/secrets/{secret}" for secret in one["secrets"]}
        given = {v for k, v in one["environment"].items() if k.endswith(("_URL_FILE", "_KEY_FILE"))}
        assert given == mounted
        assert not any(k.endswith("_URL") for k in one["environment"])
    assert "FLOTILLA_STORE_URL_FILE" not in COMPOSE["services"]["web-bff"]["environment"]
    used = {
        secret if isinstance(secret, str) else secret["source"]
        for one in COMPOSE["services"].values()
        for secret in one.get("secrets", ())
    }
    assert used == set(COMPOSE["secrets"])


def test_only_the_edge_is_published_and_on_loopback_alone() -> None:
    published = {name: one["ports"] for name, one in COMPOSE["services"].items() if "ports" in one}
    assert published == {"web-bff": ["127.0.0.1:${FLOTILLA_PORT:-8080}:8080"]}
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    outside = [n for n, one in COMPOSE["services"].items() if "outside" in one.get("networks", ())]
    assert outside == ["web-bff"]


def test_containers_wait_for_whom_they_need_and_run_as_often_as_placed() -> None:
    layout = PLATFORM.layouts["compose"]
    for placed in layout.deployables:
        one = COMPOSE["services"][placed.name]
        assert one["deploy"].get("replicas", 1) == placed.replicas
        assert one["stop_grace_period"] == f"{placed.deployable.stop_timeout_s}s"
        assert one["image"] == f"flotilla/{placed.name}:${{FLOTILLA_VERSION:-latest}}"
        assert one["depends_on"]["nats"] == {"condition": "service_healthy"}
    waits = COMPOSE["services"]["web-bff"]["depends_on"]
    assert set(waits) == {"nats", "counter", "projector", "outbox-relay", "tenant", "workflow"}
    assert COMPOSE["services"]["counter"]["depends_on"]["store-roles"] == {
        "condition": "service_completed_successfully"
    }


@pytest.mark.parametrize("path", sorted(UNITS))
def test_every_unit_can_be_parsed_and_says_what_it_may(path: str) -> None:
    pairs: list[tuple[str, str]] = []
    for line in UNITS[path].splitlines():
        assert re.fullmatch(r"#.*|\[(Unit|Service|Install)\]|[A-Z][A-Za-z]+=.*|", line), line
        key, _, value = line.partition("=")
        pairs.append((key, value))
    unit = dict(pairs)
    assert unit.keys() >= {
        *("User", "NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateTmp", "MemoryMax"),
        *("RestrictAddressFamilies", "SystemCallFilter", "TasksMax", "StartLimitBurst"),
    }
    assert ("CapabilityBoundingSet", "") in pairs
    name = re.fullmatch(r"systemd/flotilla-([a-z-]+)@?\.service", path)
    assert name is not None
    deployable = PLATFORM.deployables[name[1]]
    assert unit["TimeoutStopSec"] == f"{deployable.stop_timeout_s}s"
    assert unit["MemoryMax"] == f"{deployable.resources.memory_limit_mib}M"
    assert f" serve {deployable.name} --topology vps" in unit["ExecStart"]


def test_the_target_wants_every_replica() -> None:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign] # keys as they are
    parser.read_string(FILES["systemd/flotilla.target"])
    wanted = parser["Unit"]["Wants"].split()
    count = sum(placed.replicas for placed in PLATFORM.layouts["vps"].deployables)
    assert len(set(wanted)) == len(wanted) == count
    for name in wanted:
        assert f"systemd/{re.sub('@[0-9]+', '@', name)}" in UNITS


def test_systemd_itself_finds_nothing_wrong_and_rates_the_units_safe(tmp_path: Path) -> None:
    """Where there is a systemd to ask; the parser above is the test everywhere else."""
    analyze = shutil.which("systemd-analyze")
    for path, text in UNITS.items():
        name = Path(path).name.replace("@.", "@1.")
        (tmp_path / name).write_text(text.replace("/opt/flotilla/bin/flotilla", "/bin/true"))
        if analyze is None:
            continue
        checked = subprocess.run(
            [analyze, "verify", "--man=no", tmp_path / name],
            capture_output=True,
            text=True,
            check=False,
        )
        newer = r"RestartSteps|RestartMaxDelaySec"  # since 254; others ignore them
        wrong = [line for line in checked.stderr.splitlines() if not re.search(newer, line)]
        assert not [line for line in wrong if name in line], wrong
        rated = subprocess.run(
            [analyze, "security", "--offline=true", "--threshold=20", tmp_path / name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert rated.returncode == 0, rated.stdout[-400:]
    assert len(UNITS) == len(OURS)


def test_every_account_of_the_broker_hears_its_own_inboxes_alone() -> None:
    known = accounts(PLATFORM)
    assert {one.name for one in known} == {*OURS, "operator"}
    inboxes = [s for one in known for s in one.subscribe if s.startswith("_INBOX")]
    assert len(set(inboxes)) == len(inboxes)
    for one in known:
        assert ">" not in (*one.publish, *one.subscribe)
        assert not any(subject.startswith("_INBOX") for subject in one.publish)


def test_services_connect_by_the_names_that_their_inboxes_have() -> None:
    """The composition roots say it; reading them here would import them, so their text is read."""
    for service in PLATFORM.services.values():
        module = service.entrypoint.split(":")[0].replace(".", "/")
        text = (MODEL.parent / service.connection_name / "src" / f"{module}.py").read_text()
        assert f'NAME = "{service.connection_name}"' in text


def test_roles_have_the_time_outs_that_services_ask_for() -> None:
    asked = {**connection.SERVER_SETTINGS, "transaction_timeout": connection.TRANSACTION_TIMEOUT}
    assert {key: asked[key] for key in TIMEOUTS} == TIMEOUTS


def test_all_processes_together_fit_into_the_store() -> None:
    for module in (store, views):
        pool = module.CONNECTIONS_MAX + module.EVERY_TENANT_CONNECTIONS_MAX
        assert pool + leases.CONNECTIONS_MAX <= POOL_CONNECTIONS
    logs = sum(1 for service in PLATFORM.services.values() if service.log)
    used = sum(connections_max(one, logs) for one in roles(PLATFORM)) + OPERATOR_CONNECTIONS
    most = PLATFORM.resources["postgres"].limits.max_connections
    assert most is not None
    assert used + SUPERUSER_RESERVED <= most


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_template_lists_every_setting_of_the_code_and_sets_nothing(name: str) -> None:
    text = FILES[f"env/{name}.env.example"]
    lines = text.splitlines()
    assert all(line.startswith("#") or not line for line in lines)
    listed = {match[1] for line in lines if (match := re.match(r"#([A-Z_]+)=", line))}
    for service in OURS[name].services:
        settings = settings_class(service)
        assert settings is not None
        assert settings.model_config.get("env_prefix") == service.settings_prefix
        for field, info in settings.model_fields.items():
            assert f"{service.settings_prefix}{field.upper()}" in listed
            assert info.description, f"{service.settings}.{field} has no docstring"


def test_settings_that_are_no_class_are_refused() -> None:
    wrong = PLATFORM.services["counter"].model_copy(update={"settings": "json:dumps"})
    with pytest.raises(TypeError, match="no class of settings"):
        settings_class(wrong)
