"""An answer whose bytes are ready: what handlers return."""

import json
from collections.abc import Iterable

from litestar.types import Receive, Scope, Send

Header = tuple[bytes, bytes]

JSON = b"application/json"
NO_STORE: Header = (b"cache-control", b"no-store")
REVALIDATE: Header = (b"cache-control", b"private, no-cache")
PER_TENANT: Header = (b"vary", b"X-Tenant-Id")
PER_USER: Header = (b"vary", b"X-User-Id")


class Reply:
    """Status, headers and the body to the byte. Litestar sends it as it is: it is an ASGI app."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        body: bytes,
        *headers: Header,
        status: int = 200,
        media_type: bytes = JSON,
    ) -> None:
        self.status = status
        self.body = body
        self.headers: list[Header] = [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(body)),
            *headers,
        ]

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the answer."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class NotModified(Reply):
    """304: the caller already has it. Such an answer has no body and no length."""

    def __init__(self, *headers: Header) -> None:
        super().__init__(b"", status=304)
        self.headers = list(headers)


def json_reply(content: object, *headers: Header, status: int = 200) -> Reply:
    """Return `content` as compact JSON."""
    body = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    return Reply(body, *headers, status=status)


def shown(text: str, *, length_max: int = 80) -> str:
    """Return what a client sent so that it is safe to show: printable ASCII, not too long."""
    safe = text[: length_max + 1].encode("ascii", "backslashreplace").decode("ascii")
    safe = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in safe)
    return safe if len(safe) <= length_max else safe[:length_max] + "..."


def allowed(names: Iterable[str]) -> str:
    """Return the names for a message: `limit, cursor`, or `none`."""
    return ", ".join(names) or "none"
