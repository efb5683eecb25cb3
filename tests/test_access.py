"""With the generated accounts of broker and store the fleet works; what they do not allow is refused."""

import asyncio
import json
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import httpx
import nats
import pytest
import pytest_asyncio

from flotilla import Bindings, Unavailable, ViewSession
from flotilla.buses.local import LocalBus
from flotilla.buses.nats import NatsBus
from flotilla.buses.routed import RoutedBus
from flotilla.clock import SystemClock, uuid7
from flotilla.embedded import run_postgres
from flotilla.nats import connected
from flotilla.service import HttpBinding
from flotilla.store import Unit, stream_id
from flotilla.stores import open_leases, open_store, open_views
from flotilla.testing.servers import open_folder
from flotilla.testing.store import append, record
from flotilla_platform.generating import artifacts
from flotilla_platform.generating.nats import accounts
from flotilla_platform.reading import read_platform
from svc_outbox_relay.jetstream import JetStreamLog

ROOT = Path(__file__).parents[1]
PLATFORM = read_platform(ROOT / "platform-model")
FILES = artifacts(PLATFORM)
SERVICES = ("outbox-relay", "counter", "projector", "web-bff")
LIMIT_S = 30.0


class Places:
    """Where the servers are, for each account."""

    def __init__(self, port: int, dsn: str) -> None:
        self._port, self._dsn = port, dsn

    def nats(self, user: str) -> str:
        return f"nats://{user}:{word(user)}@127.0.0.1:{self._port}"

    def store(self, role: str) -> str:
        parts = urlsplit(self._dsn)
        return urlunsplit(parts._replace(netloc=f"{role}@"))

    @property
    def superuser(self) -> str:
        return self._dsn


def word(user: str) -> str:
    return f"word-of-{user}"


@asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[int]:
    """Run the real server with the generated configuration, at another port and place."""
    (folder / "nats-server.conf").write_text(
        FILES["nats/nats-server.conf"].replace('"/data"', f'"{folder}/streams"')
    )
    words = "".join(f'{one.password}: "{word(one.name)}"\n' for one in accounts(PLATFORM))
    (folder / "passwords.conf").write_text(words)
    ports = [free_port(), free_port()]
    log = folder / "nats.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [
                *(Path(sys.executable).parent / "nats-server", "-c", folder / "nats-server.conf"),
                *("-p", str(ports[0]), "-m", str(ports[1])),
            ],
            stdout=out,
            stderr=out,
        )
    try:
        async with asyncio.timeout(LIMIT_S):
            while True:
                assert server.poll() is None, log.read_text()
                try:
                    async with connected(
                        f"nats://operator:{word('operator')}@127.0.0.1:{ports[0]}", name="operator"
                    ):
                        break
                except Unavailable:
                    await asyncio.sleep(0.05)
        yield ports[0]
    finally:
        server.terminate()
        server.wait(LIMIT_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def provision(dsn: str) -> None:
    """Run the generated SQL, as an operator does before the first start and after every release."""
    connection = await asyncpg.connect(dsn)
    try:
        for name in ("10-roles", "20-schemas", "30-grants"):
            await connection.execute(FILES[f"postgres/{name}.sql"])
    finally:
        await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def places() -> AsyncIterator[Places]:
    with open_folder() as data, open_folder() as folder:
        async with run_postgres(data) as postgres, broker(folder) as port:
            await provision(postgres.superuser_dsn)
            yield Places(port, postgres.superuser_dsn)


@asynccontextmanager
async def deployable(places: Places, name: str) -> AsyncIterator[str | None]:
    """Run one service as a process of its own would: with its accounts alone; yield its address."""
    service = PLATFORM.services[name]
    module, _, function = service.entrypoint.partition(":")
    role = name.replace("-", "_")
    async with NatsBus(places.nats(name), name=name) as bus:
        bindings = Bindings(
            stores=dict.fromkeys(("counter", "projector"), places.store(role)),
            nats_url=places.nats(name),
            bus=RoutedBus(LocalBus(), bus),
            clock=SystemClock(),
            ids=uuid7,
            chance=random.Random(7),
            services=SERVICES,
            logs=("counter",),
            http=HttpBinding("127.0.0.1", 0) if "http" in service.needs else None,
        )
        async with getattr(import_module(module), function)(bindings) as running:
            yield running.address


@asynccontextmanager
async def whole_fleet(places: Places) -> AsyncIterator[httpx.AsyncClient]:
    async with AsyncExitStack() as stack:
        # Owners first: they migrate what others work in.
        for name in ("counter", "outbox-relay", "projector"):
            await stack.enter_async_context(deployable(places, name))
        address = await stack.enter_async_context(deployable(places, "web-bff"))
        assert address
        headers = {"X-Tenant-Id": "access"}
        client = httpx.AsyncClient(base_url=address, headers=headers, timeout=10)
        yield await stack.enter_async_context(client)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_fleet_works_when_every_service_has_accounts_of_its_own(places: Places) -> None:
    async with whole_fleet(places) as client:
        done = await client.post(
            "/v1/counters/c1/increment", json={"by": 5}, headers={"Idempotency-Key": "k1"}
        )
        assert done.status_code == 200, done.text
        token = {"X-Consistency-Token": done.headers["X-Consistency-Token"]}
        read = await client.get("/v1/counters/c1", headers=token)
        assert (read.status_code, read.json()["value"]) == (200, 5), read.text
        history = await client.get("/v1/counters/c1/history")
        assert history.status_code == 200, history.text
        async with asyncio.timeout(LIMIT_S):
            while (ready := await client.get("/readyz")).status_code != 200:
                assert ready.status_code == 503, ready.text
                await asyncio.sleep(0.2)
        async with connected(places.nats("operator"), name="operator") as operator:
            info = await operator.jetstream().stream_info("EVT_COUNTER")
        assert info.state.messages >= 1
    # And again: what is there is looked at, by those too who could not make it.
    async with whole_fleet(places) as client:
        assert (await client.get("/v1/counters/c1")).status_code == 200


FORBIDDEN_TO_SAY = [
    ("counter", "evt.counter.t.counter.opened"),
    ("counter", "cmd.counter.increment"),
    ("counter", "$JS.API.STREAM.DELETE.EVT_COUNTER"),
    ("counter", "$JS.API.STREAM.INFO.EVT_COUNTER"),
    ("projector", "cmd.counter.increment"),
    ("projector", "evt.counter.t.counter.opened"),
    ("projector", "$JS.API.STREAM.DELETE.EVT_COUNTER"),
    ("web-bff", "evt.counter.t.counter.opened"),
    ("web-bff", "cmd.projector.retry-parked"),
    ("web-bff", "_INBOX_projector.forged"),
    ("outbox-relay", "cmd.counter.increment"),
    ("outbox-relay", "bell.counter"),
    ("operator", "evt.counter.t.counter.opened"),
    ("operator", "$JS.API.STREAM.DELETE.EVT_COUNTER"),
]
FORBIDDEN_TO_HEAR = [
    ("web-bff", "_INBOX_counter.>", ""),
    ("web-bff", "_INBOX_svc-projector.>", ""),
    ("web-bff", "_INBOX.>", ""),
    ("web-bff", "cmd.counter.increment", "counter"),
    ("counter", "cmd.counter.increment", ""),  # outside of its queue group it would hear all
    ("counter", "evt.>", ""),
    ("projector", "evt.counter.>", ""),
    ("projector", "cmd.>", ""),
    ("outbox-relay", "qry.projector.get-counter", "projector"),
    ("operator", "evt.>", ""),
    ("operator", ">", ""),
]


async def _complaint(
    places: Places, user: str, *, say: str = "", hear: tuple[str, str] | None = None
) -> str:
    """Return what the broker says to it; empty when it allows it."""
    heard: asyncio.Queue[Exception] = asyncio.Queue()
    client = await nats.connect(
        places.nats(user), error_cb=heard.put, inbox_prefix=f"_INBOX_{user}", allow_reconnect=False
    )
    try:
        if hear:
            await client.subscribe(hear[0], queue=hear[1])
        else:
            await client.publish(say, b"")
        await client.flush(5)  # nats-py's first PING may go out before what it has buffered
        await client.flush(5)  # the answer to the second one comes after the complaint
        return "" if heard.empty() else str(heard.get_nowait()).lower()
    finally:
        await client.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("user", "subject"), FORBIDDEN_TO_SAY)
async def test_nobody_says_what_is_not_its_to_say(places: Places, user: str, subject: str) -> None:
    assert "permissions violation" in await _complaint(places, user, say=subject)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("user", "subject", "queue"), FORBIDDEN_TO_HEAR)
async def test_nobody_hears_what_is_not_for_it(
    places: Places, user: str, subject: str, queue: str
) -> None:
    assert "permissions violation" in await _complaint(places, user, hear=(subject, queue))


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_allowed_is_not_complained_about(places: Places) -> None:
    assert await _complaint(places, "counter", say="bell.counter") == ""
    assert await _complaint(places, "counter", hear=("cmd.counter.increment", "counter")) == ""


@pytest.mark.asyncio(loop_scope="module")
async def test_a_wrong_password_gets_nobody_in(places: Places) -> None:
    address = urlsplit(places.nats("counter"))
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        async with asyncio.timeout(LIMIT_S):
            await reader.readline()
            writer.write(b'CONNECT {"user":"counter","pass":"wrong","verbose":false}\r\nPING\r\n')
            assert b"Authorization Violation" in await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()


FORBIDDEN_STATEMENTS = [
    ("outbox_relay", "insert into counter.event select * from counter.event"),
    ("outbox_relay", "update counter.event_outbox set stream = 'x'"),
    ("outbox_relay", "select * from counter.idempotency"),
    ("outbox_relay", "select * from counter.aggregate"),
    ("outbox_relay", "create table counter.mine (a int)"),
    ("outbox_relay", "select * from projector.projection_checkpoint"),
    ("outbox_relay", "create schema mine"),
    ("projector", "delete from counter.event_outbox"),
    ("projector", 'update counter.event_outbox set "offset" = 1'),
    ("projector", "update counter.lease set holder = 'me'"),
    ("projector", "select * from counter.idempotency"),
    ("counter", "select * from projector.projection_checkpoint"),
    ("counter", "create schema mine"),
    ("counter", "create table public.mine (a int)"),
    ("operator", "delete from counter.event_outbox"),
    ("operator", "create table public.mine (a int)"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("role", "statement"), FORBIDDEN_STATEMENTS)
async def test_no_role_does_what_is_not_its_to_do(
    places: Places, role: str, statement: str
) -> None:
    async with deployable(places, "counter"), deployable(places, "projector"):
        pass  # so that the tables are there
    connection = await asyncpg.connect(places.store(role))
    try:
        await connection.execute("set default_transaction_read_only = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


SEEN_BY = [
    ("counter", "counter.event"),
    ("counter", "counter.aggregate"),
    ("counter", "counter.idempotency"),
    ("counter", "counter.outbox_entry"),
    ("outbox_relay", "counter.outbox_entry"),
    ("projector", "counter.outbox_entry"),
    ("projector", "projector.counter_view"),
    ("operator", "counter.event"),
    ("operator", "projector.counter_view"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("role", "table"), SEEN_BY)
async def test_no_role_sees_a_tenants_rows_without_saying_for_whom(
    places: Places, role: str, table: str
) -> None:
    async with deployable(places, "counter"), deployable(places, "projector"):
        pass  # so that the tables are there
    async with open_store(places.store("counter"), service="counter") as store:
        stream = stream_id("acme", "counter", uuid4().hex)
        await store.commit([Unit((append(stream, 0, "1"),), record(stream))])
    async with open_views(places.store("projector"), service="projector") as views:
        await views.transact(_one_counter)
    connection = await asyncpg.connect(places.store(role))
    try:
        seen = [await connection.fetchval(f"select count(*) from {table}")]
        for said in ("tenants = '{rival}'", "tenants = '{acme}'", "every_tenant = 'on'"):
            await connection.execute(f"set flotilla.{said}")
            seen.append(await connection.fetchval(f"select count(*) from {table}"))
    finally:
        await connection.close()
    nothing, of_rival, _, of_all = seen
    assert (0, 0) == (nothing, of_rival)
    assert of_all > 0


async def _one_counter(view: ViewSession) -> None:
    await view.execute_many(
        "insert into counter_view (tenant, counter_id, value, version) values ($1, $2, 1, 1)",
        [("acme", uuid4().hex)],
    )


@pytest.mark.asyncio(loop_scope="module")
async def test_a_schema_that_is_not_there_yet_is_waited_for_by_others() -> None:
    with open_folder() as data:
        async with run_postgres(data) as postgres:
            await provision(postgres.superuser_dsn)
            await provision(postgres.superuser_dsn)  # twice is as once
            fresh = Places(0, postgres.superuser_dsn)
            with pytest.raises(Unavailable) as refused:
                async with open_store(fresh.store("outbox_relay"), service="counter"):
                    pass
            assert refused.value.code == "schema-not-ours"
            async with open_store(fresh.store("counter"), service="counter"):
                pass
            async with open_leases(fresh.store("outbox_relay"), service="counter") as leases:
                assert await leases.acquire("relay:counter", "me", ttl_s=1) is not None
            await provision(postgres.superuser_dsn)  # and after the owner's migrations too


@pytest.mark.asyncio(loop_scope="module")
async def test_a_database_that_was_there_before_its_accounts_is_shared_as_they_say() -> None:
    with open_folder() as data:
        async with run_postgres(data) as postgres:
            async with open_store(postgres.superuser_dsn, service="counter"):
                pass  # of a release before these accounts: its tables are the superuser's
            await provision(postgres.superuser_dsn)
            for role in ("counter", "outbox_relay"):
                url = Places(0, postgres.superuser_dsn).store(role)
                async with open_store(url, service="counter") as store:
                    assert (await store.status()).waiting == 0
            connection = await asyncpg.connect(Places(0, postgres.superuser_dsn).store("counter"))
            await connection.execute(
                "alter table counter.event add column extra int"
            )  # it is the owner
            await connection.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_relay_makes_the_streams_that_are_generated(places: Places) -> None:
    async with connected(places.nats("outbox-relay"), name="svc-outbox-relay") as client:
        wanted = json.loads(FILES["nats/streams/production/EVT_COUNTER.json"])
        log = JetStreamLog(client, "counter")
        made = log._config().as_dict()
        assert {key: wanted[key] for key in made if key in wanted} == {
            key: value for key, value in made.items() if key in wanted
        }
        assert {k for k, v in made.items() if v} <= wanted.keys()
        await log.last_sequence()
        kept = (await client.jetstream().stream_info("EVT_COUNTER")).config.as_dict()
        assert {key: kept.get(key) for key in wanted} == wanted
