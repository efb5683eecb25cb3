"""The bus over NATS: requests in queue groups, one per service, answered by FastStream subscribers.

    request() --headers, body--> [queue group <service>] --worker--> LocalBus.request --> handler
        ^                                                               |
        +------ body, flotilla-version, flotilla-replayed --------------+
        +------ flotilla-error: <family>/<code>, body: JSON of error_fields

A process answers with a `LocalBus` of its own, so that the same happens to a handler on both.
Header values are percent-encoded UTF-8: no key of a caller can end a line or begin a header.

    what fails                               the caller gets, and what it may conclude
    no connection                            Unavailable at once; not sent
    nobody serves the subject                Unavailable at once; not executed
    server or broker dies, answer is lost    Unavailable at the deadline; unknown
    all workers busy until the deadline      Unavailable at the deadline; not executed
    body or headers do not fit               Rejected at once; not sent
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote

import nats.errors
import structlog
from faststream.exceptions import SkipMessage
from faststream.nats import NatsMessage, NatsResponse
from faststream.nats.subscriber.usecases import ConcurrentCoreSubscriber
from nats.aio.client import Client
from nats.aio.msg import Msg

from flotilla.bus import (
    Answer,
    Context,
    Handler,
    Request,
    error_fields,
    error_from_fields,
    service_of,
)
from flotilla.buses.local import LocalBus, refuse_oversize
from flotilla.errors import KernelError, Rejected, Unavailable
from flotilla.nats import ArrivedMsg, FleetBroker

WORKERS_MAX = 512
"""Handlers running at the same time, for each subject and process."""
WAITING_MAX = 8192
"""Requests waiting for a worker, for each subject and process; further ones are dropped."""
HEADERS_SIZE_MAX_BYTES = 16_384
SERVE_TIMEOUT_S = 5.0
DRAIN_TIMEOUT_S = 10.0
"""How long `stop` lets handlers finish what they have begun."""

_DRAIN_POLL_S = 0.01
_ERROR, _VERSION, _REPLAYED = "flotilla-error", "flotilla-version", "flotilla-replayed"
# Printable ASCII but the escape itself; white space is encoded since clients trim it.
_SAFE = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"

log = structlog.get_logger()


class NatsBus:
    """Reaches whoever serves a subject, anywhere. Use as `async with NatsBus(url, name=…) as bus`.

    Heals by itself after the broker was gone: subscriptions come back, later requests work.
    """

    def __init__(self, url: str, *, name: str, workers_max: int = WORKERS_MAX) -> None:
        """`name` is the deployable's, for the connection and its inboxes (`flotilla.nats`)."""
        if workers_max < 2:  # noqa: PLR2004 - FastStream's word for "one after the other" is 1
            raise ValueError("a bus needs two workers or more to be concurrent")
        self._broker = FleetBroker(url, name=name)
        self._client: Client | None = None
        self._local = LocalBus()
        self._subscribers: list[ConcurrentCoreSubscriber] = []
        self._workers_max = workers_max

    async def start(self) -> None:
        """Connect. Raises `Unavailable` when there is no server."""
        self._client = await self._broker.connect()

    async def stop(self) -> None:
        """Take no new requests, finish those that were taken, disconnect; all in bounded time."""
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await asyncio.gather(*(self._drain(each) for each in self._subscribers))
        except (TimeoutError, nats.errors.Error) as error:
            log.warning("bus.requests_abandoned", error=repr(error))
        finally:
            self._subscribers.clear()
            await self._broker.stop()
            self._client = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.stop()

    async def serve(self, subject: str, handler: Handler) -> None:
        """Answer requests to `subject`, sharing them with the other processes that do.

        Returns when the broker knows it; within one process the last handler of a subject counts.

        Raises:
            Unavailable: the broker did not confirm; the subscription follows when it is back.

        """
        client = self._connected()
        known = self._local.serves(subject)
        await self._local.serve(subject, handler)
        if known:
            return
        subscriber = self._broker.subscriber(
            subject,
            queue=service_of(subject),
            max_workers=self._workers_max,
            pending_msgs_limit=WAITING_MAX,
        )
        subscriber(self._take)
        self._subscribers.append(subscriber)
        await subscriber.start()
        try:
            await client.flush(timeout=SERVE_TIMEOUT_S)  # type: ignore[arg-type] # any number works
        except nats.errors.Error as error:
            raise Unavailable(f"NATS did not confirm that we answer {subject}") from error

    async def request(self, request: Request) -> Answer:
        """Return the answer; raises as `Bus.request` and the table above say."""
        subject, timeout_s = request.subject, request.context.timeout_s
        refuse_oversize(request.body, f"a request to {subject}")
        headers = _encoded(request.context.to_headers())
        client = self._connected()
        try:
            # nats-py bounds its wait for the answer, not the time until the request is written.
            async with asyncio.timeout(timeout_s):
                reply = await client.request(subject, request.body, timeout_s, headers=headers)
        except nats.errors.NoRespondersError as error:
            raise Unavailable(f"nobody answers {subject}") from error
        except TimeoutError as error:
            raise Unavailable(f"no answer from {subject} within {timeout_s:g} s") from error
        except nats.errors.Error as error:
            raise Unavailable(f"cannot ask {subject}: {error}") from error
        return _answer(reply)

    def _connected(self) -> Client:
        """Return the connection; a request that waited in its buffer would be executed too late."""
        if self._client is None or not self._client.is_connected:
            raise Unavailable("not connected to NATS")
        return self._client

    async def _take(self, message: NatsMessage) -> NatsResponse:
        """Answer one request, in a worker. Whatever is raised in here is an error that travels."""
        try:
            context = Context.from_headers(_decoded(message.headers))
            left_s = context.timeout_s - _age_s(message.raw_message)
            if not left_s > 0:
                raise SkipMessage  # nobody waits any more, and nothing must happen now
            answer = await self._local.request(
                Request(
                    message.raw_message.subject, message.body, replace(context, timeout_s=left_s)
                )
            )
        except KernelError as error:
            fields = error_fields(error)
            return NatsResponse(
                json.dumps(fields).encode(),
                headers=_encoded({_ERROR: f"{fields['family']}/{fields['code']}"}),
            )
        headers = {_REPLAYED: "true"} if answer.replayed else {}
        if answer.version is not None:
            headers[_VERSION] = str(answer.version)
        return NatsResponse(answer.body, headers=headers)

    async def _drain(self, subscriber: ConcurrentCoreSubscriber) -> None:
        """Unsubscribe first: FastStream's own order drops what arrives while it waits."""
        subscription, subscriber.subscription = subscriber.subscription, None
        if subscription is not None:
            await subscription.drain()  # type: ignore[no-untyped-call]
        idle = False
        while not idle:
            await asyncio.sleep(_DRAIN_POLL_S)
            handed_over = subscriber.receive_stream.statistics().current_buffer_used
            idle = not handed_over and subscriber.limiter.value == self._workers_max


def _age_s(message: Msg) -> float:
    """Return how long a request has been in this process."""
    assert isinstance(message, ArrivedMsg)  # noqa: S101 - our connection makes no others
    return asyncio.get_running_loop().time() - message.arrived_s


def _answer(reply: Msg) -> Answer:
    """Return what a reply says, or raise it."""
    headers = reply.headers or {}
    try:
        if _ERROR in headers:
            raise error_from_fields(json.loads(reply.data))
        version = headers.get(_VERSION)
        return Answer(
            reply.data,
            version=None if version is None else int(version),
            replayed=headers.get(_REPLAYED) == "true",
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(
            f"an answer to {reply.subject} makes no sense: {error}", code="internal"
        ) from error


def _encoded(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers whose values are printable ASCII; lone surrogates come through as well.

    Raises:
        Rejected: they are too large to travel.

    """
    encoded = {name: quote(v, safe=_SAFE, errors="surrogatepass") for name, v in headers.items()}
    # The server counts headers, too, and would drop the connection; nats-py does not.
    size_bytes = sum(len(name) + len(value) + 4 for name, value in encoded.items())
    if size_bytes > HEADERS_SIZE_MAX_BYTES:
        raise Rejected(
            f"the headers have {size_bytes} bytes, more than {HEADERS_SIZE_MAX_BYTES}",
            code="invalid-request",
        )
    return encoded


def _decoded(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as they were before `_encoded`; raises `Rejected` for what it never makes."""
    try:
        return {name: unquote(v, errors="surrogatepass") for name, v in headers.items()}
    except UnicodeDecodeError as error:
        raise Rejected(f"not a request: bad header: {error}", code="invalid-request") from error
