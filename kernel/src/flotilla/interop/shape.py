r"""An event of the library `eventsourcing` as a row of ours, and back. Pure.

    topic  bank.domain:Account.Opened   ─▶  type    account.opened.v1
    originator  4f1c…, tenant acme      ─▶  stream  acme/account/4f1c…
    state  b'{"owner":"Ann"}'           ─▶  payload {"owner":"Ann"}
    state  b'\x00\xff' (encrypted, …)   ─▶  payload {"base64": "AP8="}

What does not survive in these columns is in the metadata: the topic, the originator's version (which
may start at 0, ours start at 1) and which of the two ways the state was written.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent

from flotilla.aggregate import EVENT_BYTES_MAX
from flotilla.errors import Corrupt, EventTooLarge
from flotilla.store import StreamId, stream_id

JSON, BASE64 = "json", "base64"


@dataclass(frozen=True, slots=True)
class Row:
    """What is written of an event, besides its identity. `version` is the originator's."""

    originator: str
    stream: StreamId
    version: int
    type: str
    payload: str
    metadata: str


def to_row(event: StoredEvent, tenant: str) -> Row:
    """Return what to store. `Row.stream` counts if the originator is new.

    Raises:
        EventTooLarge: it could be stored and not be published, and would stop the relay.
        ValueError: the originator's id is empty, or the topic has a NUL character.

    """
    originator = str(event.originator_id)
    payload, encoding, schema = _payload(event.state)
    if (size := len(payload.encode())) > EVENT_BYTES_MAX:
        raise EventTooLarge(f"{event.topic} has {size} bytes; {EVENT_BYTES_MAX} are allowed")
    if "\0" in event.topic:
        raise ValueError("a topic with a NUL character cannot be stored")
    aggregate, name = type_parts(event.topic)
    metadata = {
        "topic": event.topic,
        "originator_version": str(event.originator_version),
        "encoding": encoding,
    }
    return Row(
        originator,
        stream_id(tenant, aggregate, quote(originator, safe="")),
        event.originator_version,
        f"{aggregate}.{name}.v{schema}",
        payload,
        json.dumps(metadata, ensure_ascii=False),
    )


def to_event(row: Mapping[str, Any], *, uuids: bool) -> StoredEvent:
    """Return the event of a row with `stream`, `payload` and `metadata`, both as text.

    With a `notification_id` in the row it is a `Notification`. Raises `Corrupt` for a row that this
    module did not write.
    """
    try:
        metadata = json.loads(row["metadata"])
        key = unquote(row["stream"].rsplit("/", 1)[1])
        event = StoredEvent(
            originator_id=UUID(key) if uuids else key,
            originator_version=int(metadata["originator_version"]),
            topic=metadata["topic"],
            state=_state(row["payload"], metadata["encoding"]),
        )
    except (KeyError, ValueError, TypeError, binascii.Error) as error:
        raise Corrupt(
            f"{row['stream']}: an event was not written by flotilla.interop.eventsourcing: {error!r}"
        ) from error
    if "notification_id" in row:
        return Notification(**vars(event), id=row["notification_id"])
    return event


def type_parts(topic: str) -> tuple[str, str]:
    """Return the aggregate and the event that a topic names, as parts of an event type.

    A topic is `module:Aggregate.Event`; a class that is in no other belongs to its module.
    """
    module, _, name = topic.rpartition(":")
    path = [part for part in name.split(".") if part != "<locals>"]
    owner = path[-2] if len(path) > 1 else module.rpartition(".")[2] or "aggregate"
    return _word(owner), _word(path[-1] if path else "")


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "_", text.lower()) or "_"


def _payload(state: bytes) -> tuple[str, str, int]:
    """Return the payload, how it was written, and the version of its schema."""
    try:
        text = state.decode()
        value = json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return json.dumps({"base64": base64.b64encode(state).decode()}), BASE64, 1
    schema = value.get("class_version", 1) if isinstance(value, dict) else 1
    return text, JSON, schema if type(schema) is int and schema > 0 else 1


def _not_json(constant: str) -> object:
    raise ValueError(f"Python reads {constant}, JSON does not")


def _state(payload: str, encoding: str) -> bytes:
    if encoding == BASE64:
        return base64.b64decode(json.loads(payload)["base64"], validate=True)
    return payload.encode()
