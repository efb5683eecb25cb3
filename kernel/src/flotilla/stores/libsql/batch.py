"""Committing a batch: look up what it depends on, settle it in memory, write it all at once.

    BEGIN IMMEDIATE ─▶ heads, replies ─▶ settle (pure) ─▶ four inserts of many rows ─▶ COMMIT
                                                    └─▶ refused? undo, and each unit by itself

Under the write lock nothing else moves, so deciding in memory is deciding in the database. A batch
costs ten statements, whatever its size. Only when the database refuses a row (a payload that is no
JSON) is the batch taken back, and its units are committed one by one, so that the poisoned one
fails alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flotilla.clock import Clock, to_us
from flotilla.errors import Corrupt, Rejected
from flotilla.store import (
    EMPTY,
    Append,
    ClaimKey,
    Committed,
    Conflicted,
    Failed,
    Outcome,
    Replayed,
    Reused,
    StoredReply,
    StreamId,
    Unit,
    Version,
    Wake,
)
from flotilla.stores.libsql.connection import Connection, Refused, read_sql
from flotilla.stores.libsql.due import write_wakes
from flotilla.stores.libsql.rows import claims_json, reply
from flotilla.stores.storable import Unstorable, check_storable

_HEADS, _REPLIES, _MOVE_AGGREGATES = map(read_sql, ("heads", "replies", "move_aggregates"))
_ADD_EVENTS, _ADD_OUTBOX, _ADD_RECORDS = map(read_sql, ("add_events", "add_outbox", "add_records"))
_LAST_RECORDED_AT = "select recorded_at from event order by rowid desc limit 1"
_SECOND_US = 1_000_000
_BROKEN = Version(-1)
"""The head of a stream of which a unit was not committed: what follows was decided on a phantom."""


@dataclass(slots=True)
class Settled:
    """What a batch comes to: an outcome for each unit, and the rows that make it so."""

    outcomes: list[Outcome] = field(default_factory=list)
    events: list[tuple[object, ...]] = field(default_factory=list)
    aggregates: list[tuple[object, ...]] = field(default_factory=list)
    records: list[tuple[object, ...]] = field(default_factory=list)
    wakes: dict[StreamId, Wake] = field(default_factory=dict)


def commit_batch(
    connection: Connection, units: Sequence[Unit], *, log: str, clock: Clock
) -> list[Outcome]:
    """Commit `units` as if they came one after the other, in one transaction."""
    with connection.transaction():
        now_us = to_us(clock.now())
        for [last_us] in connection.rows(_LAST_RECORDED_AT):  # a log's time never goes back
            now_us = max(now_us, int(str(last_us)))
        try:
            with connection.savepoint():
                return _commit(connection, units, log, now_us)
        except (Refused, Corrupt):
            broken: dict[StreamId, Version] = {}
            outcomes: list[Outcome] = []
            for unit in units:
                outcomes.append(_commit_alone(connection, unit, log, now_us, broken))
                if outcomes[-1] != Committed():
                    broken |= dict.fromkeys((a.stream for a in unit.appends), _BROKEN)
            return outcomes


def settle(
    units: Sequence[Unit],
    heads: Mapping[StreamId, Version],
    replies: Mapping[ClaimKey, StoredReply],
    now_us: int,
) -> Settled:
    """Decide every unit, each on what those before it left behind. Pure.

    `heads` are the versions of the streams they name, `replies` what their keys stand for now.
    """
    settled = Settled()
    versions, known = dict(heads), dict(replies)
    for unit in units:
        outcome = _outcome(unit, versions, known)
        settled.outcomes.append(outcome)
        if outcome != Committed():
            versions |= dict.fromkeys((a.stream for a in unit.appends), _BROKEN)
            continue
        for append in unit.appends:
            versions[append.stream] = append.version
            settled.events += _event_rows(append)
            if append.events or append.snapshot:
                settled.aggregates.append(_aggregate_row(append))
            if append.wake:
                settled.wakes[append.stream] = append.wake
        if unit.record:
            claim, ttl_s = unit.record.claim, unit.record.ttl_s
            stored = StoredReply(unit.record.fingerprint, unit.record.reply)
            if ttl_s > 0:
                known[claim] = stored
            settled.records.append(
                (
                    *(claim.tenant, claim.scope, claim.key),
                    *(stored.fingerprint.hex(), stored.reply.hex()),
                    now_us + ttl_s * _SECOND_US,
                )
            )
    return settled


def _outcome(
    unit: Unit, versions: Mapping[StreamId, Version], known: Mapping[ClaimKey, StoredReply]
) -> Outcome:
    try:
        check_storable(unit)
    except Rejected as error:
        return Failed(error)
    if unit.record and (stored := known.get(unit.record.claim)):
        same = stored.fingerprint == unit.record.fingerprint
        return Replayed(stored.reply) if same else Reused()
    if any(versions.get(a.stream, EMPTY) != a.expected for a in unit.appends):
        return Conflicted()
    return Committed()


def _event_rows(append: Append) -> list[tuple[object, ...]]:
    return [
        (append.stream, version, e.event_id, e.type, e.payload, _json(dict(e.metadata)))
        for version, e in enumerate(append.events, start=append.expected + 1)
    ]


def _aggregate_row(append: Append) -> tuple[object, ...]:
    snapshot = append.snapshot
    kept = (snapshot.state, snapshot.schema, snapshot.version) if snapshot else (None, None, None)
    return (append.stream, append.version, *kept)


def _json(value: object) -> str:
    """Return JSON whose text is not escaped, so that the binding refuses half a surrogate pair."""
    return json.dumps(value, ensure_ascii=False)


def _commit(
    connection: Connection,
    units: Sequence[Unit],
    log: str,
    now_us: int,
    broken: Mapping[StreamId, Version] | None = None,
) -> list[Outcome]:
    streams = {append.stream for unit in units for append in unit.appends}
    claims = {unit.record.claim for unit in units if unit.record}
    heads = connection.rows(_HEADS, json.dumps(list(streams)))
    stored = connection.rows(_REPLIES, claims_json(claims), now_us) if claims else ()
    settled = settle(units, dict(heads) | dict(broken or {}), dict(map(reply, stored)), now_us)
    if settled.events:
        connection.run(_ADD_EVENTS, _json(settled.events), now_us)
        connection.run(_ADD_OUTBOX, _json([e[:2] for e in settled.events]), log)
    if settled.aggregates:
        connection.run(_MOVE_AGGREGATES, _json(settled.aggregates))
    if settled.records:
        connection.run(_ADD_RECORDS, _json(settled.records))
    if settled.wakes:
        write_wakes(connection, settled.wakes)
    return settled.outcomes


def _commit_alone(
    connection: Connection,
    unit: Unit,
    log: str,
    now_us: int,
    broken: Mapping[StreamId, Version],
) -> Outcome:
    try:
        with connection.savepoint():
            [outcome] = _commit(connection, [unit], log, now_us, broken)
            return outcome
    except Corrupt as error:
        return Failed(error)
    except Refused as error:
        if "UNIQUE constraint failed: event" in str(error):
            [stream, *_] = [append.stream for append in unit.appends]
            return Failed(Corrupt(f"{stream} has events beyond its version: {error}"))
        return Failed(Unstorable(f"the store does not take this: {error}"))
