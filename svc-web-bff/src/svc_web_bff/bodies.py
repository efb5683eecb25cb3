"""Reading a JSON object from a request, within limits: size, time, and what JSON may mean.

Refused: bodies above the limit (unread), other media types, what is not UTF-8 or not JSON, keys
that come twice (parsers disagree which one counts), `NaN` and `Infinity`.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from litestar.types import Receive

from flotilla_contracts import ErrorCode
from svc_web_bff.headers import Headers
from svc_web_bff.problems import Refusal, invalid
from svc_web_bff.reply import shown

type JsonObject = dict[str, Any]

_DIGITS_MAX = 18
_BEYOND_ANY_LIMIT: int = 10**_DIGITS_MAX


async def read_object(
    headers: Headers,
    receive: Receive,
    *,
    bytes_max: int,
    timeout_s: float,
    may_be_empty: bool = False,
) -> JsonObject:
    """Return the request's JSON object; `{}` for no body at all, where that is allowed.

    Raises:
        Refusal: it is too large, not JSON, not an object, or did not arrive in time.

    """
    declared = _declared_size(headers)
    if declared > bytes_max:
        raise _too_large(bytes_max)
    try:
        async with asyncio.timeout(timeout_s):
            body = await _read(receive, bytes_max, declared)
    except TimeoutError as error:
        raise Refusal(
            ErrorCode.MALFORMED_JSON, f"the body did not arrive within {timeout_s} s"
        ) from error
    if not body and may_be_empty and headers.get(b"content-type") is None:
        return {}
    _require_json(headers)
    if not body:
        if may_be_empty:
            return {}
        raise Refusal(ErrorCode.MALFORMED_JSON, "the body is empty; expected a JSON object")
    return parse_object(body)


def parse_object(body: bytes) -> JsonObject:
    """Return the JSON object that `body` is. Raises `Refusal`."""
    try:
        value: object = _DECODER.decode(body.decode("utf-8"))
    except RecursionError as error:
        raise Refusal(ErrorCode.MALFORMED_JSON, "nested too deeply") from error
    except UnicodeDecodeError as error:
        raise Refusal(
            ErrorCode.MALFORMED_JSON, f"not UTF-8 at byte {error.start}; JSON is UTF-8"
        ) from error
    except ValueError as error:
        raise Refusal(ErrorCode.MALFORMED_JSON, shown(str(error))) from error
    if not isinstance(value, dict):
        raise invalid("#", f"expected an object, not {_NAMES[type(value)]}")
    return value


def _declared_size(headers: Headers) -> int:
    """Return the Content-Length, or -1 where there is none."""
    declared = headers.get(b"content-length")
    return int(declared[:_DIGITS_MAX]) if declared and declared.isdecimal() else -1


async def _read(receive: Receive, bytes_max: int, declared: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refusal(ErrorCode.MALFORMED_JSON, "the body ended early")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > bytes_max:
            raise _too_large(bytes_max)
        chunks.append(chunk)
        # Asking once more only to hear that this was all costs as much as the rest of the reading.
        if size == declared or not message.get("more_body"):
            return b"".join(chunks)


def _too_large(bytes_max: int) -> Refusal:
    return Refusal(ErrorCode.BODY_TOO_LARGE, f"a body may have {bytes_max} bytes")


def _require_json(headers: Headers) -> None:
    code = ErrorCode.UNSUPPORTED_MEDIA_TYPE
    given = headers.single(b"content-type", code)
    if given == "application/json":
        return
    media_type, *parameters = (part.strip().lower() for part in (given or "").split(";"))
    utf8 = ("", "charset=utf-8", 'charset="utf-8"')
    if media_type != "application/json" or any(part not in utf8 for part in parameters):
        raise Refusal(
            code, "expected Content-Type: application/json", pointer="header:content-type"
        )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise invalid(pointer_to(key), "this key comes twice in one object")
            seen.add(key)
    return found


def _bounded_int(digits: str) -> int:
    """Read an integer; what is longer than any limit of ours need not be exact (nor take long)."""
    if len(digits) <= _DIGITS_MAX:
        return int(digits)
    return -_BEYOND_ANY_LIMIT if digits.startswith("-") else _BEYOND_ANY_LIMIT


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_int=_bounded_int, parse_constant=_no_constant
)
_NAMES: Mapping[type, str] = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def pointer_to(key: object) -> str:
    """Return the JSON pointer of a field of the body."""
    return "#/" + shown(str(key)).replace("~", "~0").replace("/", "~1")
