"""The one place where an error becomes a status: RFC 9457 problems from `PROBLEMS`.

what was raised                  what the caller gets
Refusal     (we said no)         its code
Rejected    (a service said no)  its code; 409 when this build does not know the code
Conflict                         409, retry
Unavailable                      503 with Retry-After; 500 when it was a service's bug
Corrupt                          500 `corrupt`, without details
HTTPException (the framework)    404, 405 or 422
anything else                    500 `internal`, without details; the log has the traceback
"""

import json
from collections.abc import Sequence
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from flotilla.errors import Corrupt, KernelError, Rejected, Unavailable
from flotilla_contracts import PROBLEMS, ErrorCode, FieldError, Problem
from svc_web_bff.reply import NO_STORE, Header, Reply, shown

PROBLEM_JSON = b"application/problem+json"
ERRORS_MAX = 10
NO_SUCH_TENANT = "there is no such tenant"
"""Said of tenants that are not there and of those of others: to the byte the same."""

_UNKNOWN = (
    "a command may or may not have been executed: retrying it with the same Idempotency-Key is safe"
)
_INTERNAL = f"the log knows more, by X-Correlation-Id; {_UNKNOWN}"

_log = structlog.get_logger(__name__)


class Refusal(Exception):
    """The request is not one: said before any service hears of it."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        pointer: str | None = None,
        errors: Sequence[FieldError] = (),
    ) -> None:
        if pointer is not None:
            errors = (FieldError(pointer=pointer, detail=detail),)
            detail = f"{pointer}: {detail}"
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = tuple(errors[:ERRORS_MAX])


def invalid(pointer: str, detail: str) -> Refusal:
    """Return the refusal of one part of a request: 422 `invalid-request`."""
    return Refusal(ErrorCode.INVALID_REQUEST, detail, pointer=pointer)


def problem_reply(error: Exception) -> Reply:
    """Return what the caller of a failed request gets, and log what a human must see."""
    problem = _problem(error)
    # ASCII, because a client may have sent half a surrogate pair in what we now quote.
    body = json.dumps(problem.model_dump(mode="json"), separators=(",", ":")).encode("ascii")
    return Reply(
        body, *_headers(error, problem), NO_STORE, status=problem.status, media_type=PROBLEM_JSON
    )


def on_error(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer whatever was raised below Litestar."""
    reply = problem_reply(error)
    return Response(
        content=reply.body,
        status_code=reply.status,
        media_type=PROBLEM_JSON.decode(),
        headers={
            name.decode(): value.decode()
            for name, value in reply.headers
            if name not in (b"content-type", b"content-length")
        },
    )


def _problem(error: Exception) -> Problem:
    match error:
        case Refusal():
            return Problem.of(error.code, error.detail, error.errors)
        case KernelError():
            return _kernel_problem(error)
        case NotFoundException():
            return Problem.of(ErrorCode.ROUTE_NOT_FOUND, "no route has this path; see /docs")
        case MethodNotAllowedException():
            return Problem.of(ErrorCode.METHOD_NOT_ALLOWED, "see Allow for what this path takes")
        case HTTPException(status_code=status) if status < 500:  # noqa: PLR2004 - client errors
            return Problem.of(ErrorCode.INVALID_REQUEST, shown(error.detail))
        case _:
            _log.error("request failed", exc_info=error)
            return Problem.of(ErrorCode.INTERNAL, _INTERNAL)


def _kernel_problem(error: KernelError) -> Problem:
    code = ErrorCode(error.code) if error.code in ErrorCode else None
    if isinstance(error, Rejected):
        detail = NO_SUCH_TENANT if code is ErrorCode.TENANT_NOT_FOUND else str(error)
        return Problem.of(code, detail) if code else _unknown_rejection(error)
    if isinstance(error, Corrupt):
        # What is damaged, and where, is for the log and not for callers.
        _log.critical("stored data is damaged", exc_info=error)
        return Problem.of(ErrorCode.CORRUPT, "we must repair this; retrying does not help")
    if isinstance(error, Unavailable):
        _log.warning("a service is unavailable", code=error.code, reason=str(error))
        if code is ErrorCode.VIEW_BEHIND:
            return Problem.of(code, "retry, or ask without X-Consistency-Token")
        if code is ErrorCode.INTERNAL:  # a handler's bug: retrying at once would only repeat it
            return Problem.of(code, _INTERNAL)
        return Problem.of(ErrorCode.UNAVAILABLE, f"no answer in time; {_UNKNOWN}")
    return Problem.of(ErrorCode.CONFLICT, "nothing was changed; retry")


def _unknown_rejection(error: Rejected) -> Problem:
    """Return the problem for a refusal by a newer service: its status says "do not retry as is"."""
    _log.warning("a refusal has a code that is not in PROBLEMS", code=error.code)
    known = Problem.of(ErrorCode.CONFLICT, f"{error} ({error.code})")
    return known.model_copy(update={"title": "A rule refused this"})


def _headers(error: Exception, problem: Problem) -> list[Header]:
    headers: list[Header] = []
    retry_after_s = PROBLEMS[problem.code].retry_after_s
    if retry_after_s is not None and not isinstance(error, Rejected):
        headers.append((b"retry-after", b"%d" % retry_after_s))
    if isinstance(error, HTTPException) and error.headers and "allow" in error.headers:
        headers.append((b"allow", error.headers["allow"].encode()))
    return headers
