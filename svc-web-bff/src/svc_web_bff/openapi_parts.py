"""The reusable parts of the OpenAPI document: parameters, headers, problems."""

from typing import Any

from flotilla_contracts import PROBLEMS, ErrorCode, FieldError, Problem
from flotilla_contracts.counter import PAGE_SIZE_MAX
from flotilla_contracts.message import IDENTIFIER_LENGTH_MAX, IDENTIFIER_PATTERN
from svc_web_bff.headers import KEY_LENGTH_MAX, VERSION_PATTERN
from svc_web_bff.openapi_examples import CORRELATION, COUNTER, CURSOR, KEY, TENANT, TOKEN
from svc_web_bff.openapi_tenant_examples import INVITATION

type Json = dict[str, Any]

PROBLEM_JSON = "application/problem+json"

_KEY_PATTERN = (
    rf"^([!#-~][!-~]{{0,{KEY_LENGTH_MAX - 1}}}"
    rf'|"([!#-\[\]-~]|\\["\\]){{1,{KEY_LENGTH_MAX}}}")$'
)
_NAME = IDENTIFIER_PATTERN.strip("^$")
_TOKEN_PATTERN = f"^{_NAME}/(counter|tenant)/{_NAME}@({VERSION_PATTERN})$"
_TEXT: Json = {"type": "string"}
_IDENTIFIER = _TEXT | {
    "pattern": IDENTIFIER_PATTERN,
    "minLength": 1,
    "maxLength": IDENTIFIER_LENGTH_MAX,
}
_EVERYWHERE = {"X-Correlation-Id": {"$ref": "#/components/headers/X-Correlation-Id"}}


def ref(kind: str, name: str) -> Json:
    """Return a reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def refs(kind: str, *names: str) -> list[Json]:
    """Return references to components of one kind."""
    return [ref(kind, name) for name in names]


def content(media_type: str, schema: Json, example: object) -> Json:
    """Return a body with its example."""
    return {media_type: {"schema": schema, "example": example}}


def answer(description: str, schema: Json, example: object, headers: tuple[str, ...] = ()) -> Json:
    """Return a JSON response."""
    return {
        "description": description,
        "headers": {**{name: ref("headers", name) for name in headers}, **_EVERYWHERE},
        "content": content("application/json", schema, example),
    }


def bodiless(description: str, headers: tuple[str, ...]) -> Json:
    """Return a response without a body."""
    return {
        "description": description,
        "headers": {**{name: ref("headers", name) for name in headers}, **_EVERYWHERE},
    }


def problems(*codes: ErrorCode) -> Json:
    """Return the error responses: one a status, with an example a code."""
    by_status: dict[int, list[ErrorCode]] = {}
    for code in (*codes, ErrorCode.CORRUPT, ErrorCode.INTERNAL):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {str(status): _problem(found) for status, found in sorted(by_status.items())}


def _problem(codes: list[ErrorCode]) -> Json:
    headers = dict(_EVERYWHERE)
    if any(PROBLEMS[code].retry_after_s is not None for code in codes):
        headers["Retry-After"] = ref("headers", "Retry-After")
    examples = {
        code.value: {"summary": PROBLEMS[code].title, "value": _problem_example(code)}
        for code in codes
    }
    return {
        "description": "; ".join(f"`{code.value}` ({PROBLEMS[code].title})" for code in codes),
        "headers": headers,
        "content": {PROBLEM_JSON: {"schema": ref("schemas", "Problem"), "examples": examples}},
    }


def _problem_example(code: ErrorCode) -> Json:
    errors: tuple[FieldError, ...] = ()
    detail = ""
    if code is ErrorCode.INVALID_REQUEST:
        wrong = "Input should be less than or equal to 1000000000"
        errors = (FieldError(pointer="#/by", detail=wrong),)
        detail = f"#/by: {wrong}"
    return Problem.of(code, detail, errors).model_dump(mode="json")


def components(schemas: Json) -> Json:
    """Return all components."""
    return {"schemas": schemas, "parameters": _parameters(), "headers": _headers()}


def _parameter(
    where: str, name: str, schema: Json, example: object, text: str, **more: Any
) -> Json:
    return {
        "name": name,
        "in": where,
        "description": text,
        "schema": schema,
        "example": example,
        **more,
    }


def _parameters() -> Json:
    integer: Json = {"type": "integer"}
    page = integer | {"minimum": 1, "maximum": PAGE_SIZE_MAX, "default": 50}
    after = integer | {"minimum": 0, "maximum": 2**53 - 1, "default": 0}
    before = integer | {"minimum": 1, "maximum": 2**53 - 1}
    cursor = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
    return {
        "CounterId": _parameter(
            "path", "counter_id", _IDENTIFIER, COUNTER, _COUNTER_ID_TEXT, required=True
        ),
        "Tenant": _parameter(
            "header", "X-Tenant-Id", _IDENTIFIER, TENANT, _TENANT_TEXT, required=True
        ),
        "TenantId": _parameter(
            "path", "tenant_id", _IDENTIFIER, TENANT, _TENANT_ID_TEXT, required=True
        ),
        "UserId": _parameter("path", "user_id", _IDENTIFIER, "bob", _USER_ID_TEXT, required=True),
        "InvitationId": _parameter(
            "path", "invitation_id", _IDENTIFIER, INVITATION, "The invitation.", required=True
        ),
        "User": _parameter("header", "X-User-Id", _IDENTIFIER, "ann", _USER_TEXT, required=True),
        "Member": _parameter("header", "X-User-Id", _IDENTIFIER, "ann", _MEMBER_TEXT),
        "IdempotencyKey": _parameter(
            "header",
            "Idempotency-Key",
            _TEXT | {"pattern": _KEY_PATTERN},
            KEY,
            _KEY_TEXT,
            required=True,
        ),
        "IfMatch": _parameter(
            "header",
            "If-Match",
            _TEXT | {"pattern": rf'^("({VERSION_PATTERN})"|\*)$'},
            '"7"',
            _MATCH_TEXT,
        ),
        "IfNoneMatch": _parameter("header", "If-None-Match", _TEXT, '"7"', _NONE_MATCH_TEXT),
        "ConsistencyToken": _parameter(
            "header",
            "X-Consistency-Token",
            _TEXT | {"pattern": _TOKEN_PATTERN},
            TOKEN,
            _READ_YOUR_WRITE_TEXT,
        ),
        "CorrelationId": _parameter(
            "header", "X-Correlation-Id", _TEXT, CORRELATION, _CORRELATION_TEXT
        ),
        "Limit": _parameter("query", "limit", page, 50, "How many at most."),
        "Cursor": _parameter("query", "cursor", cursor, CURSOR, _CURSOR_TEXT),
        "After": _parameter("query", "after", after, 0, _AFTER_TEXT),
        "Before": _parameter("query", "before", before, 4712, _BEFORE_TEXT),
    }


def _header(schema: Json, example: object, text: str) -> Json:
    return {"description": text, "schema": schema, "example": example}


def _headers() -> Json:
    return {
        "ETag": _header(_TEXT, '"7"', "Its version, quoted: for If-Match, If-None-Match."),
        "X-Consistency-Token": _header(
            _TEXT, TOKEN, "`stream@version`: send it with a read to see at least this."
        ),
        "Idempotency-Replayed": _header(
            {"const": "true"}, "true", "Sent when this is the stored answer of an earlier request."
        ),
        "Location": _header(_TEXT, f"/v1/tenants/{TENANT}", "Where what was made is found."),
        "Retry-After": _header({"type": "integer"}, 1, "Seconds to wait before the next try."),
        "X-Correlation-Id": _header(
            _TEXT, CORRELATION, "The conversation's id: yours, or a new one. Logs carry it."
        ),
    }


_COUNTER_ID_TEXT = (
    "The counter's name: 1 to 64 of letters, digits, `.`, `_`, `-`, and not dots alone."
    " A counter begins to exist when it is first counted."
)
_TENANT_TEXT = (
    "Whose counters these are. Tenants never see each other."
    " Believed in the development profile only."
)
_TENANT_ID_TEXT = "The tenant. Whoever is not a member of it is told that there is none."
_USER_ID_TEXT = "The member, by the id of the user."
_USER_TEXT = "Who asks. Believed in the development profile only."
_MEMBER_TEXT = (
    "Who asks. Needed where `FLOTILLA_WEB_BFF_MEMBERS_ONLY` is set: then only members of the tenant"
    " are answered, and others as if there were no such tenant."
)
_KEY_TEXT = (
    "Your name for this wish, so that sending it twice does it once: the same key with the same"
    ' content gets the same answer, to the byte. The quoted form `"abc"` is the same key as `abc`.'
    f" 1 to {KEY_LENGTH_MAX} visible ASCII characters; a UUID is fine."
)
_MATCH_TEXT = (
    "Do it only if it (the counter, the tenant) is at this version: one strong ETag of ours."
    ' `"0"` means: only if nobody has used it yet. `*` always holds.'
)
_NONE_MATCH_TEXT = "Answer 304 without a body if it is still at one of these versions."
_READ_YOUR_WRITE_TEXT = (
    "The X-Consistency-Token of one of your commands: the read waits, for a bounded time, until it"
    " can see that command's effect."
)
_CORRELATION_TEXT = "Your id for this conversation. What does not look like an id is replaced."
_CURSOR_TEXT = "The `next_cursor` of the page before. Leave it out for the first page."
_AFTER_TEXT = "Only events with versions greater than this: the `next_after` of the page before."
_BEFORE_TEXT = "Only what is before this offset: the `next_before` of the page before."
