"""All buses pass one suite; the one over NATS also survives what only a network can do."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client

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

    async def test_an_answer_given_during_the_outage_is_not_lost(self, server: NatsServer) -> None:
        """The handler's process buffers it, and the caller's inbox is the same afterwards."""
        gate = Gate()
        async with (
            NatsBus(server.url, name="caller") as caller,
            NatsBus(server.url, name="handler") as handler,
        ):
            await handler.serve(SUBJECT, gate)
            patient = replace(CONTEXT, timeout_s=30.0)
            asking = asyncio.create_task(caller.request(asked(b"kept", patient)))
            await asyncio.wait_for(gate.entered.wait(), SOON_S)

            await server.kill()
            # Not before both have noticed: what was written to a dead socket is really lost.
            await eventually(lambda: self._both_noticed(caller, handler))
            gate.open.set()
            await asyncio.wait_for(gate.ended.wait(), SOON_S)
            await server.stop()
            # The caller subscribes to its inbox again before the handler can answer into it, or
            # not: either way it must not hang beyond its deadline.
            await server.start()

            outcome = (await asyncio.gather(asking, return_exceptions=True))[0]
            assert outcome == Answer(b"kept") or isinstance(outcome, Unavailable)

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
        async def nonsense(message: nats.aio.msg.Msg) -> None:
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

    def test_two_workers_or_more(self) -> None:
        with pytest.raises(ValueError, match="two workers"):
            NatsBus("nats://127.0.0.1:1", name="test", workers_max=1)

    async def _reconnected(self, client: Client) -> bool:
        return client.is_connected and client.stats["reconnects"] > 0
