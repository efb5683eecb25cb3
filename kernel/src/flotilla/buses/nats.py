"""The bus over NATS: requests in queue groups, one per service, taken by FastStream subscribers.

    request() --headers, body--> [queue group <service>] --worker--> LocalBus.request --> handler
        ^                                                               |
        +------ body, flotilla-version, flotilla-replayed --------------+
        +------ flotilla-error: <family>/<code>, body: JSON of error_fields

A process answers with a `LocalBus` of its own, so that the same happens to a handler on both.
Header values are percent-encoded UTF-8: no key of a caller can end a line or begin a header.

    what fails                               the caller gets, and what it may conclude
    no connection                            Unavailable at once; not sent
    nobody serves the subject                Unavailable at once; not executed
    the server has too many to answer        Unavailable at once; not executed
    no worker is free until the deadline     Unavailable at the deadline; not executed
    server or broker dies, answer is lost    Unavailable at the deadline; unknown
    body or headers do not fit               Rejected at once; not sent

FastStream subscribes and hands messages over; running them side by side and publishing answers is
done here. Its own `max_workers` takes three times the CPU, drops what arrives while it stops, and
ends all its workers when one awaits something that was cancelled.
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
from faststream import AckPolicy
from faststream.nats import NatsMessage
from faststream.nats.subscriber.usecases import CoreSubscriber
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
from flotilla.buses.broker import FleetBroker
from flotilla.buses.local import LocalBus, refuse_oversize
from flotilla.errors import KernelError, Rejected, Unavailable
from flotilla.nats import ArrivedMsg

WORKERS_MAX = 512
"""Handlers running at the same time, for each subject and process."""
UNANSWERED_MAX = 8192
"""Requests that a process has taken and not answered yet; further ones are refused."""
HEADERS_SIZE_MAX_BYTES = 16_384
SERVE_TIMEOUT_S = 5.0
DRAIN_TIMEOUT_S = 10.0
"""How long `stop` lets handlers finish what they have begun."""

_ERROR, _VERSION, _REPLAYED = "flotilla-error", "flotilla-version", "flotilla-replayed"
# Printable ASCII but the escape itself; white space is encoded since clients trim it.
_SAFE = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"

log = structlog.get_logger()


class NatsBus:
    """Reaches whoever serves a subject, anywhere. Use as `async with NatsBus(url, name=…) as bus`.

    Heals by itself after the broker was gone: subscriptions come back, later requests work.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        workers_max: int = WORKERS_MAX,
        unanswered_max: int = UNANSWERED_MAX,
    ) -> None:
        """`name` is the deployable's, for the connection and its inboxes (`flotilla.nats`)."""
        self._broker = FleetBroker(url, name=name)
        self._client: Client | None = None
        self._local = LocalBus()
        self._subscribers: list[CoreSubscriber] = []
        self._workers: dict[str, asyncio.Semaphore] = {}
        self._workers_max = workers_max
        self._unanswered: set[asyncio.Task[None]] = set()
        self._unanswered_max = unanswered_max

    async def start(self) -> None:
        """Connect. Raises `Unavailable` when there is no server."""
        self._client = await self._broker.connect()

    @property
    def is_connected(self) -> bool:
        """Whether there is a broker now."""
        return self._client is not None and self._client.is_connected

    async def drain(self, timeout_s: float = DRAIN_TIMEOUT_S) -> None:
        """Take no new requests, and finish those that were taken, in `timeout_s` at most.

        For whoever is about to stop what answers them: other servers of the subjects get what comes
        from now on. Requests of this process's own still go out. A drained bus serves nothing again.
        """
        subscribers, self._subscribers = self._subscribers, []
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(_unsubscribe(each) for each in subscribers))
                if self._unanswered:
                    await asyncio.wait(self._unanswered)
                await self._connected().flush()
        except (OSError, nats.errors.Error, Unavailable) as error:  # a TimeoutError is an OSError
            log.warning("bus.drain_incomplete", left=len(self._unanswered), error=repr(error))
        finally:
            for task in self._unanswered:
                task.cancel()

    async def stop(self) -> None:
        """Drain, and disconnect; all in bounded time. A stopped bus is not started again."""
        try:
            if self._subscribers or self._unanswered:
                await self.drain()
        finally:
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
        self._workers[subject] = asyncio.Semaphore(self._workers_max)
        subscriber = self._broker.subscriber(
            subject,
            queue=service_of(subject),
            ack_policy=AckPolicy.MANUAL,  # there is nothing to acknowledge
            no_reply=True,  # `_respond` does, when the answer is there
        )
        subscriber(self._take)
        self._subscribers.append(subscriber)
        await subscriber.start()
        try:
            await client.flush(timeout=SERVE_TIMEOUT_S)  # type: ignore[arg-type] # any number works
        except (nats.errors.Error, OSError) as error:
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
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"cannot ask {subject}: {error}") from error
        return _answer(reply)

    def _connected(self) -> Client:
        """Return the connection; a request that waited in its buffer would be executed too late."""
        if self._client is None or not self.is_connected:
            raise Unavailable("not connected to NATS")
        return self._client

    async def _take(self, message: NatsMessage) -> None:
        """Take one request from the subscription, and be ready for the next at once."""
        if len(self._unanswered) >= self._unanswered_max:
            busy = Unavailable(f"{len(self._unanswered)} requests are waiting here; back off")
            await self._respond(message.raw_message, *_refusal(busy))
            return
        task = asyncio.create_task(self._work(message.raw_message))
        self._unanswered.add(task)
        task.add_done_callback(self._unanswered.discard)

    async def _work(self, message: Msg) -> None:
        """Answer one request, unless nobody waits for it any more when its turn has come."""
        try:
            context = Context.from_headers(_decoded(message.headers or {}))
            async with self._workers[message.subject]:
                left_s = context.timeout_s - _age_s(message)
                if not left_s > 0:
                    return
                mine = Request(message.subject, message.data, replace(context, timeout_s=left_s))
                answer = await self._local.request(mine)
        except KernelError as error:
            await self._respond(message, *_refusal(error))
            return
        headers = {_REPLAYED: "true"} if answer.replayed else {}
        if answer.version is not None:
            headers[_VERSION] = str(answer.version)
        await self._respond(message, answer.body, headers)

    async def _respond(self, message: Msg, body: bytes, headers: Mapping[str, str]) -> None:
        if self._client is None or not message.reply:
            return
        try:
            # During an outage this goes to the client's buffer, and out when the broker is back.
            await self._client.publish(message.reply, body, headers=dict(headers) or None)
        except (nats.errors.Error, OSError) as error:
            log.warning("bus.answer_lost", subject=message.subject, error=repr(error))


async def _unsubscribe(subscriber: CoreSubscriber) -> None:
    """Take what is on its way, then no more. FastStream's own order loses what is on its way."""
    subscription, subscriber.subscription = subscriber.subscription, None
    if subscription is not None:
        await subscription.drain()  # type: ignore[no-untyped-call]


def _refusal(error: KernelError) -> tuple[bytes, dict[str, str]]:
    """Return an error as it travels: body and headers."""
    fields = error_fields(error)
    return json.dumps(fields).encode(), _encoded({_ERROR: f"{error.family}/{error.code}"})


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
