"""What travels around an event: CloudEvents 1.0 in binary mode, as message headers.

The payload of the message is the event's JSON, untouched; everything else is in `ce-*` headers
(NATS protocol binding: attribute values percent-encoded as in the HTTP binding) plus W3C
`traceparent`.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Self
from urllib.parse import quote, unquote

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/json"
_PRINTABLE = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
_ALL_PRINTABLE = re.compile(f"[{re.escape(_PRINTABLE)}]*").fullmatch


class Envelope(BaseModel):
    """The attributes of one published event. (`source`, `id`) identifies it for ever."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(description="The event's id, a UUID.")]
    source: Annotated[str, Field(description="Who published it: `urn:flotilla:service:<name>`.")]
    type: Annotated[str, Field(description="`<aggregate>.<event>.v<schema version>`.")]
    time: Annotated[AwareDatetime, Field(description="When it was recorded, by the store's clock.")]
    tenant: Annotated[str, Field(description="Whose it is.")]
    stream: Annotated[str, Field(description="`<tenant>/<aggregate>/<key>`.")]
    streamversion: Annotated[int, Field(ge=1, description="Its place in its stream: 1, 2, 3 …")]
    schemaversion: Annotated[int, Field(ge=1, description="The version of `type`'s schema.")]
    correlationid: Annotated[str, Field(description="The conversation it belongs to.")]
    causationid: Annotated[str | None, Field(description="The message that caused it.")] = None
    traceparent: Annotated[str | None, Field(description="W3C trace context.")] = None

    @property
    def dataschema(self) -> str:
        """Return the URI of the payload's JSON Schema (`contracts/schemas/events/`)."""
        return f"urn:flotilla:schema:{self.type}"

    def to_headers(self) -> dict[str, str]:
        """Return the message headers of this envelope."""
        attributes = {
            "specversion": SPEC_VERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": self.time.isoformat(),
            "subject": self.stream,
            "dataschema": self.dataschema,
            "tenant": self.tenant,
            "stream": self.stream,
            "streamversion": str(self.streamversion),
            "schemaversion": str(self.schemaversion),
            "correlationid": self.correlationid,
        }
        if self.causationid is not None:
            attributes["causationid"] = self.causationid
        headers = {f"ce-{name}": encoded(value) for name, value in attributes.items()}
        headers["content-type"] = CONTENT_TYPE
        if self.traceparent is not None:
            headers["traceparent"] = self.traceparent
        return headers

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """Return the envelope that `headers` carry.

        Raises:
            ValueError: a header is missing or not what CloudEvents or this model allows.

        """
        found = {
            name.removeprefix("ce-"): unquote(value)
            for name, value in headers.items()
            if name.startswith("ce-")
        }
        if (spec := found.pop("specversion", None)) != SPEC_VERSION:
            raise ValueError(f"not a CloudEvent {SPEC_VERSION}: ce-specversion is {spec!r}")
        for derived in ("subject", "dataschema"):
            found.pop(derived, None)
        return cls.model_validate({**found, "traceparent": headers.get("traceparent")})


def encoded(value: str) -> str:
    """Return an attribute's value as a header carries it; most are themselves already."""
    return value if _ALL_PRINTABLE(value) else quote(value, safe=_PRINTABLE)


def schema_version(event_type: str) -> int:
    """Return the schema version that ends an event type: 1 of `counter.opened.v1`."""
    return int(event_type.rsplit(".v", 1)[1])
