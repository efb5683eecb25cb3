"""Every way a use case can fail: four families.

KernelError
├── Rejected     the domain or a rule said no      → tell the caller, never retry
├── Conflict     somebody else was first           → retried by `execute`, then told
├── Unavailable  a dependency did not answer       → retry later, with back-off
└── Corrupt      stored data breaks a promise      → stop, wake a human

Anything else that escapes is a bug and must fail the request. `code` is stable and for programs; the
message is for people and says what to do. Across the bus an error travels as (family, code, message).
"""

from copy import copy
from typing import ClassVar


class KernelError(Exception):
    """Root of the tree above."""

    family: ClassVar[str]
    default_code: ClassVar[str]

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message or code or self.default_code)
        self.code = code or self.default_code


class Rejected(KernelError):
    """A rule said no. Subclasses name the rule that refused (`UpperBoundPassed`)."""

    family = "rejected"
    default_code = "rejected"


class Conflict(KernelError):
    """The stream moved on between load and commit, more often than we were willing to retry."""

    family = "conflict"
    default_code = "conflict"


class Unavailable(KernelError):
    """A dependency did not answer in time. What was asked may or may not have happened."""

    family = "unavailable"
    default_code = "unavailable"


class Corrupt(KernelError):
    """Stored data breaks a promise made when it was written."""

    family = "corrupt"
    default_code = "corrupt"


class VersionMismatch(Rejected):
    """The caller made its command depend on a version, and the stream is at another one."""

    default_code = "version-mismatch"


class KeyReused(Rejected):
    """The idempotency key was used before, for other content."""

    default_code = "idempotency-key-reused"


class EventTooLarge(Rejected):
    """What would be stored could not be published: refused before anything is written."""

    default_code = "event-too-large"


def for_each(error: BaseException, *, stopping: str) -> Exception:
    """Return a fresh error like `error`: one instance must not gather the tracebacks of many callers.

    `stopping` is what to say when it is no error, but the end of the process.
    """
    if isinstance(error, KernelError):
        fresh: Exception = type(error)(str(error), code=error.code)
    elif isinstance(error, Exception):
        fresh = copy(error)
    else:
        fresh = Unavailable(f"the process is stopping; {stopping}")
    fresh.__cause__ = error
    return fresh


FAMILIES: dict[str, type[KernelError]] = {
    kind.family: kind for kind in (Rejected, Conflict, Unavailable, Corrupt)
}
