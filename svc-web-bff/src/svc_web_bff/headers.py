"""What request headers may say: one function a header, each with its own refusal.

None of these headers may be repeated: two tenants or two keys in one request are somebody's
mistake, or somebody's trick on a proxy that reads the other one.
"""

import re
from collections.abc import Iterable

from flotilla.store import Version, stream_id
from flotilla_contracts import ErrorCode
from flotilla_contracts.message import IDENTIFIER_LENGTH_MAX, IDENTIFIER_PATTERN
from flotilla_contracts.tenant_events import (
    SYSTEM,
)
from svc_web_bff.problems import Refusal

KEY_LENGTH_MAX = 255
VERSION_PATTERN = "0|[1-9][0-9]{0,14}"
"""A version, as text: every reader of JSON has all 15 digits exactly."""

_IDENTIFIER = re.compile(IDENTIFIER_PATTERN)
_CORRELATION = re.compile(r"[A-Za-z0-9._-]{1,128}")
_KEY = re.compile(rf"[\x21-\x7e]{{1,{KEY_LENGTH_MAX}}}")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_VERSION = re.compile(VERSION_PATTERN)
_STRONG_TAG = re.compile(f'"({VERSION_PATTERN})"')
_ANY_TAG = re.compile(r'(?:W/)?("[^"]*")')

IDENTIFIER_RULE = "1 to 64 of letters, digits, '.', '_', '-', and not dots alone"


class Headers:
    """The headers of one request, by lower-case name."""

    __slots__ = ("_raw", "_repeated", "_values")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._values: dict[bytes, bytes] = {}
        self._repeated: set[bytes] | None = None
        for name, value in raw:
            if name in self._values:
                self._repeated = (self._repeated or set()) | {name}
            self._values[name] = value

    def get(self, name: bytes) -> str | None:
        """Return the last value, or None."""
        value = self._values.get(name)
        return None if value is None else value.decode("latin-1")

    def single(self, name: bytes, code: ErrorCode) -> str | None:
        """Return the only value, or None. Raises `Refusal(code)` when there are several."""
        if self._repeated and name in self._repeated:
            raise _refused(code, name, "it may be sent only once")
        return self.get(name)

    def joined(self, name: bytes) -> str | None:
        """Return all values of a list header as one (`a, b`), or None."""
        if self._repeated and name in self._repeated:
            return ", ".join(value.decode("latin-1") for key, value in self._raw if key == name)
        return self.get(name)


def is_identifier(text: str) -> bool:
    """Return whether people may name a tenant or a counter so."""
    return len(text) <= IDENTIFIER_LENGTH_MAX and _IDENTIFIER.fullmatch(text) is not None


def tenant(headers: Headers) -> str:
    """Return whose request it is (`X-Tenant-Id`, in the development profile)."""
    value = headers.single(b"x-tenant-id", ErrorCode.TENANT_INVALID)
    if not value:
        raise _refused(ErrorCode.TENANT_MISSING, b"x-tenant-id", "say whose counters you mean")
    if not is_identifier(value):
        raise _refused(ErrorCode.TENANT_INVALID, b"x-tenant-id", f"expected {IDENTIFIER_RULE}")
    return value


def user(headers: Headers) -> str:
    """Return who asks (`X-User-Id`, in the development profile)."""
    value = headers.single(b"x-user-id", ErrorCode.USER_INVALID)
    if not value:
        raise _refused(ErrorCode.USER_MISSING, b"x-user-id", "say who you are")
    if not is_identifier(value):
        raise _refused(ErrorCode.USER_INVALID, b"x-user-id", f"expected {IDENTIFIER_RULE}")
    if value == SYSTEM:
        raise _refused(ErrorCode.USER_INVALID, b"x-user-id", f"`{SYSTEM}` is nobody outside")
    return value


def idempotency_key(headers: Headers) -> str:
    """Return the key; `"abc"` (the IETF draft's string) is the same key as `abc`."""
    value = headers.single(b"idempotency-key", ErrorCode.IDEMPOTENCY_KEY_INVALID)
    if not value:
        raise _refused(
            ErrorCode.IDEMPOTENCY_KEY_MISSING,
            b"idempotency-key",
            "send a new key (a UUID, say) for each new wish, and the same one when retrying it",
        )
    if value.startswith('"'):
        quoted = _QUOTED.fullmatch(value)
        value = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    if not _KEY.fullmatch(value):
        raise _refused(
            ErrorCode.IDEMPOTENCY_KEY_INVALID,
            b"idempotency-key",
            f"expected 1 to {KEY_LENGTH_MAX} visible ASCII characters",
        )
    return value


def expected_version(headers: Headers) -> Version | None:
    """Return the version that `If-Match` asks for.

    `*` asks for any: a counter that nobody used yet stands at 0 and version 0, so it always holds.
    """
    value = headers.single(b"if-match", ErrorCode.IF_MATCH_INVALID)
    if value is None or value == "*":
        return None
    tag = _STRONG_TAG.fullmatch(value)
    if tag is None:
        raise _refused(
            ErrorCode.IF_MATCH_INVALID, b"if-match", 'expected one strong ETag of ours, such as "7"'
        )
    return Version(int(tag[1]))


def consistency_token(headers: Headers, tenant: str, aggregate: str) -> str | None:
    """Return the `stream@version` of the tenant's that the view must have seen."""
    code = ErrorCode.CONSISTENCY_TOKEN_INVALID
    value = headers.single(b"x-consistency-token", code)
    if value is None:
        return None
    stream, _, version = value.rpartition("@")
    owner, _, rest = stream.partition("/")
    kind, _, key = rest.partition("/")
    if not (
        owner == tenant and kind == aggregate and is_identifier(key) and _VERSION.fullmatch(version)
    ):
        raise no_token_of_yours()
    return value


def no_token_of_yours() -> Refusal:
    """Return the refusal of a token: of what is none, and of those of others."""
    return _refused(
        ErrorCode.CONSISTENCY_TOKEN_INVALID,
        b"x-consistency-token",
        "expected a token that one of your commands answered with",
    )


def token_of(tenant: str, aggregate: str, key: str, version: int) -> bytes:
    """Return the consistency token that a command answers with."""
    return f"{stream_id(tenant, aggregate, key)}@{version}".encode()


def etag_of(version: int) -> bytes:
    """Return a version as an ETag."""
    return b'"%d"' % version


def is_known(if_none_match: str | None, etag: bytes) -> bool:
    """Return whether the caller already has this (`If-None-Match`, compared weakly)."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag.decode() in _ANY_TAG.findall(if_none_match)


def correlation_id(headers: Headers) -> str | None:
    """Return the caller's correlation id, if it may become one of ours."""
    value = headers.get(b"x-correlation-id")
    return value if value and _CORRELATION.fullmatch(value) else None


def _refused(code: ErrorCode, name: bytes, detail: str) -> Refusal:
    return Refusal(code, detail, pointer=f"header:{name.decode()}")
