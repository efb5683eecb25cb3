"""Calling another service: a contract message goes to a subject, an answer comes back.

Whether that is a function call in this process or a NATS request is decided where a deployable is
composed (`flotilla.buses`); neither caller nor handler can tell. Every bus passes
`flotilla.testing.BusContract`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from flotilla.errors import FAMILIES, KernelError, Rejected
from flotilla.store import Version

TIMEOUT_S = 5.0
_PREFIX = "flotilla-"


@dataclass(frozen=True, slots=True)
class Context:
    """What travels with a request: whose it is, what it belongs to, and how long it may take.

    `timeout_s` is what is left of the deadline; it is relative because clocks differ.
    `consistency_token` asks a query to wait until the view has seen `stream@version`.
    """

    tenant: str
    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None
    idempotency_key: str | None = None
    expected_version: Version | None = None
    consistency_token: str | None = None
    timeout_s: float = TIMEOUT_S

    def to_headers(self) -> dict[str, str]:
        """Return the message headers of this context."""
        fields = {
            "tenant": self.tenant,
            "correlation-id": self.correlation_id,
            "causation-id": self.causation_id,
            "idempotency-key": self.idempotency_key,
            "expected-version": self.expected_version,
            "consistency-token": self.consistency_token,
            "timeout-s": self.timeout_s,
        }
        headers = {
            _PREFIX + name: str(value) for name, value in fields.items() if value is not None
        }
        return headers | ({"traceparent": self.traceparent} if self.traceparent else {})

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """Return the context that `headers` carry.

        Raises:
            Rejected: the tenant is missing, or a number is none.

        """
        expected = headers.get(_PREFIX + "expected-version")
        try:
            return cls(
                tenant=headers[_PREFIX + "tenant"],
                correlation_id=headers.get(_PREFIX + "correlation-id", ""),
                causation_id=headers.get(_PREFIX + "causation-id"),
                traceparent=headers.get("traceparent"),
                idempotency_key=headers.get(_PREFIX + "idempotency-key"),
                expected_version=None if expected is None else Version(int(expected)),
                consistency_token=headers.get(_PREFIX + "consistency-token"),
                timeout_s=min(float(headers.get(_PREFIX + "timeout-s", TIMEOUT_S)), 60.0),
            )
        except (KeyError, ValueError) as error:
            raise Rejected(f"not a request: bad header {error}", code="invalid-request") from error


@dataclass(frozen=True, slots=True)
class Request:
    """A contract command or query on its way: JSON in `body`."""

    subject: str
    body: bytes
    context: Context


@dataclass(frozen=True, slots=True)
class Answer:
    """A contract reply on its way back: JSON in `body`, kept to the byte.

    `version` is the version that a stream has after a command; `replayed` says that the command had
    been executed before under the same idempotency key.
    """

    body: bytes
    version: int | None = None
    replayed: bool = False


Handler = Callable[[Request], Awaitable[Answer]]


class Bus(Protocol):
    """Request and reply between services."""

    async def serve(self, subject: str, handler: Handler) -> None:
        """Answer requests to `subject`; several servers of one subject share them."""
        ...

    async def request(self, request: Request) -> Answer:
        """Return the answer.

        Raises what the handler raised (as its family, with its code and message), and `Unavailable`
        when nobody answers within `context.timeout_s`: whether the handler ran is then unknown.
        """
        ...


def error_fields(error: KernelError) -> dict[str, str]:
    """Return an error as it travels."""
    return {"family": error.family, "code": error.code, "message": str(error)}


def error_from_fields(fields: Mapping[str, str]) -> KernelError:
    """Return the error that travelled."""
    return FAMILIES[fields["family"]](fields["message"], code=fields["code"])


def service_of(subject: str) -> str:
    """Return whose subject this is (`cmd.<service>.<verb>`): its servers' queue group."""
    return subject.split(".")[1]
