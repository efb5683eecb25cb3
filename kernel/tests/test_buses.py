"""All buses pass one suite; the one over NATS also survives what only a network can do."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from flotilla.bus import Answer, Bus, Context, Request
from flotilla.buses.local import LocalBus
from flotilla.buses.nats import HEADERS_SIZE_MAX_BYTES, NatsBus
from flotilla.buses.routed import RoutedBus
from flotilla.embedded import NatsServer, run_nats
from flotilla.errors import Rejected, Unavailable
from flotilla.nats import SILENCE_MAX_MS, close, connect, connect_options, inbox_prefix
from flotilla.testing.bus import (
    CONTEXT,
    SHORT_S,
    SOON_S,
    SUBJECT,
    BusContract,
    Gate,
    Recorder,
    answering,
    asked,
    echo,
)
from flotilla.testing.emitted import RecordingBus
from flotilla.testing.worlds import eventually


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with run_nats(tmp_path, supervise=False) as nats_server:
        yield nats_server


@pytest.fixture
async def client(server: NatsServer) -> AsyncIterator[Client]:
    connection = await connect(server.url, name="test")
    yield connection
    await close(connection)


class TestLocalBus(BusContract):
    @pytest.fixture
    def bus(self) -> Bus:
        return LocalBus()


class TestRecordingBus(BusContract):
    @pytest.fixture
    def bus(self) -> Bus:
        return RecordingBus(LocalBus(), [])


class TestRoutedBusNear(BusContract):
    @pytest.fixture
    def bus(self) -> Bus:
        return RoutedBus(LocalBus(), LocalBus())


class TestRoutedBusFar(BusContract):
    """Everything is served in another process: here, by whoever holds the same remote bus."""

    @pytest.fixture
    def remote(self) -> LocalBus:
        return LocalBus()

    @pytest.fixture
    def bus(self, remote: LocalBus) -> Bus:
        return RoutedBus(LocalBus(), remote)

    @pytest.fixture
    def serving(self, remote: LocalBus) -> Bus:
        return RoutedBus(LocalBus(), remote)


class TestNatsBus(BusContract):
    """One connection on both ends."""

    @pytest.fixture
    async def bus(self, server: NatsServer) -> AsyncIterator[Bus]:
        async with NatsBus(server.url, name="both") as bus:
            yield bus


class TestNatsBusBetweenProcesses(BusContract):
    """A connection for each end, as between deployables."""

    @pytest.fixture
    async def bus(self, server: NatsServer) -> AsyncIterator[Bus]:
        async with NatsBus(server.url, name="caller") as bus:
            yield bus

    @pytest.fixture
    async def serving(self, server: NatsServer) -> AsyncIterator[Bus]:
        async with NatsBus(server.url, name="handler") as bus:
            yield bus


class TestRouting:
    async def test_what_is_here_is_not_asked_elsewhere(self) -> None:
        remote, here = LocalBus(), LocalBus()
        bus = RoutedBus(here, remote)
        await bus.serve(SUBJECT, answering(Answer(b"near")))
        await remote.serve(SUBJECT, answering(Answer(b"far")))

        assert b"near" == (await bus.request(asked())).body
        assert b"far" == (await remote.request(asked())).body

    async def test_others_reach_what_is_served_here(self) -> None:
        remote = LocalBus()
        await RoutedBus(LocalBus(), remote).serve(SUBJECT, echo)

        assert b"x" == (await RoutedBus(LocalBus(), remote).request(asked(b"x"))).body

    async def test_what_cannot_be_served_for_others_is_not_served_here(self) -> None:
        class Refusing(LocalBus):
            async def serve(self, subject: str, handler: object) -> None:
                raise Unavailable(f"no {subject} with {handler}")

        bus = RoutedBus(LocalBus(), Refusing())
        with pytest.raises(Unavailable):
            await bus.serve(SUBJECT, echo)

        with pytest.raises(Unavailable, match="nobody answers"):
            await bus.request(asked())


class TestSharing:
    """Queue groups: several processes of one service."""

    async def test_each_request_is_handled_once(self, server: NatsServer) -> None:
        recorders = [Recorder(), Recorder(), Recorder()]
        async with NatsBus(server.url, name="caller") as caller:
            servers = [NatsBus(server.url, name=f"replica-{n}") for n in range(3)]
            for bus, recorder in zip(servers, recorders, strict=True):
                await bus.start()
                await bus.serve(SUBJECT, recorder)
            try:
                await asyncio.gather(*(caller.request(asked(b"%d" % n)) for n in range(300)))
            finally:
                await asyncio.gather(*(bus.stop() for bus in servers))

        handled = [int(r.body) for recorder in recorders for r in recorder.requests]
        assert list(range(300)) == sorted(handled)
        assert all(recorder.requests for recorder in recorders)

    async def test_a_process_that_stops_finishes_what_it_took_and_takes_no_more(
        self, server: NatsServer
    ) -> None:
        gate = Gate()
        async with (
            NatsBus(server.url, name="caller") as caller,
            NatsBus(server.url, name="staying") as staying,
        ):
            leaving = NatsBus(server.url, name="leaving")
            await leaving.start()
            await leaving.serve(SUBJECT, gate)
            taken = asyncio.create_task(caller.request(asked(b"taken")))
            await asyncio.wait_for(gate.entered.wait(), SOON_S)
            await staying.serve(SUBJECT, answering(Answer(b"staying")))

            stopping = asyncio.create_task(leaving.stop())
            # Half of these would go to the one that leaves, had it not unsubscribed.
            await eventually(
                lambda: self._goes_to(caller, b"staying", times=20), within_s=2 * SOON_S
            )
            assert not stopping.done()
            gate.open.set()

            assert Answer(b"taken") == await taken
            await asyncio.wait_for(stopping, SOON_S)

    async def test_a_drained_bus_still_asks_others_and_answers_nobody(
        self, server: NatsServer
    ) -> None:
        async with (
            NatsBus(server.url, name="other") as other,
            NatsBus(server.url, name="drained") as drained,
        ):
            await drained.serve(SUBJECT, echo)
            await other.serve("qry.counter.elsewhere", answering(Answer(b"elsewhere")))

            await drained.drain()

            with pytest.raises(Unavailable, match="nobody answers"):
                await other.request(asked(b"x"))
            found = await drained.request(asked(subject="qry.counter.elsewhere"))
            assert b"elsewhere" == found.body

    async def test_draining_waits_no_longer_than_it_may(self, server: NatsServer) -> None:
        gate = Gate()
        async with (
            NatsBus(server.url, name="caller") as caller,
            NatsBus(server.url, name="stuck") as stuck,
        ):
            await stuck.serve(SUBJECT, gate)
            asking = asyncio.create_task(
                caller.request(asked(context=replace(CONTEXT, timeout_s=1)))
            )
            await asyncio.wait_for(gate.entered.wait(), SOON_S)

            await asyncio.wait_for(stuck.drain(timeout_s=0.1), SOON_S)

            with pytest.raises(Unavailable, match="no answer"):
                await asking

    async def _goes_to(self, caller: Bus, body: bytes, *, times: int) -> bool:
        # Short deadlines: those that the leaving one took before it unsubscribed wait at the gate.
        hurried = asked(context=replace(CONTEXT, timeout_s=0.2))
        answers = await asyncio.gather(
            *(caller.request(hurried) for _ in range(times)), return_exceptions=True
        )
        return all(isinstance(a, Answer) and a.body == body for a in answers)

    async def test_what_waited_for_a_worker_until_its_deadline_is_not_executed(
        self, server: NatsServer
    ) -> None:
        gates = {b"one": Gate(), b"two": Gate()}
        handled: list[bytes] = []

        async def handle(request: Request) -> Answer:
            handled.append(request.body)
            gate = gates.get(request.body)
            return await gate(request) if gate else Answer(request.body)

        async with (
            NatsBus(server.url, name="caller") as caller,
            NatsBus(server.url, name="busy", workers_max=2) as busy,
        ):
            await busy.serve(SUBJECT, handle)
            held = [asyncio.create_task(caller.request(asked(body))) for body in gates]
            await asyncio.gather(*(gate.entered.wait() for gate in gates.values()))

            with pytest.raises(Unavailable):
                await caller.request(asked(b"late", replace(CONTEXT, timeout_s=SHORT_S)))
            for gate in gates.values():
                gate.open.set()
            await asyncio.gather(*held)
            await caller.request(asked(b"next"))

        assert [b"next", b"one", b"two"] == sorted(handled)

    async def test_what_is_too_much_is_refused_at_once(self, server: NatsServer) -> None:
        gate = Gate()
        async with (
            NatsBus(server.url, name="caller") as caller,
            NatsBus(server.url, name="full", workers_max=1, unanswered_max=3) as full,
        ):
            await full.serve(SUBJECT, gate)
            asking = [asyncio.create_task(caller.request(asked())) for _ in range(4)]

            finished, _ = await asyncio.wait(
                asking, timeout=SOON_S, return_when=asyncio.FIRST_COMPLETED
            )
            gate.open.set()
            outcomes = await asyncio.gather(*asking, return_exceptions=True)

        assert [Unavailable] == [type(task.exception()) for task in finished]
        assert 3 == outcomes.count(Answer(b"{}"))

    async def test_one_slow_subject_does_not_hold_up_another(self, server: NatsServer) -> None:
        gate = Gate()
        async with NatsBus(server.url, name="both", workers_max=1) as bus:
            await bus.serve("qry.counter.waits", gate)
            await bus.serve(SUBJECT, echo)
            waiting = asyncio.create_task(bus.request(asked(subject="qry.counter.waits")))
            await asyncio.wait_for(gate.entered.wait(), SOON_S)

            assert b"x" == (await asyncio.wait_for(bus.request(asked(b"x")), SOON_S)).body
            gate.open.set()
            await waiting


class TestOutage:
    async def test_everything_works_again_after_the_broker_was_killed(
        self, server: NatsServer
    ) -> None:
        async with (
            NatsBus(server.url, name="caller") as caller,
            NatsBus(server.url, name="handler") as handler,
        ):
            await handler.serve(SUBJECT, echo)
            gate = Gate()
            await handler.serve("cmd.counter.gate", gate)
            in_flight = asyncio.create_task(
                caller.request(asked(b"f", replace(CONTEXT, timeout_s=1.0), "cmd.counter.gate"))
            )
            await asyncio.wait_for(gate.entered.wait(), SOON_S)

            await server.kill()

            for _ in range(20):
                hurried = asked(context=replace(CONTEXT, timeout_s=SHORT_S))
                with pytest.raises(Unavailable):
                    await asyncio.wait_for(caller.request(hurried), 2 * SHORT_S)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(in_flight, SOON_S)

            await server.stop()
            await server.start()

            assert Answer(b"x") == await eventually(
                lambda: self._try(caller, b"x"), what="healing after the restart"
            )
            answers = await asyncio.gather(*(caller.request(asked(b"y")) for _ in range(100)))
            assert {b"y"} == {answer.body for answer in answers}

    async def test_under_load_an_outage_is_unavailability_and_nothing_else(
        self, server: NatsServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        answered = 0
        errors: list[Exception] = []
        over = False

        async def ask(bus: Bus, timeout_s: float) -> None:
            nonlocal answered
            while not over:
                try:
                    await bus.request(asked(bytes(20_000), replace(CONTEXT, timeout_s=timeout_s)))
                    answered += 1
                except Exception as error:  # noqa: BLE001 - which ones is what we ask
                    errors.append(error)
                    await asyncio.sleep(0.01)

        async def answer_more(count: int) -> None:
            goal = answered + count

            async def reached() -> bool:
                return answered >= goal

            await eventually(reached, what=f"{count} more answers")

        async with (
            NatsBus(server.url, name="caller") as caller,
            NatsBus(server.url, name="handler") as handler,
        ):
            await handler.serve(SUBJECT, echo)
            asking = [asyncio.create_task(ask(caller, 0.3 + n / 100)) for n in range(32)]
            for _ in range(3):
                await answer_more(50)
                await server.kill()
                await server.stop()
                await server.start()
            await answer_more(200)
            over = True
            await asyncio.wait_for(asyncio.gather(*asking), SOON_S)

        assert {Unavailable} == {type(error) for error in errors}, errors
        assert not [record for record in caplog.records if record.name == "asyncio"]

    async def test_a_broker_that_freezes_is_left_and_found_again(
        self, server: NatsServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is closed and nothing is answered: only pings tell."""
        monkeypatch.setattr("flotilla.nats._PING_INTERVAL_S", 0.1)
        monkeypatch.setattr("flotilla.nats._ATTEMPT_TIMEOUT_S", 0.3)
        async with NatsBus(server.url, name="both") as bus:
            await bus.serve(SUBJECT, echo)

            os.kill(server.pid, signal.SIGSTOP)
            try:
                with pytest.raises(Unavailable):
                    await bus.request(asked(context=replace(CONTEXT, timeout_s=SHORT_S)))
                await eventually(lambda: self._both_noticed(bus, bus))
            finally:
                os.kill(server.pid, signal.SIGCONT)

            assert Answer(b"x") == await eventually(lambda: self._try(bus, b"x"))

    async def test_stopping_without_a_broker_does_not_hang(self, server: NatsServer) -> None:
        bus = NatsBus(server.url, name="handler")
        await bus.start()
        await bus.serve(SUBJECT, echo)
        await server.kill()
        await eventually(lambda: self._both_noticed(bus, bus))

        await asyncio.wait_for(bus.stop(), SOON_S)

        with pytest.raises(Unavailable):
            await bus.request(asked())

    async def _try(self, bus: Bus, body: bytes) -> Answer | None:
        try:
            return await bus.request(asked(body, replace(CONTEXT, timeout_s=1.0)))
        except Unavailable:
            return None

    async def _both_noticed(self, one: NatsBus, other: NatsBus) -> bool:
        clients = [bus._client for bus in (one, other)]
        return not any(client and client.is_connected for client in clients)


class TestWire:
    """What others on the same broker see and may send."""

    async def test_values_cannot_leave_their_header(
        self, server: NatsServer, client: Client
    ) -> None:
        subscription = await client.subscribe(SUBJECT)
        await client.flush()
        key = "k\r\nflotilla-tenant: other\r\n\r\n"
        async with NatsBus(server.url, name="caller") as bus:
            hurried = replace(CONTEXT, idempotency_key=key, timeout_s=SHORT_S)
            with pytest.raises(Unavailable):
                await bus.request(asked(context=hurried))

        headers = (await subscription.next_msg()).headers or {}
        assert "acme" == headers["flotilla-tenant"]
        assert "k%0D%0Aflotilla-tenant:%20other%0D%0A%0D%0A" == headers["flotilla-idempotency-key"]
        assert set(hurried.to_headers()) == set(headers)

    @pytest.mark.parametrize(
        "headers",
        [
            None,
            {"flotilla-correlation-id": "no tenant"},
            {"flotilla-tenant": "acme", "flotilla-expected-version": "seven"},
            {"flotilla-tenant": "%FF"},
        ],
    )
    async def test_what_is_no_request_is_told_so(
        self, server: NatsServer, client: Client, headers: dict[str, str] | None
    ) -> None:
        recorder = Recorder()
        async with NatsBus(server.url, name="handler") as bus:
            await bus.serve(SUBJECT, recorder)

            reply = await client.request(SUBJECT, b"{}", timeout=SOON_S, headers=headers)

        assert "rejected/invalid-request" == (reply.headers or {})["flotilla-error"]
        assert [] == recorder.requests

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            (b"not json", {"flotilla-error": "rejected/x"}),
            (b'{"family": "unheard-of", "code": "x", "message": ""}', {"flotilla-error": "x/x"}),
            (b"[]", {"flotilla-error": "rejected/x"}),
            (b"{}", {"flotilla-version": "seven"}),
        ],
    )
    async def test_an_answer_that_makes_no_sense_is_no_answer(
        self, server: NatsServer, client: Client, body: bytes, headers: dict[str, str]
    ) -> None:
        async def nonsense(message: Msg) -> None:
            await client.publish(message.reply, body, headers=headers)

        await client.subscribe(SUBJECT, cb=nonsense)
        await client.flush()
        async with NatsBus(server.url, name="caller") as bus:
            with pytest.raises(Unavailable) as caught:
                await bus.request(asked())

        assert "internal" == caught.value.code

    async def test_headers_have_a_limit_that_keeps_the_connection(self, server: NatsServer) -> None:
        async with NatsBus(server.url, name="both") as bus:
            await bus.serve(SUBJECT, echo)
            huge = replace(CONTEXT, idempotency_key="k" * HEADERS_SIZE_MAX_BYTES)
            with pytest.raises(Rejected):
                await bus.request(asked(context=huge))
            full = replace(CONTEXT, idempotency_key="k" * (HEADERS_SIZE_MAX_BYTES - 1000))

            assert 1_000_000 == len((await bus.request(asked(bytes(1_000_000), full))).body)


class TestConnection:
    async def test_the_kernel_watches_for_silence(self, client: Client) -> None:
        connection = client._transport._io_writer.get_extra_info("socket")  # type: ignore[union-attr]
        option = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

        assert SILENCE_MAX_MS == option

    async def test_so_it_does_after_a_reconnect(self, server: NatsServer, client: Client) -> None:
        await server.kill()
        await server.stop()
        await server.start()
        await eventually(lambda: self._reconnected(client))

        await self.test_the_kernel_watches_for_silence(client)

    async def test_an_error_of_the_server_is_not_the_end(self, client: Client) -> None:
        """nats-py counts the body only: this message makes the server hang up."""
        subscription = await client.subscribe("after")

        await client.publish("before", b"", headers={"k": "x" * client.max_payload})

        await eventually(lambda: self._reconnected(client))
        await client.publish("after", b"here")
        assert b"here" == (await subscription.next_msg(SOON_S)).data

    async def test_whoever_waits_for_an_answer_hears_that_the_server_is_gone(
        self, server: NatsServer, client: Client
    ) -> None:
        """And does not wait until the deadline for what was lost."""
        heard = await client.subscribe("asked")
        waiting = asyncio.create_task(client.request("asked", timeout=10 * SOON_S))
        await heard.next_msg(SOON_S)

        await server.kill()

        async with asyncio.timeout(SOON_S):
            with pytest.raises(nats.errors.ConnectionReconnectingError):
                await waiting

    async def test_a_flush_confirms_what_was_sent_before_it(
        self, server: NatsServer, client: Client
    ) -> None:
        other = await connect(server.url, name="other")

        async def respond(message: Msg) -> None:
            await message.respond(b"here")

        try:
            for n in range(200):
                await other.subscribe(f"served.{n}", cb=respond)
                await other.flush()
                assert b"here" == (await client.request(f"served.{n}", timeout=SOON_S)).data
        finally:
            await close(other)

    async def test_answers_go_to_inboxes_of_ones_own(
        self, server: NatsServer, client: Client
    ) -> None:
        prefix = inbox_prefix("svc.counter 1").decode()
        assert "_INBOX_svc_counter_1" == prefix
        requests = await client.subscribe(SUBJECT)
        await client.flush()

        async with NatsBus(server.url, name="svc.counter 1") as bus:
            with pytest.raises(Unavailable):
                await bus.request(asked(context=Context("acme", "c", timeout_s=SHORT_S)))

        assert (await requests.next_msg()).reply.startswith(f"{prefix}.")

    async def test_no_server_is_said_so_without_its_password(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flotilla.nats.CONNECT_TIMEOUT_S", 0.5)
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1\b.*") as caught:
            await connect("nats://me:hunter2@127.0.0.1:1", name="test")

        assert "hunter2" not in str(caught.value)

    async def test_no_address_is_a_mistake_to_be_told_at_once(self) -> None:
        with pytest.raises(ValueError, match="not the address of a NATS server"):
            await connect("nats://:4222", name="test")

    def test_nobody_gives_up(self) -> None:
        assert -1 == connect_options("test")["max_reconnect_attempts"]

    async def _reconnected(self, client: Client) -> bool:
        return client.is_connected and client.stats["reconnects"] > 0
