"""The libSQL store keeps the contracts, and what it promises beyond them."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import libsql
import pytest

from flotilla.errors import Corrupt, Unavailable
from flotilla.outbox import Offset
from flotilla.projection import Checkpoint, ViewSession
from flotilla.store import (
    EMPTY,
    Append,
    Committed,
    Failed,
    NewEvent,
    Snapshot,
    Unit,
    Version,
    stream_id,
)
from flotilla.stores import open_store, open_views
from flotilla.stores.libsql import LibsqlLeases, LibsqlStore, LibsqlViews
from flotilla.stores.libsql.connection import (
    Connection,
    Locked,
    Refused,
    meaning,
    path_of,
    read_sql,
)
from flotilla.stores.libsql.due import DUE_TABLE
from flotilla.stores.libsql.leases import TABLE as LEASE_TABLE
from flotilla.stores.libsql.schema import statements
from flotilla.stores.migrations import AppliedMigration, Migration, plan, read_migrations
from flotilla.testing import (
    DueStoreContract,
    EventStoreContract,
    LeaseStoreContract,
    OutboxContract,
    ParkingContract,
    ViewStoreContract,
)
from flotilla.testing.store import A, B, append, commit_one, payloads, record
from flotilla.testing.views import TALLY, UPSERT, add, step
from flotilla.testing.worlds import ManualClock, eventually

PROCESS_LIMIT_S = 60


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"libsql://{tmp_path}/thing.db"


@pytest.fixture
async def store(url: str) -> AsyncIterator[LibsqlStore]:
    async with LibsqlStore.open(url, service="thing") as opened:
        yield opened


@pytest.fixture
async def views(url: str) -> AsyncIterator[LibsqlViews]:
    async with LibsqlViews.open(url, service="thing") as opened:
        await opened.migrate("tally", [TALLY])
        yield opened


def raw(url: str) -> Any:
    """Return a connection of somebody else's."""
    return libsql.connect(path_of(url), isolation_level=None)


class TestLibsqlStore(EventStoreContract):
    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[LibsqlStore]:
        async with LibsqlStore.open(url, service="thing") as opened:
            yield opened


class TestLibsqlDue(DueStoreContract):
    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[LibsqlStore]:
        async with LibsqlStore.open(url, service="thing") as opened:
            yield opened


class TestLibsqlOutbox(OutboxContract):
    @pytest.fixture
    async def leases(self, url: str) -> AsyncIterator[LibsqlLeases]:
        async with LibsqlLeases.open(url, service="thing") as leases:
            yield leases

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[LibsqlStore]:
        async with LibsqlStore.open(url, service="thing") as opened:
            yield opened


class TestLibsqlViews(ViewStoreContract):
    @pytest.fixture
    async def views(self, url: str) -> AsyncIterator[LibsqlViews]:
        async with LibsqlViews.open(url, service="thing") as opened:
            await opened.migrate("tally", [TALLY])
            yield opened


class TestLibsqlParking(ParkingContract):
    @pytest.fixture
    async def views(self, url: str) -> AsyncIterator[LibsqlViews]:
        async with LibsqlViews.open(url, service="thing") as opened:
            yield opened


class TestOpening:
    @pytest.mark.parametrize(
        "wrong", ["libsql://host.turso.io", "libsql://x.db", "libsql:///x.db?mode=ro", "file:///x"]
    )
    async def test_what_is_no_file_is_refused(self, wrong: str) -> None:
        with pytest.raises(ValueError, match=r"write libsql:///absolute/path\.db"):
            async with LibsqlStore.open(wrong, service="thing"):
                pass

    async def test_the_port_opens_it_by_its_url(self, url: str) -> None:
        async with (
            open_store(url, service="thing") as store,
            open_views(url, service="thing") as views,
        ):
            assert Committed() == await commit_one(store, append(A, 0, "1"))
            assert [] == list(await views.checkpoints())

    async def test_a_missing_directory_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match=r"nowhere/x\.db: .*its directory must exist"):
            async with LibsqlStore.open(f"libsql://{tmp_path}/nowhere/x.db", service="thing"):
                pass

    async def test_a_corrupt_file_is_one_clear_line(self, url: str, tmp_path: Path) -> None:
        (tmp_path / "thing.db").write_bytes(b"this is no database at all" * 1000)

        with pytest.raises(Corrupt) as raised:
            async with LibsqlStore.open(url, service="thing"):
                pass

        assert (
            f"{tmp_path}/thing.db: file is not a database"
            " (no libSQL file, or damaged: restore a backup)"
        ) == str(raised.value)

    async def test_a_damaged_page_is_corrupt(self, url: str) -> None:
        async with LibsqlStore.open(url, service="thing") as store:
            await commit_one(store, append(A, 0, "1"))
        with Path(path_of(url)).open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))

        with pytest.raises(Corrupt, match="it is damaged: restore a backup"):
            async with LibsqlStore.open(url, service="thing"):
                pass

    @pytest.mark.parametrize(
        ("text", "family"),
        [
            ("database is locked", Locked),
            ("database or disk is full", Unavailable),
            ("disk I/O error", Unavailable),
            ("database disk image is malformed", Corrupt),
            ("UNIQUE constraint failed: event.stream", Refused),
            ("malformed JSON", ValueError),
            ("no such column: x", ValueError),
        ],
    )
    def test_what_errors_stand_for(self, text: str, family: type[Exception]) -> None:
        assert family is type(meaning(ValueError(text), "/x.db"))

    async def test_the_settings_are_in_force(self, store: LibsqlStore) -> None:
        def settings(connection: Connection) -> list[object]:
            names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "query_only")
            return [connection.rows(f"pragma {name}")[0][0] for name in names]

        assert ["wal", 2, 1, 0, 0] == await store._database.write(settings)
        assert ["wal", 2, 1, 0, 1] == await store._database.read(settings)

    async def test_what_would_not_be_durable_is_refused(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "flotilla.stores.libsql.connection._SETTINGS", (("synchronous", 7),)
        )  # SQLite takes 7 as something else

        with pytest.raises(Unavailable, match="commits would not be safe"):
            async with LibsqlStore.open(url, service="thing"):
                pass

    async def test_everything_is_there_after_reopening(self, url: str) -> None:
        async with LibsqlStore.open(url, service="thing") as store:
            await commit_one(store, append(A, 0, '"1"', '"2"'), by=record("k", reply=b"r"))
            [first, _] = await store.pending(limit=10)
            await store.record([(first.position, Offset(1))])
            before = (await store.load(A), await store.pending(limit=10))

        async with LibsqlStore.open(url, service="thing") as store:
            assert before == (await store.load(A), await store.pending(limit=10))
            assert {b"r"} == {
                r.reply for r in (await store.load(A, claims=[record("k").claim])).replies.values()
            }
            assert Offset(1) == await store.last_offset()

    async def test_after_closing_it_is_unavailable(self, url: str) -> None:
        async with LibsqlStore.open(url, service="thing") as store:
            pass

        with pytest.raises(Unavailable, match="is closed"):
            await store.load(A)


class TestMigrating:
    async def test_once_and_only_once(self, url: str) -> None:
        for _ in range(2):
            async with (
                LibsqlStore.open(url, service="thing"),
                LibsqlViews.open(url, service="thing"),
            ):
                pass

        applied = raw(url).execute(
            "select component, version, name, checksum from schema_migration order by 1, 2"
        )
        steps = read_migrations("flotilla.stores.libsql")
        assert [
            "due",
            *(("event_store", s.version, s.name, s.checksum) for s in steps),
            "heartbeat",
            "lease",
            "parking",
            "views",
        ] == [row if row[0] == "event_store" else row[0] for row in applied.fetchall()]

    async def test_several_processes_at_once(self, url: str) -> None:
        code = (
            "import asyncio, sys\n"
            "from flotilla.stores.libsql import LibsqlStore\n"
            "async def main():\n"
            "    async with LibsqlStore.open(sys.argv[1], service='thing') as store:\n"
            "        await store.status()\n"
            "asyncio.run(main())\n"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE)
            for _ in range(4)
        ]
        assert [(0, b"")] * 4 == [
            (p.wait(PROCESS_LIMIT_S), err) for p in processes for err in [p.communicate()[1]]
        ]
        steps = read_migrations("flotilla.stores.libsql")
        applied = raw(url).execute("select count(*) from schema_migration").fetchall()
        assert [(len([*steps, DUE_TABLE, LEASE_TABLE]),)] == applied

    @pytest.mark.parametrize(
        ("tampering", "complaint"),
        [
            (
                "insert into schema_migration values ('event_store', 99, 'later', 'x', 0)",
                "is at schema version 99 and this code knows 2: start the newer release",
            ),
            ("update schema_migration set checksum = 'x'", "was changed after it was applied"),
        ],
    )
    async def test_a_schema_of_another_code_is_corrupt(
        self, url: str, tampering: str, complaint: str
    ) -> None:
        async with LibsqlStore.open(url, service="thing"):
            pass
        raw(url).execute(tampering)

        with pytest.raises(Corrupt, match=complaint):
            async with LibsqlStore.open(url, service="thing"):
                pass

    async def test_the_tables_of_a_projection(self, views: LibsqlViews) -> None:
        more = "create table more (n bigint); -- and\ncreate index more_n on more (n);"
        await views.migrate("tally", [TALLY, more])
        await views.migrate("tally", [TALLY, more])

        assert [] == list(await views.fetch_across("select n from more"))
        with pytest.raises(Corrupt, match=r"projection:tally: migration 1 .* was changed"):
            await views.migrate("tally", [TALLY + " ", more])
        with pytest.raises(Corrupt, match="is at schema version 2 and this code knows 1"):
            await views.migrate("tally", [TALLY])

    async def test_a_broken_migration_leaves_nothing(self, views: LibsqlViews) -> None:
        with pytest.raises(ValueError, match="syntax error"):
            await views.migrate("bad", ["create table half (n bigint); create tabl oops (n)"])

        with pytest.raises(ValueError, match="no such table"):
            await views.fetch_across("select n from half")
        await views.migrate("bad", ["create table half (n bigint)"])

    def test_what_is_planned(self) -> None:
        one, two = Migration(1, "one", "select 1"), Migration(2, "two", "select 2")
        done = [AppliedMigration(1, one.checksum)]

        assert [[one, two], [two], []] == [
            plan("x", [two, one], []),
            plan("x", [one, two], done),
            plan("x", [one], done),
        ]
        assert one.checksum == Migration(1, "one", "select 1").checksum != two.checksum
        with pytest.raises(Corrupt, match="lacks migration 1"):
            plan("x", [one, two], [AppliedMigration(2, two.checksum)])
        with pytest.raises(ValueError, match="without gaps"):
            plan("x", [two], [])

    def test_a_script_is_cut_into_statements(self) -> None:
        trigger = "create trigger t before update on a begin select raise(abort, 'a;b'); end"
        script = f"-- one; two\n select 1; /* ; */ {trigger};\n\n;select ';' -- end;\n"

        assert [
            "-- one; two\n select 1",
            f" /* ; */ {trigger}",
            "select ';' -- end;\n",
        ] == [s.removeprefix("\n\n") for s in statements(script)]
        with pytest.raises(ValueError, match="does not end"):
            list(statements("create trigger t begin select 1;"))


class TestEvents:
    @pytest.mark.parametrize(
        "forbidden",
        [
            "update event set payload = '0'",
            "delete from event",
            "update event set version = 9",
            "insert or replace into event values ('acme/thing/a', 1, 'x', 'y', '1', '{}', 0)",
        ],
    )
    async def test_are_immutable(self, store: LibsqlStore, url: str, forbidden: str) -> None:
        await commit_one(store, append(A, 0, '"1"'))
        somebody = raw(url)
        somebody.execute("pragma recursive_triggers = on")  # or `replace` deletes silently

        with pytest.raises(ValueError, match="events are immutable"):
            somebody.execute(forbidden)

        assert ['"1"'] == await payloads(store, A)

    async def test_time_never_goes_back(self, url: str) -> None:
        clock = ManualClock()
        async with LibsqlStore.open(url, service="thing", clock=clock) as store:
            await commit_one(store, append(A, 0, '"1"'))
            clock._now -= timedelta(hours=1)
            await commit_one(store, append(B, 0, '"1"'))
            clock._now += timedelta(hours=2, microseconds=7)
            await commit_one(store, append(A, 1, '"2"'))

            times = [e.event.recorded_at for e in await store.pending(limit=10)]

        start = ManualClock().now()
        assert [start, start, start + timedelta(hours=1, microseconds=7)] == times

    async def test_a_lost_event_is_noticed(self, store: LibsqlStore, url: str) -> None:
        await commit_one(store, append(A, 0, '"1"'))
        raw(url).execute("update aggregate set version = 2")

        with pytest.raises(Corrupt, match="not all of its events are there"):
            await store.load(A)

    async def test_an_unexpected_event_is_noticed(self, store: LibsqlStore, url: str) -> None:
        await commit_one(store, append(A, 0, '"1"', '"2"'))
        raw(url).execute("update aggregate set version = 1")

        failed, fine = await store.commit(
            [Unit((append(A, 1, '"?"'),)), Unit((append(B, 0, "1"),))]
        )

        assert isinstance(failed, Failed)
        assert isinstance(failed.error, Corrupt)
        assert Committed() == fine

    async def test_what_is_refused_late_is_taken_back_whole(self, store: LibsqlStore) -> None:
        """The record is written last; this one's expiry is no 64-bit number."""
        outcomes = await store.commit(
            [
                Unit((append(A, 0, '"a"'),), record("k1")),
                Unit((append(B, 0, '"b"'),), record("k2", ttl_s=10**15)),
            ]
        )

        assert [Committed, Failed] == [type(outcome) for outcome in outcomes]
        assert (['"a"'], []) == (await payloads(store, A), await payloads(store, B))
        assert [A] == [e.event.stream for e in await store.pending(limit=10)]

    @pytest.mark.parametrize("where", ["event_id", "metadata"])
    async def test_half_a_surrogate_pair_is_refused_anywhere(
        self, store: LibsqlStore, where: str
    ) -> None:
        """Stored, it could never be read again: the binding panics."""
        event = {
            "event_id": NewEvent("\ud800", "t", "1", {}),
            "metadata": NewEvent("x", "t", "1", {"\ud800": "v"}),
        }[where]

        outcomes = await store.commit(
            [Unit((append(A, 0, "1"),)), Unit((Append(B, EMPTY, (event,)),))]
        )

        assert [Committed, Failed] == [type(outcome) for outcome in outcomes]
        assert 1 == len(await store.pending(limit=10))

    async def test_text_that_cannot_be_read_is_corrupt(self, store: LibsqlStore, url: str) -> None:
        await commit_one(store, append(A, 0, "1"))
        raw(url).execute(
            "insert into aggregate values ('acme/thing/b', 0, cast(x'ff' as text), 1, 0)"
        )

        with pytest.raises(Corrupt, match="not readable, restore a backup"):
            await store.load(B, snapshot_schema=1)
        assert ["1"] == await payloads(store, A)

    async def test_a_log_is_only_its_own(self, store: LibsqlStore, url: str) -> None:
        await commit_one(store, append(A, 0, '"1"'))
        [entry] = await store.pending(limit=1)

        async with LibsqlStore.open(url, service="other") as other:
            assert [] == list(await other.pending(limit=10))
            assert 0 == (await other.status()).committed
            with pytest.raises(Corrupt):
                await other.record([(entry.position, Offset(1))])


class TestSharing:
    async def test_a_reader_in_another_process_sees_what_is_committed(
        self, store: LibsqlStore, url: str
    ) -> None:
        other = raw(url)
        for n in range(3):
            await commit_one(store, append(A, n, str(n)))
            assert [(n + 1,)] == other.execute("select count(*) from event").fetchall()

    async def test_waiting_for_a_writer_leaves_the_event_loop_alone(self, url: str) -> None:
        """The binding's own busy timeout would stop it: the GIL is held."""
        async with LibsqlStore.open(url, service="thing", lock_wait_s=0.3) as store:
            other = raw(url)
            other.execute("begin immediate")
            waiting = asyncio.create_task(commit_one(store, append(A, 0, '"1"')))
            ticks = 0
            while not waiting.done():
                await asyncio.sleep(0.01)
                ticks += 1

            with pytest.raises(Unavailable, match="somebody else is writing"):
                await waiting
            assert ticks > 10
            other.execute("rollback")
            assert Committed() == await commit_one(store, append(A, 0, '"1"'))

    async def test_a_cancelled_caller_leaves_a_whole_transaction(
        self, store: LibsqlStore, url: str
    ) -> None:
        other = raw(url)
        other.execute("begin immediate")
        caller = asyncio.create_task(
            commit_one(store, append(A, 0, '"1"', '"2"'), append(B, 0, '"1"'), by=record("k"))
        )
        await asyncio.sleep(0.05)  # its job has begun, and waits for the lock
        caller.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await caller
        other.execute("rollback")

        async def written() -> bool:
            return (await store.load(B)).version == 1

        await eventually(written)
        loaded = await store.load(A, claims=[record("k").claim])
        assert (2, 1, 3) == (
            loaded.version,
            len(loaded.replies),
            len(await store.pending(limit=10)),
        )
        assert Committed() == await commit_one(store, append(A, 2, '"3"'))

    async def test_a_kill_loses_nothing_that_was_acknowledged(self, url: str) -> None:
        code = (
            "import asyncio, sys\n"
            "from flotilla.store import Unit, Committed\n"
            "from flotilla.stores.libsql import LibsqlStore\n"
            "from flotilla.testing.store import A, B, append\n"
            "async def main():\n"
            "    async with LibsqlStore.open(sys.argv[1], service='thing') as store:\n"
            "        for n in range(1_000_000):\n"
            "            unit = Unit((append(A, n, str(n)), append(B, n, str(n))))\n"
            "            assert [Committed()] == await store.commit([unit])\n"
            "            print(n, flush=True)\n"
            "asyncio.run(main())\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE)
        acknowledged = -1
        with process, process.stdout or contextlib.nullcontext(()) as lines:
            for line in lines:
                acknowledged = int(line)
                if acknowledged == 50:
                    os.kill(process.pid, signal.SIGKILL)

        async with LibsqlStore.open(url, service="thing") as store:
            a, b = await store.load(A), await store.load(B)
            assert acknowledged + 1 <= a.version <= acknowledged + 2
            assert a.version == b.version
            assert 2 * a.version == (await store.status()).waiting


class TestViews:
    async def test_a_cancelled_step_moves_nothing(self, views: LibsqlViews) -> None:
        begun = asyncio.Event()

        async def apply(view: ViewSession) -> None:
            await add(view)
            begun.set()
            await asyncio.sleep(60)

        task = asyncio.create_task(views.advance("tally", "thing", step(0, 2), apply))
        await begun.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

        assert [] == list(await views.fetch_across("select name from tally"))
        await views.advance("tally", "thing", step(0, 2), add)
        assert [(2,)] == list(await views.fetch_across("select n from tally where name = $1", "b"))

    @pytest.mark.parametrize("delay_ms", range(5))
    async def test_a_step_cancelled_anywhere_is_whole_or_absent(
        self, views: LibsqlViews, delay_ms: int
    ) -> None:
        task = asyncio.create_task(views.advance("tally", "thing", step(0, 2), add))
        await asyncio.sleep(delay_ms / 2000)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await views.migrate("later", [])  # the writer did what it had begun
        await views.advance("other", "thing", step(0, 1), lambda _: asyncio.sleep(0))

        moved = await views.checkpoint("tally", "thing") != Checkpoint(Offset(0))
        assert (2 if moved else 0) == len(await views.fetch_across("select name from tally"))

    async def test_a_session_ends_with_its_step(self, views: LibsqlViews) -> None:
        kept: list[ViewSession] = []

        async def apply(view: ViewSession) -> None:
            kept.append(view)

        await views.advance("tally", "thing", step(0, 2), apply)

        with pytest.raises(RuntimeError, match="this session is over"):
            await kept[0].fetch("select 1")

    async def test_an_endless_step_is_given_up(
        self, views: LibsqlViews, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flotilla.stores.libsql.views.APPLY_LIMIT_S", 0.05)

        async def apply(view: ViewSession) -> None:
            await add(view)
            await asyncio.sleep(60)

        with pytest.raises(Unavailable, match="was not applied within"):
            await views.advance("tally", "thing", step(0, 2), apply)
        await views.advance("tally", "thing", step(0, 2), add)

    async def test_a_view_beside_its_store_in_one_file(
        self, views: LibsqlViews, store: LibsqlStore
    ) -> None:
        """Each waits for the other's transaction."""

        async def slowly(view: ViewSession) -> None:
            await add(view)
            await asyncio.sleep(0.05)

        _, outcome = await asyncio.gather(
            views.advance("tally", "thing", step(0, 2), slowly),
            commit_one(store, append(A, 0, '"1"')),
        )

        assert Committed() == outcome

    @pytest.mark.parametrize(
        ("sql", "parameters", "complaint"),
        [
            ("select $2, $1", (1, 2), "in order"),
            ("select $1, $2", (1,), "1 parameters for"),
            ("select $1", (1, 2), "2 parameters for"),
            (UPSERT.replace("$1", "'a'").replace("$2", "1"), (), "readonly"),
        ],
    )
    async def test_what_the_binding_takes_silently_is_refused(
        self, views: LibsqlViews, sql: str, parameters: Sequence[object], complaint: str
    ) -> None:
        with pytest.raises(ValueError, match=complaint):
            await views.fetch_across(sql, *parameters)


class TestPlans:
    """Hot statements read by an index, on a filled table."""

    @pytest.fixture
    async def filled(self, store: LibsqlStore) -> LibsqlStore:
        for n in range(4):
            streams = [stream_id("acme", "thing", f"{n}-{m}") for m in range(250)]
            await store.commit([Unit((append(s, 0, "1", "2"),), record(s)) for s in streams])
        entries = await store.pending(limit=1900)
        await store.record([(e.position, Offset(n)) for n, e in enumerate(entries, start=1)])
        return store

    @pytest.mark.parametrize(
        ("name", "index"),
        [
            ("tail", "sqlite_autoindex_event_1 (stream=? AND version>?)"),
            ("heads", "sqlite_autoindex_aggregate_1 (stream=?)"),
            ("replies", "sqlite_autoindex_idempotency_1 (tenant=? AND scope=? AND key=?)"),
            ("pending", "event_outbox_waiting (log=?)"),
            ("waiting", "event_outbox_waiting (log=?)"),
            ("published", "event_outbox_ledger (log=? AND offset>?)"),
            ("events", "event_outbox_ledger (log=? AND offset>?)"),
            ("last_offset", "event_outbox_ledger (log=? AND offset>?)"),
            ("find", "sqlite_autoindex_event_outbox_1 (stream=? AND version=?)"),
            ("offsets", "INTEGER PRIMARY KEY (rowid=?)"),
            ("record", "INTEGER PRIMARY KEY (rowid=?)"),
            ("forget_expired", "idempotency_expiry (expires_at<?)"),
        ],
    )
    async def test_use_an_index(self, filled: LibsqlStore, name: str, index: str) -> None:
        rows = await filled._database.rows(f"explain query plan {read_sql(name)}")
        steps = [str(row[3]) for row in rows]

        assert any(step.endswith(index) for step in steps), steps
        scans = [s for s in steps if s.startswith("SCAN") and "json_each" not in s]
        assert scans in ([], ["SCAN k VIRTUAL TABLE INDEX 1:"], ["SCAN CONSTANT ROW"]), steps
        assert not [s for s in steps if "TEMP B-TREE" in s], steps


A_MILLION = """
with recursive n (n) as (select 1 union all select n + 1 from n where n < 1000000)
insert into event (stream, version, event_id, type, payload, metadata, recorded_at)
select printf('acme/thing/%06d', n / 10), 1 + n % 10, 'id', 'thing.happened.v1', '1', '{}', 0 from n;
insert into aggregate (stream, version)
select stream, version from event where version = 10;
insert into event_outbox (stream, version, log, "offset")
select stream, version, 'thing', case when rowid <= 999000 then rowid end from event;
insert into idempotency (tenant, scope, key, fingerprint, reply, expires_at)
select 'acme', 'thing', printf('%06d', rowid), x'00', x'00', rowid from event;
"""


async def test_among_a_million_events_a_long_stream_is_loaded_as_a_short_one_is(
    store: LibsqlStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job of the reader, three statements, a snapshot and a tail of five; and so is the rest."""
    somebody = raw(url)
    somebody.execute("pragma synchronous = off")
    somebody.execute("begin")
    for statement in statements(A_MILLION):
        somebody.execute(statement)
    somebody.execute("commit")
    somebody.close()
    jobs, rows, steps = 0, 0, Connection.rows

    def counted(connection: Connection, sql: str, *parameters: object) -> list[Any]:
        nonlocal jobs, rows
        found = steps(connection, sql, *parameters)
        jobs, rows = jobs + 1, rows + len(found)
        return found

    seen: list[tuple[int, int, int]] = []
    for count in (10, 1000):
        stream = stream_id("acme", "thing", f"long-{count}")
        start = append(stream, 0, *("1" for _ in range(count - 5)))
        snapshot = Snapshot(Version(count - 5), 1, "{}")
        for some in (replace(start, snapshot=snapshot), append(stream, count - 5, *"12345")):
            assert Committed() == await commit_one(store, some)
        jobs = rows = 0
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "rows", counted)
            loaded = await store.load(stream, snapshot_schema=1, claims=[record("k").claim])
        seen.append((jobs, rows, len(loaded.events)))

    assert [(3, 6, 5)] * 2 == seen  # the aggregate, its tail, no reply
    assert 5 == len(await store.pending(limit=5))
    assert (1_001_010, 2_010) == ((await store.status()).committed, (await store.status()).waiting)
    assert 10_000 == await store.forget_expired()


async def test_metadata_and_event_ids_are_kept(store: LibsqlStore) -> None:
    event = NewEvent("any-id", "x.v1", "1", {})
    await commit_one(store, Append(A, Version(0), (event,)))

    [found] = await store.read(A)

    assert ("any-id", {}) == (found.event_id, found.metadata)


class TestLibsqlLeases(LeaseStoreContract):
    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[LibsqlLeases]:
        async with LibsqlLeases.open(url, service="thing") as leases:
            yield leases
