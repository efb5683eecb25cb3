"""Rows, and what they stand for."""

import json
from collections.abc import Iterable
from typing import Any

from flotilla.clock import from_us
from flotilla.outbox import LogEvent, Offset, OutboxEntry
from flotilla.store import ClaimKey, RecordedEvent, StoredReply, StreamId, Version, tenant_of


def recorded(row: Iterable[Any]) -> RecordedEvent:
    """Return the event of a row: the columns of table `event`, in its order."""
    stream, version, event_id, kind, payload, metadata, at_us = row
    return RecordedEvent(
        StreamId(stream),
        Version(version),
        event_id,
        kind,
        payload,
        json.loads(metadata),
        from_us(at_us),
    )


def entry(row: Iterable[Any]) -> OutboxEntry:
    """Return the outbox entry of a row: position, offset, and those of `recorded`."""
    position, offset, *event = row
    return OutboxEntry(position, None if offset is None else Offset(offset), recorded(event))


def log_event(row: Iterable[Any]) -> LogEvent:
    """Return the event of a row of events.sql."""
    offset, stream, version, kind, payload, at_us, *attributes = row
    at, tenant = from_us(at_us), tenant_of(stream)
    return LogEvent(offset, tenant, stream, version, kind, payload.encode(), at, *attributes)


def reply(row: Iterable[Any]) -> tuple[ClaimKey, StoredReply]:
    """Return the key and its reply of a row: tenant, scope, key, fingerprint, reply."""
    tenant, scope, key, fingerprint, stored = row
    return ClaimKey(tenant, scope, key), StoredReply(fingerprint, stored)


def claims_json(claims: Iterable[ClaimKey]) -> str:
    """Return keys as statements take them: [[tenant, scope, key] …]."""
    return json.dumps([[claim.tenant, claim.scope, claim.key] for claim in claims])
