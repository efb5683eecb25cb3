"""Containers that go and come back: killed, replaced one after the other, taken over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from containers import API_PORT, GRACE_S, ComposeFleet, answers, healthy
from docker.models.containers import Container
from fleet import count, exact_copy, read, settled
from load import Load, total

LIMIT_S = 60.0
WORKERS = ("outbox-relay", "projector")


async def killed(container: Container) -> None:
    """End all of a container at once, as the kernel does; the engine leaves it down."""
    await asyncio.to_thread(container.kill)
    await asyncio.to_thread(container.wait, timeout=GRACE_S)


async def replaced(container: Container) -> None:
    """Stop a container as a roll-out does, and start it again; return when it is healthy."""
    await asyncio.to_thread(container.stop, timeout=GRACE_S)
    container.reload()
    assert 0 == container.attrs["State"]["ExitCode"], container.logs(tail=30).decode()
    await asyncio.to_thread(container.start)
    await healthy(container)


async def test_a_service_that_is_killed_and_started_again_lost_and_doubled_nothing(
    fleet: ComposeFleet, tenant: str
) -> None:
    async with Load(fleet, tenant, retries=True) as load:
        for service in ("counter", "outbox-relay", "projector"):
            container = fleet.containers(service)[0]
            await killed(container)
            await load.more()
            await asyncio.to_thread(container.start)
            await healthy(container)

    assert {200} == {answer.status_code for answer in load.answers}
    assert len(load.answers) == await total(fleet, tenant)
    await exact_copy(fleet)


async def test_a_broker_that_is_killed_costs_time_and_nothing_else(
    fleet: ComposeFleet, tenant: str
) -> None:
    [nats] = fleet.containers("nats")
    async with Load(fleet, tenant, retries=True) as load:
        await killed(nats)
        await asyncio.to_thread(nats.start)
        await healthy(nats)
        await load.more()

    assert {200} == {answer.status_code for answer in load.answers}
    assert len(load.answers) == await total(fleet, tenant)
    await exact_copy(fleet)


async def leader(fleet: ComposeFleet) -> str:
    """Return who leads the log, once somebody does."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            holder = (await fleet.status())["logs"][0]["leader"]
            if holder:
                return str(holder)
            await asyncio.sleep(0.1)


async def test_when_one_replica_of_each_worker_is_gone_the_other_takes_over(
    fleet: ComposeFleet, tenant: str
) -> None:
    async with fleet.client(tenant) as client:
        for gone in (0, 1):  # one of them led
            victims = [fleet.containers(worker)[gone] for worker in WORKERS]
            await asyncio.gather(*map(killed, victims))
            answer = await count(client, "c", key=f"k{gone}")
            seen = await read(client, "c", answer.headers["x-consistency-token"])
            while (
                seen.status_code == httpx.codes.SERVICE_UNAVAILABLE
            ):  # bounded by the test's limit
                seen = await read(client, "c", answer.headers["x-consistency-token"])
            assert gone + 1 == seen.json()["value"]
            for victim in victims:
                await asyncio.to_thread(victim.start)
            await asyncio.gather(*map(healthy, victims))
    assert await leader(fleet)
    await settled(fleet)


@asynccontextmanager
async def second_edge(fleet: ComposeFleet) -> AsyncIterator[str]:
    """Run a second web-bff beside the first, as a roll-out does; yield where it is."""
    [first] = fleet.containers("web-bff")
    config, host = first.attrs["Config"], first.attrs["HostConfig"]
    second = fleet.engine.containers.run(
        config["Image"],
        detach=True,
        environment=config["Env"],
        labels={"com.docker.compose.project": fleet.project},
        network=f"{fleet.project}_inside",
        read_only=True,
        tmpfs=host["Tmpfs"],
        user=config["User"],
        volumes={
            mount["Source"]: {"bind": mount["Destination"], "mode": "ro"}
            for mount in first.attrs["Mounts"]
            if mount["Type"] == "bind"
        },
    )
    try:
        await healthy(second)
        yield f"http://{fleet.address(second)}:{API_PORT}"
    finally:
        second.remove(force=True)


class Balanced(httpx.AsyncBaseTransport):
    """What a load balancer does: it goes on to the next address when one takes no connection.

    A request that was sent is not sent again, except that its connection was found closed: then
    nothing of it was read, or the same key brings the same answer.
    """

    def __init__(self, *places: str) -> None:
        self.places = [httpx.URL(place) for place in places]
        self.turns: list[httpx.AsyncHTTPTransport] = [httpx.AsyncHTTPTransport() for _ in places]
        self.next = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(2 * len(self.places)):
            place, transport = self.places[self.next], self.turns[self.next]
            request.url = request.url.copy_with(host=place.host, port=place.port)
            try:
                return await transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError):
                self.next = (self.next + 1) % len(self.places)
        raise httpx.ConnectError("nobody takes a connection")

    async def aclose(self) -> None:
        for transport in self.turns:
            await transport.aclose()


class Edge(ComposeFleet):
    """The same fleet, called through what stands before several web-bffs."""

    def __init__(self, fleet: ComposeFleet, *places: str) -> None:
        self.__dict__.update(fleet.__dict__)
        self.places = places

    def client(self, tenant: str = "acme") -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url="http://balanced",
            headers={"X-Tenant-Id": tenant},
            timeout=30,
            transport=Balanced(*self.places),
        )


async def test_every_container_is_replaced_under_load_and_every_request_gets_its_answer(
    fleet: ComposeFleet, tenant: str
) -> None:
    api = fleet.runtime["api"]
    async with second_edge(fleet) as second:
        edge = Edge(fleet, api, second)
        async with Load(edge, tenant, retries=False) as load:
            for service in ("counter", *WORKERS, "web-bff"):
                for container in fleet.containers(service):
                    await replaced(container)
                    await load.more()

        failed = [(a.status_code, a.text) for a in load.answers if a.status_code != httpx.codes.OK]
        assert [] == failed
        assert len(load.answers) == await total(fleet, tenant)
    assert await answers(api)
    await exact_copy(fleet)
