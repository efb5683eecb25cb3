"""Headers arrive as they were sent, however somebody wrote them: on a real NATS server."""

from collections.abc import Mapping

import pytest

from flotilla.embedded import NatsServer
from flotilla.nats import connected, hpub_frame, send_frames

TIMEOUT_S = 5.0


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        (b"a: 1\r\nce-type: x.y.v1\r\n", {"a": "1", "ce-type": "x.y.v1"}),
        (b"a: b: c\r\n", {"a": "b: c"}),
        (b"a:1\r\nb: 2\r\n", {"a": "1", "b": "2"}),
        (b"a:\t1 \r\n", {"a": "1"}),
        (b"a: \r\n", {"a": ""}),
        ("a: Größe\r\n".encode(), {"a": "Größe"}),
        (b"no line of a header\r\na: 1\r\n", {"a": "1"}),
    ],
)
async def test_headers_arrive_as_they_were_sent(
    nats_server: NatsServer, lines: bytes, read: Mapping[str, str]
) -> None:
    async with connected(nats_server.url, name="headers") as client:
        subscription = await client.subscribe("headers.test")
        await send_frames(client, hpub_frame("headers.test", lines, b"body"), count=1)
        message = await subscription.next_msg(timeout=TIMEOUT_S)
    assert (read, b"body") == (dict(message.headers or {}), message.data)
