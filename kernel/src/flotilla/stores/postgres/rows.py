"""Between our types and Postgres's rows and arrays."""

import json
from collections.abc import Sequence
from typing import Any

import asyncpg

from flotilla.outbox import LogEvent, Offset, OutboxEntry
from flotilla.store import (
    EMPTY,
    ClaimKey,
    Loaded,
    RecordedEvent,
    Snapshot,
    StoredReply,
    StreamId,
    Unit,
    Version,
    tenant_of,
)
from flotilla.stores.rounds import Chain


def recorded(stream: StreamId, row: asyncpg.Record) -> RecordedEvent:
    """Return the event of a row."""
    return RecordedEvent(
        stream,
        Version(row["version"]),
        str(row["event_id"]),
        row["type"],
        row["payload"],
        json.loads(row["metadata"]),
        row["recorded_at"],
    )


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

LoadRequest = tuple[StreamId, int | None, Sequence[ClaimKey]]
"""A stream, the schema of the snapshots that can be used, and keys to look up."""


def loaded(asked: Sequence[LoadRequest], rows: Sequence[asyncpg.Record]) -> list[Loaded]:
    """Return the rows of load.sql as an answer to each request."""
    versions: dict[int, Version] = {}
    snapshots: dict[int, Snapshot] = {}
    events: dict[int, list[RecordedEvent]] = {}
    replies: dict[ClaimKey, StoredReply] = {}
    for row in rows:
        n = row["n"]
        stream, schema, _ = asked[n]
        match row["kind"]:
            case 0:
                versions[n] = Version(row["version"])
                if row["payload"] is not None and schema is not None:
                    at = Version(row["snapshot_version"])
                    snapshots[n] = Snapshot(at, schema, row["payload"])
            case 1:
                events.setdefault(n, []).append(recorded(stream, row))
            case _:
                claim = ClaimKey(row["tenant"], row["scope"], row["key"])
                replies[claim] = StoredReply(row["fingerprint"], row["reply"])
    return [
        Loaded(
            versions.get(n, EMPTY),
            snapshots.get(n),
            tuple(events.get(n, ())),
            {claim: replies[claim] for claim in claims if claim in replies},
        )
        for n, (_, _, claims) in enumerate(asked)
    ]


def entry(row: asyncpg.Record) -> OutboxEntry:
    """Return the outbox entry of a row of `outbox_entry`."""
    offset = row["offset"]
    return OutboxEntry(
        row["position"],
        None if offset is None else Offset(offset),
        recorded(StreamId(row["stream"]), row),
    )


def log_event(row: asyncpg.Record) -> LogEvent:
    """Return the event of a row of events.sql."""
    offset, stream, version, kind, payload, recorded_at, traceparent = row
    tenant = tenant_of(stream)
    return LogEvent(
        offset, tenant, stream, version, kind, payload.encode(), recorded_at, traceparent
    )


def append_arrays(units: Sequence[Unit], chains: Sequence[Chain]) -> list[list[Any]]:
    """Return $2 to $8 of commit.sql: one compare-and-set a chain and stream."""
    rows: list[tuple[object, ...]] = []
    for n, chain in enumerate(chains):
        first, last = units[chain[0]], units[chain[-1]]
        if len(chain) == 1:
            steps = [(append, append) for append in first.appends]
        else:
            steps = [(first.appends[0], last.appends[0])]
        for start, end in steps:
            snapshots = [units[i].appends[0].snapshot for i in chain] if len(chain) > 1 else []
            snapshot = next((s for s in reversed(snapshots) if s), None) or end.snapshot
            rows.append(
                (
                    n,
                    start.stream,
                    start.expected,
                    end.version,
                    snapshot.state if snapshot else None,
                    snapshot.schema if snapshot else None,
                    snapshot.version if snapshot else None,
                )
            )
    return _columns(rows, 7)


def claim_arrays(units: Sequence[Unit], chains: Sequence[Chain]) -> list[list[Any]]:
    """Return $9 to $15 of commit.sql: the idempotency records."""
    rows: list[tuple[object, ...]] = []
    for n, chain in enumerate(chains):
        for record in (units[i].record for i in chain):
            if record:
                key = record.claim
                stored = (record.fingerprint, record.reply, record.ttl_s)
                rows.append((n, key.tenant, key.scope, key.key, *stored))
    return _columns(rows, 7)


def event_arrays(units: Sequence[Unit], chains: Sequence[Chain]) -> list[list[Any]]:
    """Return $16 to $22 of commit.sql: the events, in the order of their positions."""
    rows: list[tuple[object, ...]] = []
    for n, chain in enumerate(chains):
        for append in (append for i in chain for append in units[i].appends):
            for version, event in enumerate(append.events, start=append.expected + 1):
                metadata = _encode(dict(event.metadata))
                text = (event.event_id, event.type, event.payload, metadata)
                rows.append((n, append.stream, version, *text))
    return _columns(rows, 7)


def _columns(rows: Sequence[tuple[object, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
