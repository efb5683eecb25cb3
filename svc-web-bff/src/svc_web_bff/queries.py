"""What query strings may say, and the cursor of a list."""

import base64
import re
from urllib.parse import parse_qsl

from flotilla_contracts import ErrorCode
from svc_web_bff.headers import is_identifier
from svc_web_bff.problems import Refusal, invalid
from svc_web_bff.reply import allowed, shown

_FIELDS_MAX = 20
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_CURSOR = re.compile(r"[A-Za-z0-9_-]{2,88}")


def parameters(query_string: bytes, *names: str) -> dict[str, str]:
    """Return the query parameters. Unknown and repeated ones are refused: they are mistakes."""
    if not query_string:
        return {}
    try:
        pairs = parse_qsl(
            query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=_FIELDS_MAX
        )
    except ValueError as error:
        raise Refusal(ErrorCode.INVALID_REQUEST, "too many query parameters") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in names:
            raise invalid(
                f"query:{shown(name)}", f"there is no such parameter; allowed: {allowed(names)}"
            )
        if name in found:
            raise invalid(f"query:{name}", "it may be given only once")
        found[name] = value
    return found


def integers(given: dict[str, str], *names: str) -> dict[str, int]:
    """Return those of `names` that were given, as integers."""
    found = {}
    for name in names:
        if (text := given.get(name)) is None:
            continue
        if not _INTEGER.fullmatch(text):
            raise invalid(f"query:{name}", "expected an integer")
        found[name] = int(text)
    return found


def encode_cursor(last_id: str) -> str:
    """Return the opaque form of "after this id"."""
    return base64.urlsafe_b64encode(last_id.encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> str:
    """Return the id after which a page starts. Raises `Refusal` for what we never handed out."""
    last_id = ""
    if _CURSOR.fullmatch(cursor) and len(cursor) % 4 != 1:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        last_id = raw.decode("ascii", "replace")
    if not is_identifier(last_id) or encode_cursor(last_id) != cursor:
        raise Refusal(
            ErrorCode.CURSOR_INVALID,
            "expected the next_cursor of the page before",
            pointer="query:cursor",
        )
    return last_id
