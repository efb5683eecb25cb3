"""What no adapter stores, so that all refuse the same.

Each database has its own idea of what is too long, too large or no JSON. These limits are narrower than
any of theirs, and cost a commit no more than a look at the lengths. That a payload is JSON is checked
by whoever parses it anyway: Postgres and libSQL by their columns, memory by `check_json`.
"""

import json
from collections.abc import Iterable, Sequence

from flotilla.aggregate import EVENT_BYTES_MAX
from flotilla.errors import EventTooLarge, Rejected
from flotilla.store import ClaimKey, IdempotencyRecord, NewEvent, StreamId, Unit, tenant_of

NAME_BYTES_MAX = 1024
"""A stream's name, or the parts of an idempotency key together: Postgres indexes up to 2,704 bytes.
Tenant and type as well: they travel in the subject, and a protocol line of NATS has 4,096 bytes."""
HEADERS_BYTES_MAX = 6 * 1024
"""Of stream, type, id and metadata together: headers, some of them twice, percent-encoded."""
MESSAGE_BYTES_MAX = EVENT_BYTES_MAX + 2 * 3 * HEADERS_BYTES_MAX + 2048
"""What an event that was committed takes at most on the broker, headers included."""
UNIT_BYTES_MAX = 16 * 1024 * 1024
"""All text and the reply of a unit."""
TTL_MAX_S = 2**31 - 1
JSON_DEPTH_MAX = 500
"""How deep arrays and objects of a payload may nest: SQLite stops at 1,000."""


class Unstorable(Rejected):
    """The unit holds what not every database can keep: NUL, half a surrogate pair, too long a name."""

    default_code = "unstorable"


class NotOneTenants(Rejected):
    """The unit writes for several tenants, or for one without a name."""

    default_code = "not-one-tenants"


def unit_tenant(unit: Unit) -> str:
    """Return for which tenant a unit of work is: the one of all its streams, and of its key.

    Raises `NotOneTenants` when there are several, or one without a name.
    """
    tenants = {tenant_of(append.stream) for append in unit.appends}
    if unit.record:
        tenants.add(unit.record.claim.tenant)
    if len(tenants) > 1 or "" in tenants:
        raise NotOneTenants(f"a unit of work is one tenant's, and this one is of {len(tenants)}")
    return next(iter(tenants), "")


def of_tenant(stream: StreamId, claims: Sequence[ClaimKey]) -> list[ClaimKey]:
    """Return the keys of a stream's own tenant: those of others stand for nothing here."""
    tenant = tenant_of(stream)
    return [claim for claim in claims if claim.tenant == tenant]


def check_storable(unit: Unit) -> None:
    """Raise `Unstorable` when a store cannot keep the unit, `EventTooLarge` when no broker takes it.

    `NotOneTenants` when it is no unit of one tenant.
    """
    unit_tenant(unit)
    text = "".join(_texts(unit))
    if "\0" in text:
        raise Unstorable("text with a NUL character cannot be stored")
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise Unstorable("text with half a surrogate pair cannot be stored") from error
    if unit.record:
        size_bytes += len(unit.record.reply)
        _check_record(unit.record)
    if size_bytes > UNIT_BYTES_MAX:
        raise Unstorable(f"a unit of {size_bytes} bytes; {UNIT_BYTES_MAX} are allowed")
    for append in unit.appends:
        _check_name("the stream", append.stream)
        for event in append.events:
            _check_size(append.stream, event)
            if event.payload.count("[") + event.payload.count("{") > JSON_DEPTH_MAX:
                _check_depth(event.payload)


def check_json(unit: Unit) -> None:
    """Raise `Unstorable` when a payload is not JSON (RFC 8259): for a store that does not parse it."""
    for append in unit.appends:
        for event in append.events:
            try:
                json.loads(event.payload, parse_constant=_no_constant)
            except ValueError as error:
                raise Unstorable(f"a payload is not JSON: {event.type}") from error


def _check_size(stream: StreamId, event: NewEvent) -> None:
    """Raise `EventTooLarge` when the broker might not take what would be committed."""
    names = (tenant_of(stream), event.type)
    headers = (stream, event.event_id, event.type, *event.metadata, *event.metadata.values())
    for what, texts, most in (
        ("payload", (event.payload,), EVENT_BYTES_MAX),
        ("stream, type and metadata", headers, HEADERS_BYTES_MAX),
        ("tenant and type", names, NAME_BYTES_MAX),
    ):
        if 4 * sum(map(len, texts)) > most:  # else it is small in any case, which is nearly always
            size = sum(len(text.encode()) for text in texts)
            if size > most:
                raise EventTooLarge(
                    f"{event.type[:80]}: {what} has {size} bytes; {most} are allowed"
                )


def is_storable(*texts: str) -> bool:
    """Return whether these can be stored; what cannot is nowhere, and is not asked for."""
    text = "".join(texts)
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _check_record(record: IdempotencyRecord) -> None:
    claim = record.claim
    _check_name("the idempotency key", f"{claim.tenant}{claim.scope}{claim.key}")
    if not 0 <= record.ttl_s <= TTL_MAX_S:
        raise Unstorable(f"an idempotency key kept for {record.ttl_s} s; {TTL_MAX_S} at most")


def _check_name(what: str, name: str) -> None:
    if len(name) > NAME_BYTES_MAX // 4 and (size := len(name.encode())) > NAME_BYTES_MAX:
        raise Unstorable(f"{what} has {size} bytes; {NAME_BYTES_MAX} are allowed")


def _check_depth(payload: str) -> None:
    """Refuse what nests too deep. Whether it is JSON is not asked."""
    depth, quoted, escaped = 0, False, False
    for character in payload:
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = character == "\\", character != '"'
        elif character in "[{":
            depth += 1
            if depth > JSON_DEPTH_MAX:
                raise Unstorable(f"a payload that nests deeper than {JSON_DEPTH_MAX}")
        elif character in "]}":
            depth -= 1
        else:
            quoted = character == '"'


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _texts(unit: Unit) -> Iterable[str]:
    for append in unit.appends:
        yield append.stream
        if append.snapshot:
            yield append.snapshot.state
        for event in append.events:
            yield from (event.event_id, event.type, event.payload)
            yield from event.metadata
            yield from event.metadata.values()
    if unit.record:
        yield from (unit.record.claim.tenant, unit.record.claim.scope, unit.record.claim.key)
