"""What every bus promises, as tests. Subclass with a `bus` fixture; nothing here skips.

A bus may have an inside and an outside: what is asked over `bus` is served over `serving`, which is
the same object unless a subclass says otherwise (two connections, two processes).
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from flotilla.bus import Answer, Bus, Context, Handler, Request
from flotilla.errors import (
    Conflict,
    Corrupt,
    KernelError,
    KeyReused,
    Rejected,
    Unavailable,
    VersionMismatch,
)
from flotilla.store import Version

SUBJECT = "cmd.counter.increment"
CONTEXT = Context(
    tenant="acme",
    correlation_id="0192-correlation",
    causation_id="0192-causation",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    idempotency_key="key-1",
    expected_version=Version(41),
    consistency_token="acme/counter/a@41",  # noqa: S106 - a position in a log, not a secret
    timeout_s=7.5,
)
CONCURRENT = 200
SOON_S = 3.0
"""For what must not wait for a deadline; far above what it takes, far below `CONTEXT.timeout_s`."""
SHORT_S = 0.25

HOSTILE = (
    "key\r\nflotilla-tenant: other",
    "\r\n\r\nPUB evil 4\r\noops",
    "line\nfeed\ttab\x00nul\x7f",
    " white space around ",
    "percent %0D%0A %",
    "ключ-鍵-🔑",
    "half a pair \udc80",
    "",
)


def asked(body: bytes = b"{}", context: Context = CONTEXT, subject: str = SUBJECT) -> Request:
    """Return a request."""
    return Request(subject, body, context)


def answering(answer: Answer) -> Handler:
    """Return a handler that always gives this answer."""

    async def handler(_request: Request) -> Answer:
        return answer

    return handler


def raising(error: Exception) -> Handler:
    """Return a handler that always fails."""

    async def handler(_request: Request) -> Answer:
        raise error

    return handler


async def echo(request: Request) -> Answer:
    """Answer with what was asked."""
    return Answer(request.body)


class Recorder:
    """A handler that remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Answer:
        """Answer with what was asked."""
        self.requests.append(request)
        return Answer(request.body)


class Gate:
    """A handler that does not answer before it is opened, and tells what became of it."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, request: Request) -> Answer:
        """Answer with what was asked, once open."""
        self.entered.set()
        try:
            await self.open.wait()
        finally:
            self.ended.set()
        return Answer(request.body)


class BusContract:
    """One subclass a bus; one method a promise."""

    @pytest.fixture
    def bus(self) -> Bus:
        """Build a bus that nobody serves on yet."""
        raise NotImplementedError

    @pytest.fixture
    def serving(self, bus: Bus) -> Bus:
        """Return where handlers are registered; override it when that is another end."""
        return bus

    @pytest.fixture
    def subjects(self) -> Iterator[str]:
        """Return fresh subjects of one service."""
        return (f"cmd.counter.verb-{n}" for n in count())

    # What travels.

    async def test_a_request_reaches_the_handler_whole(self, bus: Bus, serving: Bus) -> None:
        """Subject, body and every field of the context; of the deadline, what is left."""
        recorder = Recorder()
        await serving.serve(SUBJECT, recorder)

        await bus.request(asked(b'{"by": 5}'))

        [request] = recorder.requests
        left_s = request.context.timeout_s
        assert asked(b'{"by": 5}', replace(CONTEXT, timeout_s=left_s)) == request
        assert CONTEXT.timeout_s - SOON_S < left_s <= CONTEXT.timeout_s

    async def test_a_context_may_be_nearly_empty(self, bus: Bus, serving: Bus) -> None:
        """What was not given is not invented."""
        recorder = Recorder()
        await serving.serve(SUBJECT, recorder)
        sparse = Context(tenant="acme", correlation_id="c")

        await bus.request(asked(context=sparse))

        [request] = recorder.requests
        assert sparse == replace(request.context, timeout_s=sparse.timeout_s)

    @pytest.mark.parametrize(
        "body",
        [b"", b"{}", bytes(range(256)), b"\r\n+OK\r\n", "größer".encode(), b"\xff" * 500_000],
        ids=["empty", "json", "binary", "protocol", "unicode", "500 kB"],
    )
    async def test_bodies_are_kept_to_the_byte(self, bus: Bus, serving: Bus, body: bytes) -> None:
        """There and back."""
        recorder = Recorder()
        await serving.serve(SUBJECT, recorder)

        assert Answer(body) == await bus.request(asked(body))
        assert [body] == [request.body for request in recorder.requests]

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(b"reply"),
            Answer(b"reply", version=0),
            Answer(b"reply", version=2**53),
            Answer(b"reply", version=7, replayed=True),
            Answer(b"", replayed=True),
        ],
    )
    async def test_an_answer_says_version_and_replayed(
        self, bus: Bus, serving: Bus, answer: Answer
    ) -> None:
        """No version is not version 0."""
        await serving.serve(SUBJECT, answering(answer))

        assert answer == await bus.request(asked())

    async def test_a_body_that_is_too_large_is_rejected(self, bus: Bus, serving: Bus) -> None:
        """Before it is sent, with a code; whatever was asked before and after works."""
        recorder = Recorder()
        await serving.serve(SUBJECT, recorder)
        await serving.serve("qry.counter.all", answering(Answer(bytes(2**21))))

        for request in (asked(bytes(2**21)), asked(subject="qry.counter.all")):
            with pytest.raises(Rejected) as caught:
                await bus.request(request)
            assert "body-too-large" == caught.value.code

        assert [] == recorder.requests
        assert Answer(b"small") == await bus.request(asked(b"small"))

    @pytest.mark.parametrize("text", HOSTILE)
    async def test_no_text_of_a_caller_becomes_a_header(
        self, bus: Bus, serving: Bus, text: str
    ) -> None:
        """Keys and ids come from outside: they arrive as they were, or the request is refused."""
        recorder = Recorder()
        await serving.serve(SUBJECT, recorder)
        hostile = replace(
            CONTEXT, idempotency_key=text, correlation_id=text, consistency_token=text
        )

        try:
            await bus.request(asked(context=hostile))
        except Rejected:
            assert [] == recorder.requests
        else:
            [request] = recorder.requests
            assert hostile == replace(request.context, timeout_s=hostile.timeout_s)

        assert Answer(b"next") == await bus.request(asked(b"next"))

    # What fails.

    @pytest.mark.parametrize("family", [Rejected, Conflict, Unavailable, Corrupt])
    async def test_an_error_arrives_as_its_family_with_code_and_message(
        self, bus: Bus, serving: Bus, family: type[KernelError]
    ) -> None:
        """Messages are for people, and people write more than ASCII on more than one line."""
        message = "Zähler „a“ ist voll 🙁:\r\n\tby ≤ 10%, please\n"
        await serving.serve(SUBJECT, raising(family(message, code="limit-passed")))

        with pytest.raises(family) as caught:
            await bus.request(asked())

        assert (family, "limit-passed", message) == (
            type(caught.value),
            caught.value.code,
            str(caught.value),
        )

    @pytest.mark.parametrize("error", [VersionMismatch("at 8"), KeyReused("take a new one")])
    async def test_a_refusal_loses_its_name_and_keeps_its_code(
        self, bus: Bus, serving: Bus, error: Rejected
    ) -> None:
        """Nobody can come to depend on a type that only travels within one process."""
        await serving.serve(SUBJECT, raising(error))

        with pytest.raises(Rejected) as caught:
            await bus.request(asked())

        assert (Rejected, error.code, str(error)) == (
            type(caught.value),
            caught.value.code,
            str(caught.value),
        )

    @pytest.mark.parametrize(
        "bug",
        [
            ZeroDivisionError("by zero: password=hunter2"),
            KeyError("tenant"),
            TimeoutError("of something else"),
            asyncio.CancelledError("of something else"),
        ],
        ids=lambda bug: type(bug).__name__,
    )
    async def test_a_handlers_bug_fails_its_request_and_no_other(
        self, bus: Bus, serving: Bus, bug: Exception
    ) -> None:
        """At once, as `Unavailable` with code `internal`; its text stays where it happened."""
        gate = Gate()
        await serving.serve("cmd.counter.gate", gate)
        await serving.serve(SUBJECT, raising(bug))
        other = asyncio.create_task(bus.request(asked(b"other", subject="cmd.counter.gate")))
        await asyncio.wait_for(gate.entered.wait(), SOON_S)

        for _ in range(3):
            with pytest.raises(Unavailable) as caught:
                await asyncio.wait_for(bus.request(asked()), SOON_S)
            assert "internal" == caught.value.code
            assert "hunter2" not in str(caught.value)

        gate.open.set()
        assert Answer(b"other") == await asyncio.wait_for(other, SOON_S)

    async def test_a_handler_works_again_after_its_bug(self, bus: Bus, serving: Bus) -> None:
        """Not only others on the same bus: the very same subject."""

        async def moody(request: Request) -> Answer:
            if request.body == b"fail":
                raise RuntimeError("on purpose")
            return Answer(request.body)

        await serving.serve(SUBJECT, moody)

        with pytest.raises(Unavailable):
            await bus.request(asked(b"fail"))

        assert Answer(b"fine") == await bus.request(asked(b"fine"))

    async def test_nobody_answers(self, bus: Bus, serving: Bus) -> None:
        """Known at once, without waiting for the deadline; also when others are served."""
        await serving.serve(SUBJECT, echo)

        with pytest.raises(Unavailable):
            await asyncio.wait_for(bus.request(asked(subject="cmd.nobody.there")), SOON_S)

    # Deadlines.

    async def test_a_slow_handler_is_not_waited_for_and_not_kept_running(
        self, bus: Bus, serving: Bus
    ) -> None:
        """The caller gets `Unavailable` at its deadline, and the handler is cancelled by then."""
        gate = Gate()
        await serving.serve(SUBJECT, gate)
        begin_s = asyncio.get_running_loop().time()

        with pytest.raises(Unavailable):
            await bus.request(asked(context=replace(CONTEXT, timeout_s=SHORT_S)))

        assert SHORT_S <= asyncio.get_running_loop().time() - begin_s + 0.01 < SOON_S
        await asyncio.wait_for(gate.ended.wait(), SOON_S)

    # Many.

    async def test_requests_are_handled_concurrently(self, bus: Bus, serving: Bus) -> None:
        """None of them is answered before all of them have begun; everybody gets the own answer."""
        everybody = asyncio.Barrier(CONCURRENT)

        async def meet(request: Request) -> Answer:
            await everybody.wait()
            return Answer(request.body)

        await serving.serve(SUBJECT, meet)

        bodies = [str(n).encode() for n in range(CONCURRENT)]
        answers = await asyncio.gather(*(bus.request(asked(body)) for body in bodies))

        assert bodies == [answer.body for answer in answers]

    async def test_subjects_do_not_mix(
        self, bus: Bus, serving: Bus, subjects: Iterator[str]
    ) -> None:
        """Each has its handler, also within one service."""
        names = [next(subjects) for _ in range(5)]
        for name in names:
            await serving.serve(name, answering(Answer(name.encode())))

        assert names == [(await bus.request(asked(subject=name))).body.decode() for name in names]

    async def test_the_last_handler_of_a_subject_counts(self, bus: Bus, serving: Bus) -> None:
        """Within one process: a service that is started again replaces what it left."""
        await serving.serve(SUBJECT, answering(Answer(b"old")))
        await serving.serve(SUBJECT, answering(Answer(b"new")))

        assert {b"new"} == {(await bus.request(asked())).body for _ in range(10)}
