"""Between our types and Postgres's rows and arrays."""

import json
from collections.abc import Iterator, Sequence

import asyncpg
from pydantic_core import to_json

from flotilla.outbox import LogEvent, OutboxEntry
from flotilla.store import (
    EMPTY,
    Append,
    ClaimKey,
    IdempotencyRecord,
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
    """Return the outbox entry of a row: position, offset, and the columns of `event` in order."""
    position, offset, stream, version, event_id, kind, payload, metadata, recorded_at = row
    event = RecordedEvent(
        stream, version, event_id, kind, payload, json.loads(metadata), recorded_at
    )
    return OutboxEntry(position, offset, event)


def log_event(row: asyncpg.Record) -> LogEvent:
    """Return the event of a row of events.sql."""
    offset, stream, version, kind, payload, recorded_at, *attributes = row
    tenant = tenant_of(stream)
    return LogEvent(
        offset, tenant, stream, version, kind, payload.encode(), recorded_at, *attributes
    )


def documents(units: Sequence[Unit], chains: Sequence[Chain]) -> tuple[str, str, str]:
    """Return $2 to $4 of commit.sql: the compare-and-sets, the idempotency records, the events.

    JSON, since the driver looks at every element of an array parameter by itself: three documents cost
    less than half of what twenty-one arrays did, with what the server spends on reading them.
    """
    appends: list[dict[str, object]] = []
    claims: list[dict[str, object]] = []
    events: list[dict[str, object]] = []
    for n, chain in enumerate(chains):
        appends += _compare_and_sets(n, [units[i] for i in chain])
        for unit in (units[i] for i in chain):
            if unit.record:
                claims.append(_claim(n, unit.record))
            for append in unit.appends:
                events += _events(n, append)
    return _document(appends), _document(claims), _document(events)


def _compare_and_sets(n: int, chain: Sequence[Unit]) -> Iterator[dict[str, object]]:
    """Yield one for each stream; several units build on each other in one stream."""
    for first, last in zip(chain[0].appends, chain[-1].appends, strict=True):
        row: dict[str, object] = {
            "chain": n,
            "stream": first.stream,
            "expected": first.expected,
            "version": last.version,
        }
        snapshots = (unit.appends[0].snapshot for unit in reversed(chain))
        if snapshot := last.snapshot if len(chain) == 1 else next(filter(None, snapshots), None):
            row["snapshot"] = snapshot.state
            row["snapshot_schema"] = snapshot.schema
            row["snapshot_version"] = snapshot.version
        yield row


def _claim(n: int, record: IdempotencyRecord) -> dict[str, object]:
    return {
        "chain": n,
        "tenant": record.claim.tenant,
        "scope": record.claim.scope,
        "key": record.claim.key,
        "fingerprint": record.fingerprint.hex(),
        "reply": record.reply.hex(),
        "ttl_s": record.ttl_s,
    }


def _events(n: int, append: Append) -> Iterator[dict[str, object]]:
    for version, event in enumerate(append.events, start=append.expected + 1):
        yield {
            "chain": n,
            "stream": append.stream,
            "version": version,
            "event_id": event.event_id,
            "type": event.type,
            "payload": event.payload,  # as a string: it is kept to the byte
            "metadata": dict(event.metadata),
        }


def _document(rows: Sequence[dict[str, object]]) -> str:
    return to_json(rows).decode()
