"""Nothing that was acknowledged is lost, and nothing is out of order, however writers interleave.

First alone: a random script on every store, with memory as the model. Then all at once: two
processes' stores, raw sessions that pause between their inserts and their commit, and a relay that
reads meanwhile, judged by a checker that knows nothing but what callers were told. The checker is
itself checked: it catches a reader with a cursor and a store that forgot compare-and-set.
"""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import asyncpg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from flotilla import GroupCommitter
from flotilla.clock import SystemClock
from flotilla.embedded import PostgresServer
from flotilla.outbox import Offset, OutboxEntry
from flotilla.store import (
    Append,
    ClaimKey,
    Committed,
    Conflicted,
    EventStore,
    IdempotencyRecord,
    Loaded,
    Outcome,
    Snapshot,
    StreamId,
    Unit,
    Version,
    stream_id,
)
from flotilla.stores import ServiceStore
from flotilla.stores.libsql import LibsqlStore
from flotilla.stores.memory import MemoryStore
from flotilla.stores.postgres import PostgresStore
from flotilla.stores.postgres.isolation import EVERY_TENANT
from flotilla.testing import new_event

HOUR_S = 3600

# Alone: every store behaves as memory does.

NAMES, KEYS = ("a", "b", "c"), ("k1", "k2", "k3")
FETCH_MAX = 1000
names = st.sampled_from(NAMES)
sizes = st.integers(0, 3)


@dataclass
class Stage:
    """Both databases, opened once; each example plays on streams and logs of its own."""

    runner: asyncio.Runner
    postgres: PostgresStore
    libsql: LibsqlStore
    examples: Iterator[int] = field(default_factory=count)

    def fresh(self) -> tuple[str, list[ServiceStore]]:
        """Return a new tenant, and stores that have nothing of it and an empty log."""
        tenant = f"t{next(self.examples)}"
        postgres = PostgresStore(self.postgres._of_tenants, self.postgres._connections, log=tenant)
        libsql = LibsqlStore(self.libsql._database, log=tenant, clock=SystemClock())
        return tenant, [MemoryStore(), postgres, libsql]


class Interleaving(RuleBasedStateMachine):
    """Whatever is done, all stores answer the same, and each log is dense and in order."""

    stage: ClassVar[Stage]

    @initialize()
    def open(self) -> None:
        self.tenant, self.stores = self.stage.fresh()
        self.relayed: list[list[tuple[StreamId, Version]]] = [[] for _ in self.stores]
        self.numbers = count()
        self.ask(lambda store: store.forget_expired(limit=FETCH_MAX))  # of the examples before

    def ask[T](self, question: Callable[[ServiceStore], Coroutine[Any, Any, T]]) -> list[T]:
        """Return what each store answers."""
        return [self.stage.runner.run(question(store)) for store in self.stores]

    def agree[T](self, question: Callable[[ServiceStore], Coroutine[Any, Any, T]]) -> T:
        """Return what all stores answer."""
        memory, postgres, libsql = self.ask(question)
        assert memory == postgres
        assert memory == libsql
        return memory

    def stream(self, name: str) -> StreamId:
        return stream_id(self.tenant, "thing", name)

    def claim(self, key: str) -> ClaimKey:
        return ClaimKey(self.tenant, "thing", key)

    def head(self, name: str) -> Version:
        return self.agree(lambda store: version_of(store, self.stream(name)))

    def events(self, size: int) -> tuple[Any, ...]:
        return tuple(new_event(str(next(self.numbers))) for _ in range(size))

    @rule(
        writes=st.lists(
            st.tuples(names, sizes, st.sampled_from([0, 0, 0, 0, 1]), st.sampled_from([None, 1])),
            max_size=5,
        ),
        key=st.none() | st.sampled_from(KEYS),
        content=st.sampled_from([b"f", b"g"]),
        ttl_s=st.sampled_from([HOUR_S, 0]),
    )
    def commit_a_batch(
        self,
        writes: list[tuple[str, int, int, int | None]],
        key: str | None,
        content: bytes,
        ttl_s: int,
    ) -> None:
        heads = {name: self.head(name) for name in NAMES}
        units = []
        for name, size, off, schema in writes:
            append = Append(self.stream(name), Version(heads[name] + off), self.events(size))
            heads[name] = append.version
            if schema and size:
                snapshot = Snapshot(append.version, schema, f'{{"at": {append.version}}}')
                append = replace(append, snapshot=snapshot)
            units.append(Unit((append,)))
        if key and units:
            record = IdempotencyRecord(self.claim(key), content, content * 3, ttl_s)
            units[-1] = replace(units[-1], record=record)
        self.agree(lambda store: outcomes_of(store, units))
        for name in {name for name, *_ in writes}:
            self.load(name, 1)

    @rule(one=names, other=names, size=sizes, off=st.sampled_from([0, 0, 1]))
    def commit_over_two_streams(self, one: str, other: str, size: int, off: int) -> None:
        if one == other:
            return
        appends = (
            Append(self.stream(one), self.head(one), self.events(size)),
            Append(self.stream(other), Version(self.head(other) + off), self.events(1)),
        )
        self.agree(lambda store: outcomes_of(store, [Unit(appends)]))

    @rule(name=names, size=st.integers(1, 3), schema=st.sampled_from([1, 2]))
    def commit_with_a_snapshot(self, name: str, size: int, schema: int) -> None:
        head = self.head(name)
        snapshot = Snapshot(Version(head + size), schema, f'{{"at": {head + size}}}')
        unit = Unit((Append(self.stream(name), head, self.events(size), snapshot),))
        assert [Committed()] == self.agree(lambda store: outcomes_of(store, [unit]))

    @rule(name=names, schema=st.sampled_from([None, 1, 2]))
    def load(self, name: str, schema: int | None) -> None:
        claims = [self.claim(key) for key in KEYS]
        self.agree(lambda store: loaded_of(store, self.stream(name), schema, claims))

    @rule(name=names, after=st.integers(0, 4), limit=st.integers(1, 3))
    def read(self, name: str, after: int, limit: int) -> None:
        async def page(store: ServiceStore) -> list[object]:
            events = await store.read(self.stream(name), after=Version(after), limit=limit)
            return [(event.version, event.event_id, event.payload) for event in events]

        self.agree(page)

    @rule()
    def use_every_key_for_a_moment(self) -> None:
        records = [IdempotencyRecord(self.claim(key), b"f", b"gone", 0) for key in KEYS]
        self.agree(lambda store: outcomes_of(store, [Unit((), record) for record in records]))

    @rule(limit=st.integers(1, 3))
    def forget_expired(self, limit: int) -> None:
        """No more than asked for; which ones go first is each store's choice, so all go in the end."""
        self.agree(lambda store: store.forget_expired(limit=limit))
        self.agree(lambda store: store.forget_expired(limit=FETCH_MAX))

    @rule(limit=st.integers(1, 4), twice=st.booleans())
    def relay(self, limit: int, twice: bool) -> None:
        """Offsets are given in the order of positions, which each store chooses for itself."""
        for store, relayed in zip(self.stores, self.relayed, strict=True):
            waiting = self.stage.runner.run(as_list(store.pending(limit=limit)))
            given = [(e.position, Offset(n)) for n, e in enumerate(waiting, len(relayed) + 1)]
            for _ in range(1 + twice):
                self.stage.runner.run(as_coroutine(store.record(given)))
            relayed += [(e.event.stream, e.event.version) for e in waiting]

    @rule(after=st.integers(0, 6), limit=st.integers(1, 3))
    def read_the_ledger(self, after: int, limit: int) -> None:
        for store, relayed in zip(self.stores, self.relayed, strict=True):
            page = self.stage.runner.run(as_list(store.published(after=Offset(after), limit=limit)))
            assert relayed[after : after + limit] == [
                (e.event.stream, e.event.version) for e in page
            ]

    @rule(limit=st.integers(1, 3))
    def find_what_waits(self, limit: int) -> None:
        for store, relayed in zip(self.stores, self.relayed, strict=True):
            waiting = self.stage.runner.run(as_list(store.pending(limit=limit)))
            wanted = [(e.event.stream, e.event.version) for e in waiting]
            found = self.stage.runner.run(as_list(store.find(relayed + wanted)))
            assert waiting == sorted(found, key=lambda entry: entry.position)

    @invariant()
    def logs_are_dense_and_in_order(self) -> None:
        async def log(store: ServiceStore) -> list[OutboxEntry]:
            published = await store.published(after=Offset(0), limit=FETCH_MAX)
            return [*published, *await store.pending(limit=FETCH_MAX)]

        if not hasattr(self, "stores"):
            return
        for entries, relayed in zip(self.ask(log), self.relayed, strict=True):
            offsets = [entry.offset for entry in entries if entry.offset is not None]
            assert list(range(1, len(relayed) + 1)) == offsets
            assert relayed == [(e.event.stream, e.event.version) for e in entries[: len(relayed)]]
            assert [] == inversions(entries)

    @invariant()
    def logs_stand_at_the_same_point(self) -> None:
        async def where(store: ServiceStore) -> tuple[int, int, int]:
            status = await store.status()
            assert status.offset == await store.last_offset()
            assert (status.waiting == 0) == (status.oldest_waiting_s == 0)
            return status.committed, status.offset, status.waiting

        if hasattr(self, "stores"):
            self.agree(where)


async def as_list[T](answer: Awaitable[Sequence[T]]) -> list[T]:
    return list(await answer)


async def as_coroutine[T](answer: Awaitable[T]) -> T:
    return await answer


async def version_of(store: EventStore, stream: StreamId) -> Version:
    return (await store.load(stream)).version


async def outcomes_of(store: EventStore, units: Sequence[Unit]) -> list[Outcome]:
    return list(await store.commit(units))


async def loaded_of(
    store: EventStore, stream: StreamId, schema: int | None, claims: Sequence[ClaimKey]
) -> tuple[object, ...]:
    loaded: Loaded = await store.load(stream, snapshot_schema=schema, claims=claims)
    events = [(event.version, event.event_id, event.payload) for event in loaded.events]
    return loaded.version, loaded.snapshot, events, dict(loaded.replies)


def test_every_store_behaves_as_memory_does(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    # What is compared is not durability; thousands of fsyncs would only cost time.
    dsn = f"{postgres_server.dsn}&synchronous_commit=off"

    async def opened(stack: AsyncExitStack) -> tuple[PostgresStore, LibsqlStore]:
        enter = stack.enter_async_context
        return (
            await enter(PostgresStore.open(dsn, service=f"s{uuid4().hex[:12]}")),
            await enter(LibsqlStore.open(f"libsql://{tmp_path}/model.db", service="model")),
        )

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            Interleaving.stage = Stage(runner, *runner.run(opened(stack)))
            run_state_machine_as_test(
                Interleaving,
                settings=settings(
                    max_examples=40,
                    stateful_step_count=20,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(stack.aclose())


# All at once: what is checked.


@dataclass(frozen=True)
class Acknowledged:
    """What a writer was told: this event is in this place. Times are those of one clock."""

    stream: StreamId
    version: int
    event_id: str
    asked_s: float
    answered_s: float


@dataclass
class History:
    """What writers were told, and what the relay made of it."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    log: list[OutboxEntry] = field(default_factory=list)
    """What the relay read, in the order in which it gave offsets 1, 2, 3 …"""
    conflicts: int = 0


def inversions(entries: Sequence[OutboxEntry]) -> list[str]:
    """Return where a stream's events are not 1, 2, 3 … in this order."""
    heads: defaultdict[StreamId, int] = defaultdict(int)
    found = []
    for entry in entries:
        stream, version = entry.event.stream, entry.event.version
        if version != heads[stream] + 1:
            found.append(f"inverted: {stream}@{version} follows @{heads[stream]}")
        heads[stream] = max(heads[stream], version)
    return found


def lost_or_twice(history: History) -> list[str]:
    """Return what was acknowledged and is not in the log in its place, or more than once."""
    places: defaultdict[str, list[tuple[StreamId, int]]] = defaultdict(list)
    for entry in history.log:
        places[entry.event.event_id].append((entry.event.stream, entry.event.version))
    return [
        f"told {told.stream}@{told.version}, stored {places.get(told.event_id)}"
        for told in history.acknowledged
        if places.get(told.event_id) != [(told.stream, told.version)]
    ]


def overtaken(history: History) -> list[str]:
    """Return what was acknowledged before something else was asked for, and yet comes later."""
    offsets = {entry.event.event_id: n for n, entry in enumerate(history.log, start=1)}
    answered = sorted(history.acknowledged, key=lambda told: told.answered_s)
    found, newest, done = [], 0, 0
    for told in sorted(history.acknowledged, key=lambda told: told.asked_s):
        while answered[done].answered_s < told.asked_s:
            newest = max(newest, offsets.get(answered[done].event_id, 0))
            done += 1
        if offsets.get(told.event_id, newest + 1) < newest:
            found.append(f"overtaken: {told.stream}@{told.version}")
    return found


def phantoms(history: History) -> list[str]:
    """Return events that were decided on a state that their stream never had.

    Each event says what it adds and what that makes: the fold has to agree at every step.
    """
    totals: defaultdict[StreamId, int] = defaultdict(int)
    found = []
    for entry in sorted(history.log, key=lambda e: (e.event.stream, e.event.version)):
        stream, said = entry.event.stream, json.loads(entry.event.payload)
        totals[stream] += said["by"]
        if said["total"] != totals[stream]:
            found.append(f"{stream}@{entry.event.version} made {totals[stream]}, said {said}")
    return found


def complaints(history: History) -> dict[str, list[str]]:
    """Return everything that is wrong with a history."""
    checks = {
        "lost": lost_or_twice(history),
        "inverted": inversions(history.log),
        "overtaken": overtaken(history),
        "phantoms": phantoms(history),
    }
    return {name: found[:5] for name, found in checks.items() if found}


# All at once: who takes part.

HOT = [stream_id("acme", "tally", f"hot-{n}") for n in range(4)]
COLD = [stream_id("acme", "tally", f"cold-{n}") for n in range(400)]
WRITERS = 16
APPENDS_MIN = 2_000

Commit = Callable[[Sequence[Unit]], Awaitable[Sequence[Outcome]]]


@dataclass
class Writer:
    """Reads where a stream stands, adds to it, and remembers what it was told."""

    load: EventStore
    commit: Commit
    chance: random.Random
    history: History

    async def write(self, *streams: StreamId) -> None:
        """Append one or two events to each of these streams, trying again until that works."""
        while True:
            appends = [await self._append(stream) for stream in streams]
            asked_s = asyncio.get_running_loop().time()
            [outcome] = await self.commit([Unit(tuple(appends))])
            if outcome == Committed():
                break
            assert outcome == Conflicted(), outcome
            self.history.conflicts += 1
        self.told(appends, asked_s)

    def told(self, appends: Sequence[Append], asked_s: float) -> None:
        answered_s = asyncio.get_running_loop().time()
        self.history.acknowledged += [
            Acknowledged(append.stream, version, event.event_id, asked_s, answered_s)
            for append in appends
            for version, event in enumerate(append.events, start=append.expected + 1)
        ]

    async def _append(self, stream: StreamId) -> Append:
        loaded = await self.load.load(stream, snapshot_schema=1)
        total = int(loaded.snapshot.state) if loaded.snapshot else 0
        total += sum(json.loads(event.payload)["by"] for event in loaded.events)
        events = []
        for _ in range(self.chance.randint(1, 2)):
            by = self.chance.randint(1, 9)
            total += by
            events.append(new_event(json.dumps({"by": by, "total": total})))
        after = Version(loaded.version + len(events))
        snapshot = Snapshot(after, 1, str(total)) if self.chance.random() < 0.2 else None
        return Append(stream, loaded.version, tuple(events), snapshot)

    def some(self) -> tuple[StreamId, ...]:
        """Choose where to write: hot, cold, or both at once."""
        hot, cold = self.chance.choice(HOT), self.chance.choice(COLD)
        return self.chance.choices([(hot,), (cold,), (hot, cold)], weights=[3, 6, 1])[0]


@dataclass
class RawWriter(Writer):
    """A session that does by hand what the store does in one statement, and takes its time.

    It writes something else first, pauses between insert and commit, and often rolls back.
    """

    dsn: str = ""
    pause_max_s: float = 0.01
    log: str = ""

    async def run(self, times: int) -> None:
        connection = await asyncpg.connect(self.dsn, server_settings=EVERY_TENANT)
        try:
            for _ in range(times):
                await self._try(connection, self.chance.choice(HOT + COLD[:4]))
        finally:
            await connection.close()

    async def _try(self, connection: asyncpg.Connection, stream: StreamId) -> None:
        asked_s = asyncio.get_running_loop().time()
        append = await self._append(stream)
        transaction = connection.transaction()
        await transaction.start()
        if self.chance.random() < 0.7:  # so that it is older than what it will be among
            await connection.execute(
                "insert into idempotency values ('acme', 'raw', $1, 'f', 'r', now())", uuid4().hex
            )
            await self._pause()
        if not await self._moved(connection, append):
            await transaction.rollback()
            return
        for version, event in enumerate(append.events, start=append.expected + 1):
            await connection.execute(
                "insert into event (stream, version, event_id, type, payload, metadata)"
                " values ($1, $2, $3, $4, $5, '{}')",
                *(stream, version, event.event_id, event.type, event.payload),
            )
            await connection.execute(
                "insert into event_outbox (stream, version, log) values ($1, $2, $3)",
                *(stream, version, self.log),
            )
        await self._pause()
        if self.chance.random() < 0.3:
            await transaction.rollback()
            return
        await transaction.commit()
        self.told([append], asked_s)

    async def _moved(self, connection: asyncpg.Connection, append: Append) -> bool:
        if append.expected:
            done = await connection.execute(
                "update aggregate set version = $2 where stream = $1 and version = $3",
                *(append.stream, append.version, append.expected),
            )
        else:
            done = await connection.execute(
                "insert into aggregate (stream, version) values ($1, $2)"
                " on conflict (stream) do nothing",
                *(append.stream, append.version),
            )
        return str(done).endswith(" 1")

    async def _pause(self) -> None:
        await asyncio.sleep(self.chance.random() * self.pause_max_s)


class Relay:
    """Gives offsets to what has none, again and again, as the relay does."""

    def __init__(self, store: PostgresStore, history: History) -> None:
        self._store = store
        self._history = history

    async def step(self) -> int:
        """Take what waits; return how much that was."""
        entries = await self._store.pending(limit=100)
        start = len(self._history.log) + 1
        given = [(entry.position, Offset(n)) for n, entry in enumerate(entries, start=start)]
        await self._store.record(given)
        self._history.log += entries
        return len(entries)


class CursorRelay(Relay):
    """The mutant that everybody writes first: it remembers how far it got."""

    _cursor = 0

    async def step(self) -> int:
        async with self._store._connections.use() as connection:
            rows = await connection.fetch(
                "select position from event_outbox where position > $1 order by position limit 100",
                self._cursor,
            )
        positions = [row[0] for row in rows]
        found = {e.position: e for e in await self._store.pending(limit=10_000)}
        self._history.log += [found[position] for position in positions if position in found]
        self._cursor = max(positions, default=self._cursor)
        return len(positions)


@asynccontextmanager
async def relaying(relay: Relay) -> AsyncIterator[None]:
    """Relay beside the block, and after it until nothing is left."""
    over = False

    async def work() -> None:
        while not over:
            await relay.step()
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        over = True
        await task
    while await relay.step():
        pass


@asynccontextmanager
async def two_processes(dsn: str, kind: type[PostgresStore]) -> AsyncIterator[list[PostgresStore]]:
    """Yield two stores on one new schema; nothing is shared between them but the database."""
    service = f"s{uuid4().hex[:12]}"
    async with (
        kind.open(dsn, service=service) as one,
        kind.open(dsn, service=service) as other,
    ):
        yield [one, other]


async def storm(
    stores: Sequence[PostgresStore], history: History, *, seed: int, times: int
) -> None:
    """Let writers write through both stores, half of them grouped with others."""
    commits: list[Commit] = []
    for store in stores:
        commits += [store.commit, GroupCommitter(store).commit]

    async def keep_writing(n: int) -> None:
        writer = Writer(
            stores[n % 2], commits[n % len(commits)], random.Random(f"{seed}-{n}"), history
        )
        for _ in range(times):
            await writer.write(*writer.some())

    async with asyncio.TaskGroup() as group:
        for n in range(WRITERS):
            group.create_task(keep_writing(n))


async def stored(store: PostgresStore) -> list[OutboxEntry]:
    """Return the whole ledger."""
    return list(await store.published(after=Offset(0), limit=100_000))


def without_offset(entries: Sequence[OutboxEntry]) -> list[OutboxEntry]:
    return [replace(entry, offset=None) for entry in entries]


async def deadlocks(store: PostgresStore) -> int:
    async with store._connections.use() as connection:
        await connection.execute("select pg_stat_clear_snapshot()")
        return int(
            await connection.fetchval(
                "select deadlocks from pg_stat_database where datname = current_database()"
            )
        )


async def test_many_writers_in_two_processes_lose_and_invert_nothing(
    postgres_server: PostgresServer,
) -> None:
    history = History()
    async with two_processes(postgres_server.dsn, PostgresStore) as stores:
        before = await deadlocks(stores[0])
        async with relaying(Relay(stores[1], history)):
            await storm(stores, history, seed=1, times=APPENDS_MIN // WRITERS)
        ledger = await stored(stores[0])
        status = await stores[0].status()
        after = await deadlocks(stores[0])

    assert {} == complaints(history)
    assert without_offset(ledger) == history.log
    assert list(range(1, len(ledger) + 1)) == [entry.offset for entry in ledger]
    assert (0, len(ledger)) == (status.waiting, status.committed)
    assert len(history.acknowledged) == len(ledger) >= APPENDS_MIN
    assert history.conflicts > 0  # or they never met
    assert before == after  # rows are locked in one order


async def adversity(
    dsn: str, stores: Sequence[PostgresStore], history: History, *, seed: int
) -> None:
    """Raw sessions and the stores' own writers on the same streams."""
    schema = stores[0]._log
    raw = [
        RawWriter(
            stores[0],
            stores[0].commit,
            random.Random(f"raw-{seed}-{n}"),
            history,
            dsn=f"{dsn}&search_path={schema}",
            log=schema,
        )
        for n in range(8)
    ]
    async with asyncio.TaskGroup() as group:
        group.create_task(storm(stores, history, seed=seed, times=12))
        for writer in raw:
            group.create_task(writer.run(25))


async def test_sessions_that_dawdle_before_they_commit_lose_and_invert_nothing(
    postgres_server: PostgresServer,
) -> None:
    history = History()
    async with two_processes(postgres_server.dsn, PostgresStore) as stores:
        async with relaying(Relay(stores[1], history)):
            await adversity(postgres_server.dsn, stores, history, seed=2)
        ledger = await stored(stores[0])

    assert {} == complaints(history)
    assert without_offset(ledger) == history.log
    assert list(range(1, len(ledger) + 1)) == [entry.offset for entry in ledger]
    assert len(history.acknowledged) == len(ledger)
    positions = [entry.position for entry in ledger]
    assert sorted(positions) != positions  # some were seen late: the case that kills cursors


# The checker, checked.

TRIES = 5


async def test_the_checker_catches_a_reader_with_a_cursor(postgres_server: PostgresServer) -> None:
    for seed in range(TRIES):
        history = History()
        async with (
            two_processes(postgres_server.dsn, PostgresStore) as stores,
            relaying(CursorRelay(stores[1], history)),
        ):
            await adversity(postgres_server.dsn, stores, history, seed=seed)
        if "lost" in complaints(history):
            return
    raise AssertionError(f"a cursor lost nothing in {TRIES} tries: the load is too kind")


class Careless(PostgresStore):
    """The mutant without compare-and-set: it appends wherever the stream stands by now."""

    async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        [unit] = units
        while [Conflicted()] == (outcomes := await super().commit([unit])):
            appends = [
                replace(append, expected=(await self.load(append.stream)).version)
                for append in unit.appends
            ]
            unit = replace(unit, appends=tuple(appends))
        return outcomes


async def test_the_checker_catches_a_store_without_compare_and_set(
    postgres_server: PostgresServer,
) -> None:
    history = History()
    async with (
        two_processes(postgres_server.dsn, Careless) as stores,
        relaying(Relay(stores[1], history)),
        asyncio.TaskGroup() as group,
    ):
        for n in range(8):
            writer = Writer(stores[n % 2], stores[n % 2].commit, random.Random(n), history)
            group.create_task(several(writer, HOT[0], 5))

    assert {"lost", "phantoms"} <= set(complaints(history))
    assert "inverted" not in complaints(history)  # the database still numbers what it takes


async def several(writer: Writer, stream: StreamId, times: int) -> None:
    for _ in range(times):
        await writer.write(stream)


def test_the_checker_catches_what_is_wrong_on_paper() -> None:
    async def made() -> History:
        store, history = MemoryStore(), History()
        writer = Writer(store, store.commit, random.Random(0), history)
        for stream in (HOT[0], HOT[1], HOT[0], HOT[0]):
            await writer.write(stream)
        history.log = list(await store.pending(limit=100))
        return history

    good = asyncio.run(made())
    first, *rest = good.log
    swapped = [*good.log[:-2], good.log[-1], good.log[-2]]
    wrong = replace(first, event=replace(first.event, payload='{"by": 1, "total": 99}'))

    assert {} == complaints(good)
    assert "lost" in complaints(replace(good, log=rest))
    assert "lost" in complaints(replace(good, log=[*good.log, first]))
    assert "inverted" in complaints(replace(good, log=swapped))
    assert "overtaken" in complaints(replace(good, log=[*rest, first]))
    assert "phantoms" in complaints(replace(good, log=[wrong, *rest]))
