"""Every error code a caller may see, with its status: the one table.

Codes are stable; titles and details are for people. On the wire an error is an RFC 9457 problem.
"""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class ErrorCode(StrEnum):
    """What went wrong, for programs."""

    # The request is not one.
    MALFORMED_JSON = "malformed-json"
    INVALID_REQUEST = "invalid-request"
    BODY_TOO_LARGE = "body-too-large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    ROUTE_NOT_FOUND = "route-not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    TENANT_MISSING = "tenant-missing"
    TENANT_INVALID = "tenant-invalid"
    IDEMPOTENCY_KEY_MISSING = "idempotency-key-missing"
    IDEMPOTENCY_KEY_INVALID = "idempotency-key-invalid"
    IF_MATCH_INVALID = "if-match-invalid"
    CONSISTENCY_TOKEN_INVALID = "consistency-token-invalid"  # noqa: S105 - a code, not a secret
    CURSOR_INVALID = "cursor-invalid"
    USER_MISSING = "user-missing"
    USER_INVALID = "user-invalid"

    # The domain said no.
    COUNTER_NOT_FOUND = "counter-not-found"
    COUNTER_UPPER_BOUND_PASSED = "counter-upper-bound-passed"
    COUNTER_LOWER_BOUND_PASSED = "counter-lower-bound-passed"

    TENANT_NOT_FOUND = "tenant-not-found"
    TENANT_EXISTS = "tenant-exists"
    TENANT_NOT_ACTIVE = "tenant-not-active"
    TENANT_SUSPENDED = "tenant-suspended"
    TENANT_NOT_CLOSED = "tenant-not-closed"
    ROLE_NOT_ALLOWED = "role-not-allowed"
    MEMBER_NOT_FOUND = "member-not-found"
    MEMBER_EXISTS = "member-exists"
    MEMBER_STAYS = "member-stays"
    LAST_OWNER = "last-owner"
    INVITATION_NOT_FOUND = "invitation-not-found"
    INVITATIONS_TOO_MANY = "invitations-too-many"
    QUOTA_EXCEEDED = "quota-exceeded"
    SUBJECT_ERASED = "subject-erased"
    PERSONAL_TEXT_TOO_LONG = "personal-text-too-long"

    # The kernel said no.
    VERSION_MISMATCH = "version-mismatch"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    EVENT_TOO_LARGE = "event-too-large"
    UNSTORABLE = "unstorable"

    # The other families: try again (now, later), or wake a human.
    CONFLICT = "conflict"
    VIEW_BEHIND = "view-behind"
    UNAVAILABLE = "unavailable"
    CORRUPT = "corrupt"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class ProblemSpec:
    """The fixed part of a problem."""

    status: int
    title: str
    retry_after_s: int | None = None


PROBLEMS: dict[ErrorCode, ProblemSpec] = {
    ErrorCode.MALFORMED_JSON: ProblemSpec(400, "The body is not JSON"),
    ErrorCode.INVALID_REQUEST: ProblemSpec(422, "The request is not valid"),
    ErrorCode.BODY_TOO_LARGE: ProblemSpec(413, "The body is too large"),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: ProblemSpec(415, "Send application/json"),
    ErrorCode.ROUTE_NOT_FOUND: ProblemSpec(404, "There is nothing here"),
    ErrorCode.METHOD_NOT_ALLOWED: ProblemSpec(405, "Not with this method"),
    ErrorCode.TENANT_MISSING: ProblemSpec(400, "No tenant was named"),
    ErrorCode.TENANT_INVALID: ProblemSpec(400, "This cannot be a tenant"),
    ErrorCode.IDEMPOTENCY_KEY_MISSING: ProblemSpec(400, "An Idempotency-Key is required"),
    ErrorCode.IDEMPOTENCY_KEY_INVALID: ProblemSpec(400, "This cannot be an Idempotency-Key"),
    ErrorCode.IF_MATCH_INVALID: ProblemSpec(400, "If-Match is not an ETag of ours"),
    ErrorCode.CONSISTENCY_TOKEN_INVALID: ProblemSpec(400, "This is no consistency token of yours"),
    ErrorCode.CURSOR_INVALID: ProblemSpec(400, "This is no cursor of ours"),
    ErrorCode.USER_MISSING: ProblemSpec(401, "No user was named"),
    ErrorCode.USER_INVALID: ProblemSpec(400, "This cannot be a user"),
    ErrorCode.TENANT_NOT_FOUND: ProblemSpec(404, "There is no such tenant"),
    ErrorCode.TENANT_EXISTS: ProblemSpec(409, "The tenant exists already"),
    ErrorCode.TENANT_NOT_ACTIVE: ProblemSpec(409, "The tenant does not live now"),
    ErrorCode.TENANT_SUSPENDED: ProblemSpec(403, "The tenant is suspended"),
    ErrorCode.TENANT_NOT_CLOSED: ProblemSpec(409, "Only a closed tenant is erased"),
    ErrorCode.ROLE_NOT_ALLOWED: ProblemSpec(403, "Your role does not allow it"),
    ErrorCode.MEMBER_NOT_FOUND: ProblemSpec(404, "There is no such member"),
    ErrorCode.MEMBER_EXISTS: ProblemSpec(409, "The user is a member already"),
    ErrorCode.MEMBER_STAYS: ProblemSpec(409, "Who is a member is not erased"),
    ErrorCode.LAST_OWNER: ProblemSpec(409, "A tenant keeps an owner"),
    ErrorCode.INVITATION_NOT_FOUND: ProblemSpec(404, "There is no such invitation"),
    ErrorCode.INVITATIONS_TOO_MANY: ProblemSpec(409, "Too many invitations wait for an answer"),
    ErrorCode.QUOTA_EXCEEDED: ProblemSpec(409, "More than the plan allows"),
    ErrorCode.SUBJECT_ERASED: ProblemSpec(410, "What is asked about was erased"),
    ErrorCode.PERSONAL_TEXT_TOO_LONG: ProblemSpec(413, "The text is too long"),
    ErrorCode.COUNTER_NOT_FOUND: ProblemSpec(404, "There is no such counter"),
    ErrorCode.COUNTER_UPPER_BOUND_PASSED: ProblemSpec(409, "The counter would pass its bound"),
    ErrorCode.COUNTER_LOWER_BOUND_PASSED: ProblemSpec(409, "The counter would pass its bound"),
    ErrorCode.VERSION_MISMATCH: ProblemSpec(412, "The version is another one"),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: ProblemSpec(422, "This key was used for something else"),
    ErrorCode.EVENT_TOO_LARGE: ProblemSpec(413, "What would be stored is too large"),
    ErrorCode.UNSTORABLE: ProblemSpec(422, "This text cannot be stored"),
    ErrorCode.CONFLICT: ProblemSpec(409, "Others were faster", retry_after_s=1),
    ErrorCode.VIEW_BEHIND: ProblemSpec(503, "The view has not caught up yet", retry_after_s=1),
    ErrorCode.UNAVAILABLE: ProblemSpec(503, "Not available right now", retry_after_s=1),
    ErrorCode.CORRUPT: ProblemSpec(500, "Stored data is damaged"),
    ErrorCode.INTERNAL: ProblemSpec(500, "This is our fault"),
}


class FieldError(BaseModel):
    """What is wrong with one part of the request."""

    model_config = ConfigDict(frozen=True)

    pointer: str
    """Where: `#/by` in the body, `path:counter_id`, `query:limit`, `header:if-match`."""
    detail: str
    """What is wrong, and what is expected."""


class Problem(BaseModel):
    """An RFC 9457 problem (`application/problem+json`). Programs look at `code`."""

    model_config = ConfigDict(frozen=True)

    type: str
    """`urn:flotilla:problem:<code>`"""
    title: str
    status: int
    code: ErrorCode
    detail: str
    """What happened this time, and what to do about it."""
    errors: tuple[FieldError, ...] = ()

    @classmethod
    def of(
        cls, code: ErrorCode, detail: str = "", errors: tuple[FieldError, ...] = ()
    ) -> "Problem":
        """Return the problem for `code`, with this occurrence's `detail`."""
        spec = PROBLEMS[code]
        return cls(
            type=f"urn:flotilla:problem:{code.value}",
            title=spec.title,
            status=spec.status,
            code=code,
            detail=detail or spec.title,
            errors=errors,
        )
