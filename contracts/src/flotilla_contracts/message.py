"""What a message is: a frozen, versioned pydantic model with a name on the wire."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

IDENTIFIER_PATTERN = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"
IDENTIFIER_LENGTH_MAX = 64

Identifier = Annotated[
    str,
    StringConstraints(
        pattern=IDENTIFIER_PATTERN, min_length=1, max_length=IDENTIFIER_LENGTH_MAX, strict=True
    ),
]
"""What people may name: letters, digits, `.`, `_`, `-`; 1 to 64 of them; not dots alone.

Dots alone (`.`, `..`) are refused because every URL client on the way rewrites them.
"""

SEALED_PATTERN = r"^sealed:[0-9]+:[0-9a-f]{32}:[A-Za-z0-9_-]+$"
SEALED_LENGTH_MAX = 90_000

Personal = Annotated[
    str,
    StringConstraints(pattern=SEALED_PATTERN, max_length=SEALED_LENGTH_MAX, strict=True),
    Field(json_schema_extra={"x-personal": True}),
]
"""Personal data as it is stored and sent: sealed by the vault, unreadable once its key is destroyed.

Plain text does not pass, so that it cannot get into an event by mistake. In the JSON Schema such a
field says `x-personal: true`.
"""


class Message(BaseModel):
    """Common to all: immutable, and no silent coercion (`"5"` is not 5)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Event(Message):
    """A fact, in the past tense. Stored as it is: the stored event *is* the contract event.

    `type` ends with the schema version (`counter.incremented.v1`). A breaking change is a new class with
    the next version plus an upcaster; readers ignore fields they do not know, so adding an
    optional one is compatible.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    type: ClassVar[str]


class Reply(Message):
    """An answer to a command or a query. Unknown fields are ignored by older callers."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Ask(Message):
    """What one service asks of another. `subject` is where it is answered, with a `reply`."""

    subject: ClassVar[str]
    reply: ClassVar[type[Reply]]


class Command(Ask):
    """A wish, in the imperative, on `cmd.<service>.<verb>`."""


class Query(Ask):
    """A question without effect, on `qry.<service>.<question>`."""
