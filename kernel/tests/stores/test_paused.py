"""A process that is paused (SIGSTOP: a debugger, a frozen virtual machine, swapping) stops nobody else.

Each test has a real child process that is stopped with a connection of ours in its hand. On Postgres
the server ends what is held too long; a libSQL file has no server, so its lock lasts as long as the
process, and everybody else is told.
"""

import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from flotilla import GroupCommitter
from flotilla.embedded import PostgresServer
from flotilla.errors import Unavailable
from flotilla.outbox import Offset
from flotilla.projection import Fenced
from flotilla.store import Append, Committed, Conflicted, Failed, StreamId, Unit, Version, stream_id
from flotilla.stores import open_store
from flotilla.stores.libsql import LibsqlStore, LibsqlViews
from flotilla.stores.libsql.connection import Locked
from flotilla.stores.postgres import PostgresStore, PostgresViews
from flotilla.stores.postgres import connection as connections
from flotilla.stores.postgres.isolation import EVERY_TENANT
from flotilla.testing import eventually, new_event
from flotilla.testing.store import A, B, append, commit_one, payloads, record
from flotilla.testing.views import TALLY, add, step

LIMIT_S = 30.0
ENDED = "Unavailable: postgres: (terminating .* timeout|the connection broke, .*)"
"""The driver does not always know why the server hung up."""
PRELUDE = """
import asyncio, sys
from flotilla import GroupCommitter
from flotilla.errors import Unavailable
from flotilla.projection import Fenced
from flotilla.store import Append, Committed, StreamId, Unit, Version
from flotilla.stores import open_store, open_views
from flotilla.testing import new_event
from flotilla.testing.store import A, B, append, commit_one, record
from flotilla.testing.views import TALLY, add, step
url, service = sys.argv[1:]
def say(what): print(what, flush=True)
async def told(): return (await asyncio.to_thread(sys.stdin.readline)).strip()
"""
IN_A_TRANSACTION = """
async def main():
    async with open_store(url, service=service) as store:
        try:
            async with store._connections.use() as connection, connection.transaction():
                await connection.execute("update aggregate set version = 9 where stream = $1", A)
                say("holding")
                await told()
                await connection.execute("update aggregate set version = 10 where stream = $1", A)
            say("committed")
        except Unavailable as error:
            say(f"Unavailable: {error}")
        say(await commit_one(store, append(B, 0, '"after"')))
asyncio.run(main())
"""
IN_A_STEP = """
async def main():
    async with open_views(url, service=service) as views:
        async def apply(view):
            await add(view)
            say("holding")
            await told()
        try:
            await views.advance("tally", "thing", step(0, 2), apply)
            say("committed")
        except (Unavailable, Fenced) as error:
            say(f"{type(error).__name__}: {error}")
asyncio.run(main())
"""
BETWEEN_COMMITS = """
async def main():
    async with open_store(url, service=service) as store:
        say(await commit_one(store, append(A, 0, '"1"')))
        await told()
        say(await commit_one(store, append(A, 1, '"late"')))
        say(await commit_one(store, append(A, 2, '"3"')))
asyncio.run(main())
"""
IN_A_GROUPED_COMMIT = """
async def main():
    async with open_store(url, service=service) as store:
        committer = GroupCommitter(store)
        units = [
            Unit((append(StreamId(f"acme/thing/{n}"), 0, "1"),), record(f"k{n}")) for n in range(40)
        ]
        for n in range(2):  # both connections have prepared their statement: a commit is one message
            await asyncio.gather(*(commit_one(store, append(s, n, "1")) for s in (A, B)))
        say("ready")
        await told()
        outcomes = await asyncio.gather(*(committer.commit([unit]) for unit in units))
        say(sum(o == [Committed()] for o in map(list, outcomes)))
asyncio.run(main())
"""
ALL_THE_TIME = """
async def main():
    async with open_store(url, service=service) as store:
        committer = GroupCommitter(store)
        async def call(stream):
            while True:
                event = new_event("1")
                version = (await store.load(stream)).version
                try:
                    unit = Unit((Append(stream, version, (event,)),), record(event.event_id))
                    if [Committed()] == list(await committer.commit([unit])):
                        say(event.event_id)
                except Unavailable:
                    pass
        await asyncio.gather(*(call(StreamId(f"acme/thing/{n % 4}")) for n in range(8)))
asyncio.run(main())
"""


class Child:
    """A process of ours that can be paused."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> str:
        """Return the next line that it writes."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            return (await self._process.stdout.readline()).decode().strip()

    def go_on(self) -> None:
        """Let it do what it was told to wait with."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    async def pause(self) -> None:
        """Stop it as the kernel does, at once; return when it stands still."""
        os.kill(self._process.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self._process.pid}/stat")

        async def stands_still() -> bool:
            return stat.read_text().rpartition(")")[2].split()[0] == "T"

        await eventually(stands_still)

    def resume(self) -> None:
        """Let it run again, knowing nothing of the time that passed."""
        os.kill(self._process.pid, signal.SIGCONT)

    async def kill(self) -> list[str]:
        """End it without a farewell; return what it had written."""
        assert self._process.stdout is not None
        self._process.kill()
        async with asyncio.timeout(LIMIT_S):
            rest = await self._process.stdout.read()
            await self._process.wait()
        return rest.decode().splitlines()


@asynccontextmanager
async def child(code: str, url: str, service: str) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PRELUDE + code, url, service),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def service() -> str:
    return f"s{uuid4().hex[:12]}"


@pytest.fixture
async def store(postgres_server: PostgresServer, service: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore.open(postgres_server.dsn, service=service) as opened:
        yield opened


@asynccontextmanager
async def somebody(
    server: PostgresServer, store: PostgresStore
) -> AsyncIterator[asyncpg.Connection]:
    """Lend a session that is not the store's, in its schema."""
    session = await asyncpg.connect(
        server.dsn, server_settings=EVERY_TENANT | {"search_path": store._log}
    )
    try:
        yield session
    finally:
        session.terminate()


async def insist(store: PostgresStore, unit: Unit) -> int:
    """Ask until it is committed; return how often nobody answered in time."""
    refused = 0
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                [outcome] = await store.commit([unit])
            except Unavailable:
                refused += 1
                continue
            assert outcome == Committed()
            return refused


async def holders(store: PostgresStore) -> int:
    """Return how many sessions sit in a transaction without doing anything."""
    rows = await store._fetch(
        "select pid from pg_stat_activity where state = 'idle in transaction'"
        " and application_name = $1",
        f"flotilla-{store._log}",
    )
    return len(rows)


# Postgres.


async def test_paused_inside_a_transaction_it_stops_nobody_and_is_ended_by_the_server(
    postgres_server: PostgresServer, store: PostgresStore, service: str
) -> None:
    """With the limits that are in force everywhere."""
    await commit_one(store, append(A, 0, '"1"'))
    async with child(IN_A_TRANSACTION, postgres_server.dsn, service) as paused:
        assert "holding" == await paused.says()
        await paused.pause()
        paused.go_on()

        for n in range(200):
            await commit_one(store, append(stream_id("x", "y", f"s{n % 7}"), n // 7, "1"))
        assert 1 == await holders(store)  # they did not wait for it
        refused = await insist(store, Unit((append(A, 1, '"2"'),), record("k")))
        assert refused >= 1  # they did: until the server had enough
        assert 0 == await holders(store)

        paused.resume()
        assert re.fullmatch(ENDED, await paused.says())
        assert str(Committed()) == await paused.says()  # on a fresh connection
    assert ['"1"', '"2"'] == await payloads(store, A)
    assert 2 == (await store.load(A)).version


async def test_a_projector_that_is_paused_in_a_step_is_succeeded_by_another(
    postgres_server: PostgresServer, service: str
) -> None:
    async with PostgresViews.open(postgres_server.dsn, service=service) as views:
        await views.migrate("tally", [TALLY])
        async with child(IN_A_STEP, postgres_server.dsn, service) as paused:
            assert "holding" == await paused.says()
            await paused.pause()
            await views.advance("other", "thing", step(0, 2), lambda _: asyncio.sleep(0))

            async def succeeded() -> bool:
                try:
                    await views.advance("tally", "thing", step(0, 2), add)
                except Unavailable:
                    return False
                return True

            await eventually(succeeded, within_s=LIMIT_S)
            paused.go_on()
            paused.resume()

            assert re.fullmatch(ENDED, await paused.says())
        with pytest.raises(Fenced):
            await views.advance("tally", "thing", step(0, 2), add)
        assert [(2,)] == list(await views.fetch_across("select n from tally where name = $1", "b"))


async def test_paused_between_two_commits_it_holds_nothing_and_learns_that_it_is_late(
    postgres_server: PostgresServer, store: PostgresStore, service: str
) -> None:
    async with child(BETWEEN_COMMITS, postgres_server.dsn, service) as paused:
        assert str(Committed()) == await paused.says()
        await paused.pause()
        paused.go_on()

        assert Committed() == await commit_one(store, append(A, 1, '"2"'))
        assert 0 == await holders(store)

        paused.resume()
        assert [str(Conflicted()), str(Committed())] == [await paused.says() for _ in range(2)]
    assert ['"1"', '"2"', '"3"'] == await payloads(store, A)


async def test_paused_in_a_grouped_commit_the_server_finishes_it(
    postgres_server: PostgresServer, store: PostgresStore, service: str
) -> None:
    """A commit is one statement: once it is sent, nobody waits for the process that sent it."""
    async with (
        somebody(postgres_server, store) as session,
        child(IN_A_GROUPED_COMMIT, postgres_server.dsn, service) as paused,
    ):
        transaction = session.transaction()
        assert "ready" == await paused.says()
        await transaction.start()
        await session.execute("lock table event_outbox in share mode")
        paused.go_on()

        async def both_flights_wait() -> bool:
            rows = await session.fetch(
                "select pid from pg_stat_activity"
                " where application_name = $1 and wait_event_type = 'Lock'",
                f"flotilla-{store._log}",
            )
            return 2 == len(rows)

        await eventually(both_flights_wait)
        await paused.pause()
        await transaction.rollback()

        async def finished() -> bool:
            return (await store.status()).committed > 4

        await eventually(finished)
        streams = [StreamId(f"acme/thing/{n}") for n in range(40)]
        durable = [s for s in streams if (await store.load(s)).version]
        assert len(durable) >= 2  # both flights: one unit, and whatever had gathered
        for stream in durable:
            assert Committed() == await commit_one(store, append(stream, 1, '"next"'))

        paused.resume()
        assert "40" == await paused.says()
    for stream in streams:
        wanted = ["1", '"next"'] if stream in durable else ["1"]
        assert wanted == await payloads(store, stream)


@pytest.mark.parametrize("seed", range(2))
async def test_a_process_that_stutters_loses_nothing_and_keeps_nobody_waiting(
    postgres_server: PostgresServer, store: PostgresStore, service: str, seed: int
) -> None:
    """Paused wherever it happens to be, again and again, while another writes the same streams."""
    chance = random.Random(seed)
    acknowledged: list[str] = []
    committer = GroupCommitter(store)

    async def write(stream: StreamId) -> None:
        while True:
            event = new_event("2")
            unit = Unit((Append(stream, (await store.load(stream)).version, (event,)),))
            if [Committed()] == list(await committer.commit([unit])):
                acknowledged.append(event.event_id)
                return

    async with child(ALL_THE_TIME, postgres_server.dsn, service) as stuttering:
        heard = [await stuttering.says()]
        for _ in range(25):
            await asyncio.sleep(chance.random() * 0.02)
            await stuttering.pause()
            async with asyncio.timeout(LIMIT_S):
                await asyncio.gather(*(write(StreamId(f"acme/thing/{n}")) for n in range(4)))
            stuttering.resume()
        heard += await stuttering.kill()

    stored = [e.event.event_id for e in await store.pending(limit=1_000_000)]
    assert len(stored) == len(set(stored))
    assert 100 == len(acknowledged)
    assert set(acknowledged) | set(heard) <= set(stored), f"seed {seed}"
    for n in range(4):
        events = await store.read(StreamId(f"acme/thing/{n}"), limit=100_000)
        assert list(range(1, len(events) + 1)) == [e.version for e in events]


async def test_a_transaction_that_is_busy_and_never_ends_is_ended(
    postgres_server: PostgresServer, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither idle nor in a long statement: what no other limit catches."""
    monkeypatch.setattr(connections, "TRANSACTION_TIMEOUT", "300ms")
    async with PostgresStore.open(postgres_server.dsn, service=service) as store:

        async def dawdle() -> None:
            async with store._connections.use() as connection, connection.transaction():
                while True:
                    await connection.fetchval("select 1")

        with pytest.raises(Unavailable, match=r"transaction timeout|the connection broke"):
            async with asyncio.timeout(LIMIT_S):
                await dawdle()

        assert Committed() == await commit_one(store, append(A, 0, "1"))


async def test_a_locked_stream_does_not_take_the_rest_of_its_batch_with_it(
    postgres_server: PostgresServer, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who works by hand in the database sits on two streams of many."""
    hurried = connections.SERVER_SETTINGS | {"lock_timeout": "300ms"}
    monkeypatch.setattr(connections, "SERVER_SETTINGS", hurried)
    streams = [stream_id("acme", "thing", f"s{n}") for n in range(20)]
    held = streams[3], streams[7]
    async with PostgresStore.open(postgres_server.dsn, service=store._log) as impatient:
        await impatient.commit([Unit((append(s, 0, "1"),)) for s in streams])
        units = [
            Unit((append(s, 1 + n, str(n)),), record(f"{s}{n}")) for n in range(2) for s in streams
        ]
        units.append(Unit((append(B, 0, "1"), append(held[0], 3))))
        units.append(Unit((append(A, 0, "1"),)))
        async with somebody(postgres_server, store) as session, session.transaction():
            await session.execute(
                "select from aggregate where stream = any($1) for update", list(held)
            )
            outcomes = await impatient.commit(units)

        waiting = [u for u, o in zip(units, outcomes, strict=True) if o != Committed()]
        assert {held[0], held[1], B} == {a.stream for u in waiting for a in u.appends}
        assert {"unavailable", "conflicted"} >= {
            o.error.family if isinstance(o, Failed) else "conflicted"
            for o in outcomes
            if o != Committed()
        }
        assert all(isinstance(outcomes[n], Failed) for n in (3, 7))
        assert [Committed()] * 5 == list(await impatient.commit(waiting))
        assert [3] * 20 == [(await impatient.load(s)).version for s in streams]


async def test_when_a_whole_table_is_locked_nobody_is_asked_twice(
    postgres_server: PostgresServer, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = connections.SERVER_SETTINGS | {"lock_timeout": "300ms"}
    monkeypatch.setattr(connections, "SERVER_SETTINGS", hurried)
    async with PostgresStore.open(postgres_server.dsn, service=store._log) as impatient:
        units = [Unit((append(s, 0, "1"),)) for s in (A, B)]
        async with somebody(postgres_server, store) as session, session.transaction():
            await session.execute("lock table event in share mode")
            with pytest.raises(Unavailable, match="lock timeout"):
                await impatient.commit(units)
        assert [Committed()] * 2 == list(await impatient.commit(units))


# libSQL.


async def test_paused_with_the_lock_of_a_file_others_are_told_and_readers_go_on(
    tmp_path: Path,
) -> None:
    """There is no server that could end it. It was slow, not gone: what it had begun, it finishes."""
    url = f"libsql://{tmp_path}/thing.db"
    async with (
        LibsqlViews.open(url, service="thing") as views,
        LibsqlStore.open(url, service="thing", lock_wait_s=0.3) as store,
    ):
        await views.migrate("tally", [TALLY])
        await commit_one(store, append(A, 0, '"1"'))
        async with child(IN_A_STEP, url, "thing") as paused:
            assert "holding" == await paused.says()
            await paused.pause()

            for _ in range(2):
                with pytest.raises(Locked, match="somebody else is writing") as caught:
                    await commit_one(store, append(A, 1, '"2"'))
                assert ("unavailable", "store-locked") == (caught.value.family, caught.value.code)
            assert ['"1"'] == await payloads(store, A)

            paused.go_on()
            paused.resume()
            assert "committed" == await paused.says()
        assert Committed() == await commit_one(store, append(A, 1, '"2"'))
        assert Offset(2) == (await views.checkpoint("tally", "thing")).offset


async def test_killed_with_the_lock_of_a_file_others_go_on_at_once(tmp_path: Path) -> None:
    """And nothing of what it had begun is there: the cure for a process that stays paused."""
    url = f"libsql://{tmp_path}/thing.db"
    async with (
        LibsqlViews.open(url, service="thing") as views,
        open_store(url, service="thing") as store,
    ):
        await views.migrate("tally", [TALLY])
        async with child(IN_A_STEP, url, "thing") as paused:
            assert "holding" == await paused.says()
            await paused.pause()
            waiting = asyncio.create_task(commit_one(store, append(A, 0, '"1"')))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await paused.kill()

            assert Committed() == await waiting
        assert Offset(0) == (await views.checkpoint("tally", "thing")).offset
        await views.advance("tally", "thing", step(0, 2), add)
        assert Version(1) == (await store.load(A)).version
