"""The paths of counters in the OpenAPI document."""

from flotilla_contracts import ErrorCode
from svc_web_bff.openapi_examples import (
    ACTIVITY_EXAMPLE,
    COUNTER_EXAMPLE,
    HISTORY_EXAMPLE,
    PAGE_EXAMPLE,
    TOTALS_EXAMPLE,
)
from svc_web_bff.openapi_parts import Json, answer, bodiless, content, problems, ref, refs

_WHO = ("Tenant", "Member", "CorrelationId")
_TENANT_CODES = (
    ErrorCode.TENANT_MISSING,
    ErrorCode.TENANT_INVALID,
    ErrorCode.USER_MISSING,
    ErrorCode.USER_INVALID,
    ErrorCode.TENANT_NOT_FOUND,
    ErrorCode.TENANT_SUSPENDED,
)
_READ_CODES = (*_TENANT_CODES, ErrorCode.INVALID_REQUEST, ErrorCode.UNAVAILABLE)
_COMMAND_CODES = (
    ErrorCode.MALFORMED_JSON,
    *_TENANT_CODES,
    ErrorCode.IDEMPOTENCY_KEY_MISSING,
    ErrorCode.IDEMPOTENCY_KEY_INVALID,
    ErrorCode.IF_MATCH_INVALID,
    ErrorCode.CONFLICT,
    ErrorCode.VERSION_MISMATCH,
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.EVENT_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.IDEMPOTENCY_KEY_REUSED,
    ErrorCode.UNAVAILABLE,
)
_REPLAY = ("ETag", "X-Consistency-Token", "Idempotency-Replayed")
_COMMAND_TEXTS = {
    "increment": "Adds `by` to the counter. The first step opens it at 0.",
    "decrement": "Takes `by` off the counter. Below its lower bound it is refused.",
    "reset": "Sets the counter back to 0. A counter that is at 0 stays as it is.",
}


def counter_paths() -> Json:
    """Return the paths of counters."""
    up, down = ErrorCode.COUNTER_UPPER_BOUND_PASSED, ErrorCode.COUNTER_LOWER_BOUND_PASSED
    one = "/v1/counters/{counter_id}"
    return {
        f"{one}/increment": {"post": _command("increment", "Count up", {"by": 5}, up)},
        f"{one}/decrement": {"post": _command("decrement", "Count down", {"by": 5}, down)},
        f"{one}/reset": {"post": _command("reset", "Go back to 0", {})},
        one: {"get": _get()},
        "/v1/counters": {"get": _list()},
        f"{one}/history": {"get": _history()},
        "/v1/totals": {"get": _totals()},
        "/v1/activity": {"get": _activity()},
    }


def _command(verb: str, summary: str, example: Json, *codes: ErrorCode) -> Json:
    schema = ref("schemas", f"{verb.title()}Body")
    return {
        "operationId": f"{verb}Counter",
        "tags": ["Counters"],
        "summary": summary,
        "description": _COMMAND_TEXTS[verb],
        "parameters": refs("parameters", "CounterId", "IdempotencyKey", "IfMatch", *_WHO),
        "requestBody": {
            "required": bool(example),
            "content": content("application/json", schema, example),
        },
        "responses": {
            "200": answer(
                "Done, and durable: where the counter stands now.",
                ref("schemas", "CounterReply"),
                COUNTER_EXAMPLE,
                _REPLAY,
            ),
            **problems(*_COMMAND_CODES, *codes, ErrorCode.ROUTE_NOT_FOUND),
        },
    }


def _get() -> Json:
    return {
        "operationId": "getCounter",
        "tags": ["Counters"],
        "summary": "One counter",
        "description": "Where a counter stands, from the read model.",
        "parameters": refs("parameters", "CounterId", "ConsistencyToken", "IfNoneMatch", *_WHO),
        "responses": {
            "200": answer(
                "Where it stands.", ref("schemas", "CounterReply"), COUNTER_EXAMPLE, ("ETag",)
            ),
            "304": bodiless("You have it already.", ("ETag",)),
            **problems(
                *_READ_CODES,
                ErrorCode.CONSISTENCY_TOKEN_INVALID,
                ErrorCode.COUNTER_NOT_FOUND,
                ErrorCode.ROUTE_NOT_FOUND,
                ErrorCode.VIEW_BEHIND,
            ),
        },
    }


def _list() -> Json:
    return _page(
        ("listCounters", "All counters of the tenant"),
        "The tenant's counters in order of their ids, a page at a time.",
        ("Limit", "Cursor", "ConsistencyToken"),
        answer("A page.", ref("schemas", "CounterPage"), PAGE_EXAMPLE),
        ErrorCode.CURSOR_INVALID,
        ErrorCode.CONSISTENCY_TOKEN_INVALID,
        ErrorCode.VIEW_BEHIND,
    )


def _history() -> Json:
    return _page(
        ("getCounterHistory", "What happened to a counter"),
        "Its events, oldest first, from the store itself: always current.",
        ("CounterId", "After", "Limit"),
        answer("A page.", ref("schemas", "HistoryPage"), HISTORY_EXAMPLE),
        ErrorCode.COUNTER_NOT_FOUND,
        ErrorCode.ROUTE_NOT_FOUND,
    )


def _totals() -> Json:
    return _page(
        ("getTotals", "All counters of the tenant together"),
        "How many there are and the sum of their values, from the read model.",
        (),
        answer("The totals.", ref("schemas", "TenantTotals"), TOTALS_EXAMPLE),
    )


def _activity() -> Json:
    return _page(
        ("listActivity", "What happened last"),
        "The last events of all the tenant's counters, newest first, a page at a time."
        " Old ones are forgotten here; a counter's history has them all.",
        ("Limit", "Before"),
        answer("A page.", ref("schemas", "ActivityPage"), ACTIVITY_EXAMPLE),
    )


def _page(
    name: tuple[str, str],
    description: str,
    parameters: tuple[str, ...],
    found: Json,
    *codes: ErrorCode,
) -> Json:
    """Return a read without an ETag; `name` is the operation's id and its summary."""
    return {
        "operationId": name[0],
        "tags": ["Counters"],
        "summary": name[1],
        "description": description,
        "parameters": refs("parameters", *parameters, *_WHO),
        "responses": {"200": found, **problems(*_READ_CODES, *codes)},
    }
