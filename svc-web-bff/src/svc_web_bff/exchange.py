"""What one HTTP request is called, in logs and on the bus."""

from dataclasses import dataclass
from typing import Any, cast

from litestar import Request
from litestar.types import Scope

from svc_web_bff.headers import Headers

AnyRequest = Request[Any, Any, Any]

_KEY = "flotilla.exchange"


@dataclass(slots=True)
class Exchange:
    """One request and its answer: which conversation and trace it belongs to, and how it went."""

    headers: Headers
    correlation_id: str
    traceparent: str | None = None
    status: int = 0
    is_body_over: bool = False

    def attach(self, scope: Scope) -> None:
        """Keep it where the handlers find it."""
        scope[_KEY] = self  # type: ignore[literal-required] # scopes are open to extensions

    @staticmethod
    def of(scope: Scope) -> "Exchange":
        """Return the exchange of a request."""
        return cast("Exchange", scope[_KEY])  # type: ignore[literal-required]
