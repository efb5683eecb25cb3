"""What is really there: rows of the store, messages of the log, rows of the read model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nats.aio.client import Client
from nats.errors import TimeoutError as NothingArrived
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from chaos.databases import Database
from flotilla_contracts import Envelope
from flotilla_contracts.wire import event_stream

FETCH_MESSAGES = 500
TIMEOUT_S = 10.0
CONSUMER_IDLE_MAX_S = 30.0

_SIGNS = {"counter.incremented.v1": 1, "counter.decremented.v1": -1}


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A row of `event`. `key` is the idempotency key that led to it; `by` is 0 when nothing moved."""

    stream: str
    version: int
    event_id: str
    key: str
    by: int
    value: int


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row of `event_outbox`."""

    position: int
    offset: int | None
    stream: str
    version: int


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A message of the log's JetStream stream."""

    offset: int
    event_id: str
    stream: str
    version: int


@dataclass(frozen=True, slots=True)
class Truth:
    """A moment in which nothing moves. What a suite does not have is None, and not judged.

    `ledger` and `log` are what follows offset `log_after`; the rest is this round's.
    """

    events: Sequence[StoredEvent]
    heads: Mapping[str, int]
    """The compare-and-set row of each stream."""
    replies: Mapping[str, tuple[int, int]]
    """Stored replies by idempotency key: value and version."""
    outbox: Sequence[OutboxRow]
    ledger: Sequence[LogMessage] | None = None
    log: Sequence[LogMessage] | None = None
    log_after: int = 0
    views: Mapping[str, tuple[int, int]] | None = None
    shown: Mapping[str, tuple[int, int]] | None = None
    """What a last query of each counter showed: value and version."""
    streams: Mapping[str, Sequence[StoredEvent]] = field(init=False)
    """The events of each stream, in order of their versions."""

    def __post_init__(self) -> None:
        """Sort the events into their streams, once."""
        streams: dict[str, list[StoredEvent]] = {}
        for event in sorted(self.events, key=lambda event: event.version):
            streams.setdefault(event.stream, []).append(event)
        object.__setattr__(self, "streams", streams)

    def but(self, **changes: Any) -> "Truth":
        """Return the same with some parts replaced."""
        return replace(self, **changes)


async def read_store(database: Database, *, schema: str, round_name: str) -> Truth:
    """Return what the tenants of one round (`<round>-…`) have in the store."""
    mine = f"{round_name}-%"

    async def rows(columns: str, table: str, by: str = "stream") -> Sequence[Mapping[str, Any]]:
        sql = f'select {columns} from "{schema}".{table} where {by} like $1'  # noqa: S608 - our names
        return await database.rows(sql, mine)

    events = await rows("stream, version, event_id, type, payload, metadata", "event")
    heads = await rows("stream, version", "aggregate")
    outbox = await rows('position, "offset", stream, version', "event_outbox")
    replies = await rows("key, reply", "idempotency", by="tenant")
    return Truth(
        [_event(row) for row in events],
        {row["stream"]: row["version"] for row in heads},
        {row["key"]: _value_and_version(row["reply"]) for row in replies},
        [OutboxRow(**row) for row in outbox],
    )


async def read_ledger(database: Database, *, schema: str, after: int) -> list[LogMessage]:
    """Return the offsets that the store has given."""
    sql = (
        'select "offset", cast(event_id as text) as event_id, stream, version'  # noqa: S608 - ours
        f' from "{schema}".outbox_entry where "offset" > $1 order by "offset"'
    )
    return [LogMessage(**row) for row in await database.rows(sql, after)]


async def read_views(database: Database, *, round_name: str) -> dict[str, tuple[int, int]]:
    """Return the rows of the read model by stream: value and version."""
    rows = await database.rows(
        "select tenant, counter_id, value, version from projector.counter_view"
        " where tenant like $1",
        f"{round_name}-%",
    )
    return {
        f"{row['tenant']}/counter/{row['counter_id']}": (row["value"], row["version"])
        for row in rows
    }


async def read_log(client: Client, service: str, *, after: int) -> list[LogMessage]:
    """Return the messages of a log that follow `after`, in the order in which they are stored."""
    name, js = event_stream(service), client.jetstream(timeout=TIMEOUT_S)
    last = (await js.stream_info(name)).state.last_seq
    found: list[LogMessage] = []
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=after + 1,
        ack_policy=AckPolicy.NONE,
        headers_only=True,
        mem_storage=True,
        inactive_threshold=CONSUMER_IDLE_MAX_S,
    )
    if last <= after:
        return found
    subscription = await js.pull_subscribe("", stream=name, config=config)
    try:
        while not found or found[-1].offset < last:
            try:
                messages = await subscription.fetch(FETCH_MESSAGES, timeout=TIMEOUT_S)
            except NothingArrived:
                break  # what is missing is for the checker to say
            for message in messages:
                envelope = Envelope.from_headers(message.headers or {})
                offset = message.metadata.sequence.stream
                found.append(
                    LogMessage(offset, envelope.id, envelope.stream, envelope.streamversion)
                )
    finally:
        await subscription.unsubscribe()
    return found


def _event(row: Mapping[str, Any]) -> StoredEvent:
    payload, metadata = json.loads(row["payload"]), json.loads(row["metadata"])
    return StoredEvent(
        row["stream"],
        row["version"],
        str(row["event_id"]),
        metadata["correlation"],
        _SIGNS.get(row["type"], 0) * payload.get("by", 0),
        payload.get("value", 0),
    )


def _value_and_version(reply: bytes) -> tuple[int, int]:
    fields = json.loads(reply)
    return fields["value"], fields["version"]
