"""Units of systemd, for topologies of processes on one machine that somebody else supervises.

    flotilla.target ─wants─▶ flotilla-<deployable>@1.service, @2 …   (replicas)
                    ─wants─▶ flotilla-<deployable>.service           (one, where it listens)

A unit has no user of its own beforehand: systemd makes one up while it runs, and hands the two secrets
over as credentials. PostgreSQL and NATS are units of others; a process waits for them a minute, ends,
and is started again, ever more slowly. What no restart cures is not tried again.
"""

from collections.abc import Iterator, Sequence

from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.generating.artifact import NOTICE, Artifacts, Generator
from flotilla_platform.generating.running import Runs, runs
from flotilla_platform.generating.writing import comment
from flotilla_platform.model import Layout, Placed, Platform

TARGET = "flotilla.target"
PROGRAM = "/opt/flotilla/bin/flotilla"
SECRETS = "/etc/flotilla/secrets"
SETTINGS = "/etc/flotilla/env"
SERVERS = {"postgres": "postgresql.service", "nats": "nats-server.service"}
"""What packages call the servers' units."""
INCURABLE = (
    ExitCode.USAGE,
    ExitCode.MODEL_INVALID,
    ExitCode.SETTING_INVALID,
    ExitCode.TOPOLOGY_INVALID,
)
"""What the next start would only say again."""
RESTARTS = (
    ("Restart", "always"),
    ("RestartSec", "1s"),
    ("RestartSteps", "5"),
    ("RestartMaxDelaySec", "30s"),
    ("RestartPreventExitStatus", " ".join(str(int(code)) for code in INCURABLE)),
)
"""After 1 s, and up to 30 s, each time longer. Ten starts in five minutes are too many: whoever waits
for its servers needs a minute for each, and so never comes there."""
STARTS = (("StartLimitIntervalSec", "5min"), ("StartLimitBurst", "10"))
HARDENING = (
    ("DynamicUser", "yes"),
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("PrivateUsers", "yes"),
    ("ProtectProc", "invisible"),
    ("ProcSubset", "pid"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectControlGroups", "yes"),
    ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("RemoveIPC", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged @resources"),
    ("SystemCallErrorNumber", "EPERM"),
    ("UMask", "0077"),
)

type Section = tuple[str, Sequence[tuple[str, str]]]


def unit_name(one: Runs) -> str:
    """Return the file name of a deployable's unit; a template unless it listens on a port."""
    return f"flotilla-{one.name}{'' if one.deployable.http_port else '@'}.service"


def generate(platform: Platform) -> Artifacts:
    """Return a target and a unit a deployable, for every topology of processes."""
    found: dict[str, str] = {}
    layouts = [layout for layout in platform.layouts.values() if layout.kind == "processes"]
    for layout in layouts:
        folder = "systemd" if len(layouts) == 1 else f"systemd/{layout.name}"
        instances: list[str] = []
        for placed in layout.deployables:
            one = runs(platform, placed.deployable, placed.replicas)
            found[f"{folder}/{unit_name(one)}"] = _text(_service(layout, one))
            instances += _instances(one, placed)
        found[f"{folder}/{TARGET}"] = _text(_target(layout, instances))
    return found


def _instances(one: Runs, placed: Placed) -> list[str]:
    name = unit_name(one)
    if "@" not in name:
        return [name]
    return [name.replace("@", f"@{number}") for number in range(1, placed.replicas + 1)]


def _target(layout: Layout, instances: Sequence[str]) -> list[Section]:
    return [
        ("Unit", [("Description", f"Flotilla, {layout.name}"), ("Wants", " ".join(instances))]),
        ("Install", [("WantedBy", "multi-user.target")]),
    ]


def _service(layout: Layout, one: Runs) -> list[Section]:
    servers = " ".join(SERVERS[resource.engine] for resource in layout.resources)
    replica = "" if one.deployable.http_port else " %i"
    unit = [
        ("Description", f"Flotilla {one.name}{replica}"),
        ("PartOf", TARGET),
        ("Wants", "network-online.target"),
        ("After", f"network-online.target {servers}"),
        *STARTS,
    ]
    return [
        ("Unit", unit),
        ("Service", list(_process(layout, one))),
        ("Install", [("WantedBy", TARGET)]),
    ]


def _process(layout: Layout, one: Runs) -> Iterator[tuple[str, str]]:
    deployable, given = one.deployable, one.deployable.resources
    yield "Type", "exec"
    yield "ExecStart", f"{PROGRAM} serve {one.name} --topology {layout.name} --log-format json"
    yield "User", f"flotilla-{one.name}"
    for name in one.secrets:
        variable = f"FLOTILLA_{name.upper().replace('-', '_')}_FILE"
        yield "LoadCredential", f"{name}:{SECRETS}/{one.name}/{name}"
        yield "Environment", f"{variable}=%d/{name}"
    if deployable.http_port:
        yield "Environment", "FLOTILLA_HTTP_HOST=127.0.0.1"
        yield "Environment", f"FLOTILLA_HTTP_PORT={deployable.http_port}"
    if deployable.machine_port:
        yield "Environment", f"FLOTILLA_ADMIN_HOST=127.0.0.{'1' if deployable.http_port else '%i'}"
        yield "Environment", f"FLOTILLA_ADMIN_PORT={deployable.machine_port}"
    yield "Environment", "PYTHONDONTWRITEBYTECODE=1"
    yield "EnvironmentFile", f"-{SETTINGS}/{one.name}.env"
    if not deployable.http_port:
        yield "EnvironmentFile", f"-{SETTINGS}/{one.name}-%i.env"
    yield from RESTARTS
    yield "KillMode", "mixed"
    yield "TimeoutStartSec", "30s"
    yield "TimeoutStopSec", f"{deployable.stop_timeout_s}s"
    yield "MemoryMax", f"{given.memory_limit_mib}M"
    yield "MemorySwapMax", "0"
    if given.cpu_limit_millis is not None:
        yield "CPUQuota", f"{given.cpu_limit_millis // 10}%"
    yield "TasksMax", str(given.pids_limit)
    yield from HARDENING


def _text(sections: Sequence[Section]) -> str:
    parts = [
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in pairs)
        for name, pairs in sections
    ]
    return comment(NOTICE) + "\n".join(parts)


SYSTEMD = Generator("systemd", "units and a target for one machine", ("systemd",), generate)
