"""Aggregates on real stores: snapshots come and go, and what a newer version wrote is left alone."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import asyncpg
import libsql
import pytest
from pydantic import BaseModel

from flotilla import (
    Aggregate,
    Claim,
    ContractCodec,
    Decider,
    Decision,
    Done,
    GroupCommitter,
    Lanes,
    Offset,
    SystemClock,
    execute,
    uuid7,
)
from flotilla.codec import UnknownEventType
from flotilla.embedded import PostgresServer
from flotilla.remember import Memory
from flotilla.store import (
    EMPTY,
    Append,
    ClaimKey,
    Committed,
    NewEvent,
    Snapshot,
    StreamId,
    Unit,
    Version,
    stream_id,
)
from flotilla.stores import ServiceStore, open_store
from flotilla.stores.postgres.isolation import EVERY_TENANT
from flotilla.testing import eventually

TALLY = stream_id("acme", "tally", "t")
ODD = '{ "note":"\\u00fc\\/" , "n" : 1.0, "n":123456789012345678901234567890 }'
"""JSON that nobody would write like this: whoever reads and writes it again is found out."""


class Added(BaseModel):
    type: ClassVar[str] = "tally.added.v1"

    by: int


DECIDER: Decider[int, int, Added] = Decider(
    0, lambda by, _: [Added(by=by)] if by else [], lambda total, event: total + event.by
)


@dataclass
class Snapshots:
    schema: int = 1
    every_events: int = 10

    def dump(self, state: int) -> str:
        return f"{self.schema}:{state}"

    def load(self, text: str) -> int:
        schema, _, state = text.partition(":")
        assert int(schema) == self.schema
        return int(state)


@dataclass
class World:
    """A store, and everything on top of it that a service composes."""

    store: ServiceStore
    url: str
    service: str

    def tally(
        self, *, schema: int = 1, ignored: Sequence[str] = (), states: int = 10_000
    ) -> Aggregate[int, int, Added]:
        """Compose the aggregate as some version of its service does."""
        return Aggregate(
            DECIDER,
            ContractCodec([Added], ignored=ignored),
            self.store,
            GroupCommitter(self.store, flights_max=self.store.flights_max).commit,
            SystemClock(),
            uuid7,
            random.Random(1),
            Snapshots(schema),
            Memory(streams_max=states),
        )

    async def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Do as somebody who has the database's password."""
        if self.url.startswith("libsql"):
            somebody = libsql.connect(self.url.removeprefix("libsql://"), isolation_level=None)

            async def got_through() -> list[list[tuple[Any, ...]]]:
                try:
                    return [list(somebody.execute(sql).fetchall() or [])]
                except ValueError as error:
                    if "locked" in str(error):
                        return []
                    raise

            return (await eventually(got_through, what=sql))[0]
        session = await asyncpg.connect(
            self.url, server_settings=EVERY_TENANT | {"search_path": self.service}
        )
        try:
            return [tuple(row) for row in await session.fetch(sql)]
        finally:
            await session.close()


@pytest.fixture(params=["libsql", "postgres"])
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer
) -> AsyncIterator[World]:
    service = f"s{uuid4().hex[:12]}"
    url = {"libsql": f"libsql://{tmp_path}/t.db", "postgres": postgres_server.dsn}[request.param]
    async with open_store(url, service=service) as store:
        yield World(store, url, service)


def add(by: int, key: str | None = None) -> Decision[int, Added]:
    claim = Claim(ClaimKey("acme", "tally", key), b"f", 60) if key else None
    reply = lambda total, version: f"{total}@{version}".encode()  # noqa: E731 - one line says it
    return Decision(partial(DECIDER.decide, by), reply, {"correlation": "c"}, claim)


async def settle(
    aggregate: Aggregate[int, int, Added], *decisions: Decision[int, Added]
) -> list[Any]:
    return list(await execute(aggregate, TALLY, decisions))


async def fill(store: ServiceStore, count: int, stream: StreamId = TALLY) -> None:
    events = tuple(NewEvent(str(uuid7()), Added.type, '{"by":1}', {}) for _ in range(count))
    version = (await store.load(stream)).version
    assert [Committed()] == list(await store.commit([Unit((Append(stream, version, events),))]))


async def snapshot_of(world: World, schema: int, stream: StreamId = TALLY) -> Snapshot | None:
    return (await world.store.load(stream, snapshot_schema=schema)).snapshot


# Snapshots.


async def test_a_thousand_events_are_read_as_a_snapshot_and_a_short_tail(world: World) -> None:
    """From the first commit after the load that had to read them all."""
    await fill(world.store, 1000)
    assert 1000 == len((await world.store.load(TALLY, snapshot_schema=1)).events)

    assert [Done(b"1001@1001", Version(1001))] == await settle(world.tally(), add(1))

    loaded = await world.store.load(TALLY, snapshot_schema=1)
    assert (Snapshot(Version(1001), 1, "1:1001"), 0) == (loaded.snapshot, len(loaded.events))
    for n in range(1002, 1031):
        await settle(world.tally(), add(1))
        assert len((await world.store.load(TALLY, snapshot_schema=1)).events) < 10, n


async def test_a_snapshot_of_another_schema_is_replaced_by_the_next_commit(world: World) -> None:
    """Not by the next full ten: until then every load would read the whole stream."""
    await fill(world.store, 9)
    await settle(world.tally(), add(1))
    assert Snapshot(Version(10), 1, "1:10") == await snapshot_of(world, 1)

    newer = world.tally(schema=2)
    assert [Done(b"12@12", Version(12))] == (await settle(newer, add(1), add(1)))[1:]

    assert Snapshot(Version(12), 2, "2:12") == await snapshot_of(world, 2)
    assert None is await snapshot_of(world, 1)
    older = world.tally(schema=1)  # a roll-back, or a replica that was not replaced yet
    assert [Done(b"13@13", Version(13))] == await settle(older, add(1))
    assert Snapshot(Version(13), 1, "1:13") == await snapshot_of(world, 1)


async def test_a_short_stream_needs_no_snapshot(world: World) -> None:
    await fill(world.store, 8)
    await settle(world.tally(), add(1))

    assert None is await snapshot_of(world, 1)


async def test_deciding_nothing_replaces_no_snapshot_and_forgets_that_one_is_missing(
    world: World,
) -> None:
    await fill(world.store, 20)
    aggregate = world.tally()

    assert [Done(b"20@20", Version(20))] == await settle(aggregate, add(0))

    assert None is await snapshot_of(world, 1)
    assert not aggregate.memory.misses_snapshot(TALLY)


async def test_snapshots_may_be_deleted_at_any_time(world: World) -> None:
    """Two versions of a service that disagree about their schema, and somebody who deletes them all."""
    streams = [stream_id("acme", "tally", f"s{n}") for n in range(4)]
    replicas = [world.tally(schema=schema, states=2) for schema in (1, 2)]
    lanes = [Lanes(partial(execute, replica)) for replica in replicas]
    chance, over = random.Random(7), asyncio.Event()

    async def delete() -> int:
        rounds = 0
        while not over.is_set():
            with suppress(asyncpg.DeadlockDetectedError):  # it locks in another order than a commit
                await world.run("update aggregate set snapshot = null, snapshot_schema = null")
                rounds += 1
            await asyncio.sleep(0.005)
        return rounds

    async def write(mine: Lanes[int, Added]) -> list[tuple[StreamId, int]]:
        wrote = []
        for _ in range(60):
            stream, by = chance.choice(streams), chance.randrange(1, 100)
            await mine.settle(stream, add(by, uuid4().hex))
            wrote.append((stream, by))
        return wrote

    deleting = asyncio.create_task(delete())
    written = await asyncio.gather(*(write(mine) for mine in lanes for _ in range(3)))
    over.set()

    assert await deleting >= 3
    for stream in streams:
        expected = sum(by for some in written for where, by in some if where == stream)
        events = [e async for e in _all(world.store, stream)]
        assert expected == sum(Added.model_validate_json(payload).by for payload in events)
        for replica in replicas:
            assert expected == replica.rehydrate(await replica.load(stream, []))


async def _all(store: ServiceStore, stream: StreamId) -> AsyncIterator[str]:
    after = EMPTY
    while page := await store.read(stream, after=after):
        for event in page:
            yield event.payload
        after = page[-1].version


# Events of a newer version.


@pytest.fixture
async def annotated(world: World) -> NewEvent:
    """An event that this version does not know, between two that it does."""
    event = NewEvent(str(uuid7()), "tally.annotated.v7", ODD, {"x": "ü "})
    await fill(world.store, 1)
    await world.store.commit([Unit((Append(TALLY, Version(1), (event,)),))])
    await fill(world.store, 1)
    return event


async def test_nobody_decides_on_what_he_cannot_read(world: World, annotated: NewEvent) -> None:
    """Refused with the cure, under a code of its own, and nothing is written or claimed."""
    before = await world.store.read(TALLY)

    with pytest.raises(UnknownEventType, match="deploy the version that knows it") as caught:
        await execute(world.tally(), TALLY, [add(1, "k")])

    assert ("event-type-unknown", "unavailable") == (caught.value.code, caught.value.family)
    assert f"{TALLY}@2: {annotated.type}" in str(caught.value)
    assert before == await world.store.read(TALLY)
    loaded = await world.store.load(TALLY, claims=[ClaimKey("acme", "tally", "k")])
    assert not loaded.replies
    other = stream_id("acme", "tally", "other")
    [done] = await execute(world.tally(), other, [add(5)])
    assert Done(b"5@1", Version(1)) == done  # streams without it go on


async def test_what_is_ignored_counts_as_a_version_and_changes_nothing(
    world: World, annotated: NewEvent
) -> None:
    ignoring = world.tally(ignored=(annotated.type,))

    assert [Done(b"5@4", Version(4))] == await settle(ignoring, add(3, "k"))

    types = [e.type for e in await world.store.read(TALLY)]
    assert [Added.type, annotated.type, Added.type, Added.type] == types
    await fill(world.store, 10)
    assert [Done(b"16@15", Version(15))] == await settle(ignoring, add(1))
    assert Snapshot(Version(15), 1, "1:16") == await snapshot_of(world, 1)


async def test_everybody_who_passes_it_on_preserves_it_to_the_byte(
    world: World, annotated: NewEvent
) -> None:
    """The history, the outbox and the ledger know no types."""
    waiting = await world.store.pending(limit=10)
    await world.store.record([(e.position, Offset(n)) for n, e in enumerate(waiting, start=1)])
    ledger = await world.store.published(after=Offset(0), limit=10)
    ways = {
        "load": (await world.store.load(TALLY)).events[1],
        "read": (await world.store.read(TALLY, after=Version(1), limit=1))[0],
        "pending": waiting[1].event,
        "published": ledger[1].event,
    }

    for way, found in ways.items():
        kept = NewEvent(found.event_id, found.type, found.payload, dict(found.metadata))
        assert replace(annotated) == kept, way
