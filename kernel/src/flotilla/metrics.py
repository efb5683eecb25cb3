"""Every metric of the fleet, by name: services fill them in, `/metrics` shows them.

`flotilla_<what>_<unit>`, counters with `_total`. Labels are few and bounded: a log, a projection, a
subject, an outcome; never a tenant, a stream or a key.
"""

from prometheus_client import Counter, Gauge, Histogram

READY = Gauge(
    "flotilla_ready", "1 while nothing is missing that this process needs for its work, else 0."
)
STORE_CONNECTIONS = Gauge(
    "flotilla_store_connections", "Open connections to PostgreSQL, by schema.", ["schema"]
)

COMMIT_BATCH_UNITS = Histogram(
    "flotilla_commit_batch_units",
    "Units that one flush brought to the store.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
COMMIT_UNITS = Counter(
    "flotilla_commit_units_total",
    "Units by outcome: committed, conflicted, replayed, reused, failed.",
    ["outcome"],
)

COMMANDS = Counter(
    "flotilla_commands_total",
    "Commands by subject and result: ok, replayed, or the family of the error.",
    ["subject", "result"],
)
COMMAND_DURATION_SECONDS = Histogram(
    "flotilla_command_duration_seconds",
    "From taking a command to its answer, at the side that handles it.",
    ["subject"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

RELAY_EVENTS = Counter(
    "flotilla_relay_events_total", "Events that the relay published, by log.", ["log"]
)
RELAY_HANDSHAKES = Counter(
    "flotilla_relay_handshakes_total",
    "Comparisons of the stream with the ledger, by log and by what was found.",
    ["log", "case"],
)

LOG_WAITING_EVENTS = Gauge(
    "flotilla_log_waiting_events", "Committed events without an offset, by log.", ["log"]
)
LOG_OLDEST_WAITING_SECONDS = Gauge(
    "flotilla_log_oldest_waiting_seconds",
    "Age of the oldest event without an offset, by log; 0 when there is none. The honest lag.",
    ["log"],
)
LOG_LAST_OFFSET = Gauge("flotilla_log_last_offset", "The last offset given, by log.", ["log"])

LOG_LEADER = Gauge(
    "flotilla_log_leader",
    "1 while somebody leads the log, by the lease in its store; 0: nobody relays it.",
    ["log"],
)

PROJECTION_OWNER = Gauge(
    "flotilla_projection_owner",
    "1 while somebody owns the projection, by the lease beside its view; 0: nobody folds it.",
    ["projection"],
)
PROJECTION_EVENTS = Counter(
    "flotilla_projection_events_total", "Events applied, by projection.", ["projection"]
)
PROJECTION_LAG_EVENTS = Gauge(
    "flotilla_projection_lag_events",
    "Committed events that the projection has not applied, published or not.",
    ["projection"],
)
PROJECTION_LAG_SECONDS = Gauge(
    "flotilla_projection_lag_seconds",
    "Age of the oldest committed event that the projection has not applied, by the store's clock.",
    ["projection"],
)
PROJECTION_PARKED_EVENTS = Gauge(
    "flotilla_projection_parked_events",
    "Events that the projection could not fold, and later ones of their keys: they wait for a human.",
    ["projection"],
)
PROJECTION_PARKED_OLDEST_SECONDS = Gauge(
    "flotilla_projection_parked_oldest_seconds",
    "For how long the oldest parked event has been parked; 0 when there is none.",
    ["projection"],
)

WORKFLOW_EVENTS = Counter(
    "flotilla_workflow_events_total",
    "What happened to instances of workflows, by the type of the event.",
    ["type"],
)
WORKFLOW_STEP_DURATION_SECONDS = Histogram(
    "flotilla_workflow_step_duration_seconds",
    "From asking for a step's command to its answer, at the worker that asks, by the outcome.",
    ["outcome"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
WORKFLOW_MOVING = Gauge(
    "flotilla_workflow_moving", "Instances of workflows that this process moves at the moment."
)
WORKFLOW_DUE_SECONDS = Gauge(
    "flotilla_workflow_due_seconds",
    "For how long the workflow that is due longest has waited for a worker; 0 when none does.",
)
WORKFLOW_INSTANCES = Gauge(
    "flotilla_workflow_instances", "Instances of workflows by where they stand.", ["status"]
)
