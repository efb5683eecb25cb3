"""The OpenTelemetry collector: what processes send (OTLP), in batches, within a limit of memory.

    flotilla serve --otlp-endpoint http://<collector>:4318
        ─▶ otlp ─▶ memory_limiter ─▶ redact ─▶ batch ─▶ otlp_http (traces) | prometheus (metrics)

Where traces go is the operator's: `FLOTILLA_OTLP_BACKEND`. The fleet's own metrics are scraped; those
that come here are of others who send them. Needs a collector (contrib) of 0.144 or newer.
"""

from typing import Any

from flotilla_platform.generating.artifact import Artifacts, Generator
from flotilla_platform.generating.writing import yaml_text
from flotilla_platform.model import Platform, TopologyKind

MEMORY_LIMIT_MIB = 256
QUEUE_BATCHES_MAX = 1000
LISTENS: dict[TopologyKind, str] = {"containers": "0.0.0.0", "processes": "127.0.0.1"}  # noqa: S104 - in a container
SECRET_ATTRIBUTES = (
    r".*(password|passwd|secret|token|authorization|cookie|credential|api[_\-.]?key).*"  # noqa: S105 - names of them
)
CREDENTIALS = r"://[^/\s@]+@"


def generate(platform: Platform) -> Artifacts:
    """Return a configuration for every topology in which processes can reach a collector by its name."""
    return {
        f"otel/{layout.name}.yaml": yaml_text(_collector(LISTENS[layout.kind]))
        for layout in platform.layouts.values()
        if layout.kind in LISTENS
    }


def _collector(host: str) -> dict[str, Any]:
    guards = ["memory_limiter", "redaction", "batch"]
    return {
        "extensions": {"health_check": {"endpoint": f"{host}:13133"}},
        "receivers": {
            "otlp": {
                "protocols": {
                    "http": {"endpoint": f"{host}:4318"},
                    "grpc": {"endpoint": f"{host}:4317"},
                }
            }
        },
        "processors": {
            "memory_limiter": {
                "check_interval": "1s",
                "limit_mib": MEMORY_LIMIT_MIB,
                "spike_limit_mib": MEMORY_LIMIT_MIB // 4,
            },
            "redaction": {
                "allow_all_keys": True,
                "ignored_keys": ["consistency_token"],
                "blocked_key_patterns": [f"(?i){SECRET_ATTRIBUTES}"],
                "blocked_values": [CREDENTIALS],
                "summary": "silent",
            },
            "batch": {"timeout": "1s", "send_batch_size": 512, "send_batch_max_size": 1024},
        },
        "exporters": _exporters(host),
        "service": {
            "extensions": ["health_check"],
            "pipelines": {
                "traces": {"receivers": ["otlp"], "processors": guards, "exporters": ["otlp_http"]},
                "metrics": {
                    "receivers": ["otlp"],
                    "processors": guards,
                    "exporters": ["prometheus"],
                },
            },
            "telemetry": {"logs": {"encoding": "json"}},
        },
    }


def _exporters(host: str) -> dict[str, Any]:
    return {
        "otlp_http": {
            "endpoint": "${env:FLOTILLA_OTLP_BACKEND}",
            "compression": "gzip",
            "timeout": "10s",
            "sending_queue": {"enabled": True, "queue_size": QUEUE_BATCHES_MAX},
            "retry_on_failure": {
                "enabled": True,
                "initial_interval": "1s",
                "max_interval": "30s",
                "max_elapsed_time": "5m",
            },
        },
        "prometheus": {"endpoint": f"{host}:8889", "metric_expiration": "5m"},
    }


OTEL = Generator("otel", "a collector of traces", ("otel",), generate)
