"""What services really send, as text that is the same after every run.

bus = RecordingBus(LocalBus(), emitted := [])      every body that passes, both ways
steady(b'{"at":"2026-01-02T03:04:05Z"}')           chance and time replaced, keys sorted
"""

import json
import re
from dataclasses import dataclass

from flotilla.bus import Answer, Bus, Handler, Request

_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SEALED = re.compile(r"sealed:1:[0-9a-f]{32}:[A-Za-z0-9_-]+")
_DRAWN = re.compile(r"(?<![\w-])(?:[0-9a-f]{64}|[0-9a-f]{32}(?=[\":])|[A-Za-z0-9_-]{43})(?![\w-])")
"""Hashes, ids without dashes, and 32 bytes of base64url."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it was sent, or the answer to one."""

    subject: str
    is_answer: bool
    body: bytes


@dataclass(frozen=True, slots=True)
class RecordingBus:
    """Passes everything on, and keeps the bodies in `sent`."""

    bus: Bus
    sent: list[Sent]

    async def serve(self, subject: str, handler: Handler) -> None:
        """Answer requests to `subject`."""
        await self.bus.serve(subject, handler)

    async def request(self, request: Request) -> Answer:
        """Return the answer; raises what the bus raises."""
        self.sent.append(Sent(request.subject, False, request.body))
        answer = await self.bus.request(request)
        self.sent.append(Sent(request.subject, True, answer.body))
        return answer


def steady(body: bytes) -> str:
    """Return JSON as text in which times, UUIDs, traces and secrets are always the same ones."""
    text = json.dumps(json.loads(body), sort_keys=True, ensure_ascii=False)
    text = _TIME.sub("2026-01-01T00:00:00+00:00", text)
    text = _UUID.sub("00000000-0000-7000-8000-000000000000", text)
    text = _TRACE.sub(f"00-{'1' * 32}-{'1' * 16}-01", text)
    text = _SEALED.sub(f"sealed:1:{'2' * 32}:{'A' * 40}", text)
    return _DRAWN.sub(lambda drawn: "0" * len(drawn[0]), text)


def shape_of(value: object) -> object:
    """Return what a JSON value looks like: its fields and their types, at any depth."""
    if isinstance(value, dict):
        return {key: shape_of(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return sorted({json.dumps(shape_of(inner), sort_keys=True) for inner in value})
    return type(value).__name__


def distinct(texts: list[str]) -> list[object]:
    """Return one value of every shape, the same ones whatever the order they came in."""
    found: dict[str, str] = {}
    for text in sorted(texts, key=lambda text: (len(text), text)):
        found.setdefault(json.dumps(shape_of(json.loads(text))), text)
    return [json.loads(text) for _, text in sorted(found.items())]
