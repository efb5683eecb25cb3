"""Flotilla's kernel: decide, commit, publish, project. Everything public is listed here.

Ports sit in their own modules (`store`, `outbox`, `projection`, `bus`); adapters in
`flotilla.stores` and `flotilla.buses`, for composition roots only; behaviour suites and the
given/when/then kit in `flotilla.testing`; servers from wheels in `flotilla.embedded`.
"""

from flotilla.aggregate import Aggregate, Claim, Decision, Done, SnapshotCodec
from flotilla.bus import Answer, Bus, Context, Handler, Request
from flotilla.clock import Clock, IdSource, SystemClock, uuid7
from flotilla.codec import Codec, ContractCodec
from flotilla.commit import GroupCommitter
from flotilla.decider import Decider
from flotilla.errors import (
    Conflict,
    Corrupt,
    EventTooLarge,
    KernelError,
    KeyReused,
    Rejected,
    Unavailable,
    VersionMismatch,
)
from flotilla.execute import execute
from flotilla.keys import DataKey, Destroyed, Erased, Erasure, KeyStatus, KeyStore
from flotilla.lanes import Lanes
from flotilla.lease import Leadership, Lease, LeaseStatus, LeaseStore
from flotilla.master_key import MasterKeys
from flotilla.outbox import (
    LeaseLost,
    LogEvent,
    LogReader,
    LogStatus,
    Offset,
    Outbox,
    OutboxEntry,
    Pruned,
)
from flotilla.privacy import Rotated, Vault
from flotilla.projection import (
    Checkpoint,
    Fenced,
    Projection,
    ViewSession,
    ViewStore,
)
from flotilla.service import Bindings, Health, HttpBinding, KeysBinding, Lag, Running
from flotilla.store import EventStore, RecordedEvent, StreamId, Version, stream_id

__all__ = [
    "Aggregate",
    "Answer",
    "Bindings",
    "Bus",
    "Checkpoint",
    "Claim",
    "Clock",
    "Codec",
    "Conflict",
    "Context",
    "ContractCodec",
    "Corrupt",
    "DataKey",
    "Decider",
    "Decision",
    "Destroyed",
    "Done",
    "Erased",
    "Erasure",
    "EventStore",
    "EventTooLarge",
    "Fenced",
    "GroupCommitter",
    "Handler",
    "Health",
    "HttpBinding",
    "IdSource",
    "KernelError",
    "KeyReused",
    "KeyStatus",
    "KeyStore",
    "KeysBinding",
    "Lag",
    "Lanes",
    "Leadership",
    "Lease",
    "LeaseLost",
    "LeaseStatus",
    "LeaseStore",
    "LogEvent",
    "LogReader",
    "LogStatus",
    "MasterKeys",
    "Offset",
    "Outbox",
    "OutboxEntry",
    "Projection",
    "Pruned",
    "RecordedEvent",
    "Rejected",
    "Request",
    "Rotated",
    "Running",
    "SnapshotCodec",
    "StreamId",
    "SystemClock",
    "Unavailable",
    "Vault",
    "Version",
    "VersionMismatch",
    "ViewSession",
    "ViewStore",
    "execute",
    "stream_id",
    "uuid7",
]
