"""From the parts of a request to a contract message, and what its refusal says about each part."""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import from_json

from flotilla_contracts import ErrorCode, FieldError, Query
from flotilla_contracts.message import Ask
from svc_web_bff.bodies import pointer_to
from svc_web_bff.headers import IDENTIFIER_RULE
from svc_web_bff.problems import Refusal
from svc_web_bff.reply import allowed


def message[M: Ask](
    kind: type[M],
    fields: Mapping[str, Any],
    path: Mapping[str, str] | None = None,
    given: Mapping[str, Any] | None = None,
) -> M:
    """Return the contract message, or refuse with every part of the request that is wrong.

    `fields` are the caller's, from the body or the query string; `path` is what the path says, and
    `given` what we say: neither of them can be said in `fields`.
    """
    path, given = path or {}, given or {}
    taken = {*path, *given}
    if twice := taken & fields.keys():
        lines = [{"loc": (name,), "type": "extra_forbidden", "msg": ""} for name in sorted(twice)]
        raise _refusal(kind, lines, {}, taken)
    try:
        return kind.model_validate({**fields, **path, **given})
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        lines = cast("list[dict[str, Any]]", found)
        raise _refusal(kind, lines, path, taken) from None


def version_in(body: bytes) -> int:
    """Return the version that a reply names: of the very bytes we pass on."""
    return int(from_json(body)["version"])


def _refusal(
    kind: type[Ask],
    lines: list[dict[str, Any]],
    path: Mapping[str, str],
    taken: set[str],
) -> Refusal:
    fields = [name for name in kind.model_fields if name not in taken]
    errors = []
    for line in lines:
        field = line["loc"][0] if line["loc"] else ""
        detail = str(line["msg"])
        if field in path:
            pointer, detail = f"path:{field}", f"expected {IDENTIFIER_RULE}"
        elif issubclass(kind, Query):
            pointer = f"query:{field}"
        else:
            pointer = pointer_to(field)
        if line["type"] == "extra_forbidden":
            detail = f"there is no such field; allowed: {allowed(fields)}"
        errors.append(FieldError(pointer=pointer, detail=detail))
    summary = "; ".join(f"{error.pointer}: {error.detail}" for error in errors[:3])
    return Refusal(ErrorCode.INVALID_REQUEST, summary, errors=errors)
