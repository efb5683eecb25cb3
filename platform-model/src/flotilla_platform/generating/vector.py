"""Vector: logs of the processes of a topology, as fields, without secrets, labelled, to Loki.

    docker_logs | journald ─▶ remap (flotilla.vrl) ─▶ loki

What is done to a line is `line.vrl` beside this module, in Vector's language; Vector reads it as a
file, since in its configuration every `$` would be a variable. Lines wait on disk while Loki is away
(`FLOTILLA_LOKI_URL`); when the disk's share is full, Vector reads no more until there is room.
"""

from collections.abc import Iterator
from importlib import resources
from typing import Any

from flotilla_platform.generating.artifact import NOTICE, Artifacts, Generator
from flotilla_platform.generating.running import DATABASE
from flotilla_platform.generating.systemd import SERVERS
from flotilla_platform.generating.writing import comment, yaml_text
from flotilla_platform.model import Layout, Placed, Platform

PROGRAM = "flotilla.vrl"
BUFFER_BYTES_MAX = 256 * 1024 * 1024 + 32
"""Vector refuses less."""
LABELS = ("fleet", "service", "level")
"""What lines are found by; few values each, or Loki suffers."""


def generate(platform: Platform) -> Artifacts:
    """Return what is done to a line, and a configuration for topologies of one machine."""
    program = resources.files(__package__).joinpath("line.vrl").read_text(encoding="utf-8")
    found = {f"vector/{PROGRAM}": comment(NOTICE) + program}
    for layout in platform.layouts.values():
        if source := _source(layout):
            found[f"vector/{layout.name}.yaml"] = yaml_text(_configuration(source))
    return found


def _source(layout: Layout) -> dict[str, Any] | None:
    match layout.kind:
        case "containers":  # compose calls them <project>-<service>-<replica>
            return {"type": "docker_logs", "include_containers": [f"{DATABASE}-"]}
        case "processes":
            units = [unit for one in layout.deployables for unit in _units(one)]
            servers = [SERVERS[resource.engine] for resource in layout.resources]
            return {"type": "journald", "current_boot_only": True, "include_units": units + servers}
        case _:
            return None


def _units(one: Placed) -> Iterator[str]:
    if one.deployable.http_port:
        yield f"flotilla-{one.name}.service"
        return
    for number in range(1, one.replicas + 1):
        yield f"flotilla-{one.name}@{number}.service"


def _configuration(source: dict[str, Any]) -> dict[str, Any]:
    return {
        "data_dir": "/var/lib/vector",
        "sources": {"lines": source},
        "transforms": {
            "fields": {
                "type": "remap",
                "inputs": ["lines"],
                "file": f"/etc/vector/{PROGRAM}",
                "drop_on_error": True,
            }
        },
        "sinks": {
            "loki": {
                "type": "loki",
                "inputs": ["fields"],
                "endpoint": "${FLOTILLA_LOKI_URL:?where Loki is}",
                "labels": {name: f"{{{{ {name} }}}}" for name in LABELS},
                "encoding": {"codec": "json"},
                "out_of_order_action": "accept",
                "buffer": {"type": "disk", "max_size": BUFFER_BYTES_MAX, "when_full": "block"},
                "request": {"timeout_secs": 10, "retry_max_duration_secs": 30},
            }
        },
    }


VECTOR = Generator("vector", "logs without secrets", ("vector",), generate)
