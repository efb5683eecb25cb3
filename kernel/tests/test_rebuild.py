"""Rebuild and replay on real stores, while others write and read; every test for both adapters.

Nothing here knows more of a projection than its port: `Sum` stands for any of them.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from flotilla.clock import SystemClock
from flotilla.divergence import Diverged, begin_at, divergence
from flotilla.embedded import PostgresServer
from flotilla.errors import Corrupt, Rejected
from flotilla.outbox import START, LogEvent, Offset
from flotilla.partition import Marks
from flotilla.projection import Checkpoint, Fenced, Projection, ViewSession
from flotilla.rebuild import EventRefused, Phase, Progress, Rebuild, from_ledger
from flotilla.replay import NotReplayable, Replay
from flotilla.shadow import Claimed, ShadowStore
from flotilla.store import EMPTY, Append, NewEvent, StreamId, Unit, Version, stream_id
from flotilla.stores import ServiceStore, open_shadows, open_store
from flotilla.testing import eventually

LOG = "thing"
LIMIT_S = 60.0


class Sum:
    """Sums payloads by stream. Not replayable: what is folded twice counts twice."""

    name = "sum"
    log = LOG
    staleness_budget_s = 5.0
    tables = (
        """
create table sum_view (
    stream text primary key,
    tenant text not null,
    n bigint not null,
    events bigint not null
);
create index sum_of_tenant on sum_view (tenant)
""",
    )

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        rows = []
        for event in batch:
            if event.payload == b'"poison"':
                raise ZeroDivisionError("a bad event")
            rows.append((event.stream, event.tenant, int(event.payload)))
        await view.execute_many(
            "insert into sum_view (stream, tenant, n, events) values ($1, $2, $3, 1)"
            " on conflict (stream) do update"
            " set n = sum_view.n + excluded.n, events = sum_view.events + 1",
            rows,
        )


class Last(Sum):
    """Keeps the last payload of each stream: replayable, and it can forget."""

    name = "last"
    replayable = True

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        await view.execute_many(
            "insert into sum_view (stream, tenant, n, events) values ($1, $2, $3, $4)"
            " on conflict (stream) do update set n = excluded.n, events = excluded.events"
            " where excluded.events >= sum_view.events",
            [(e.stream, e.tenant, int(e.payload), e.version) for e in batch],
        )

    async def forget(self, view: ViewSession, tenant: str, stream: StreamId | None) -> None:
        column, value = ("tenant", tenant) if stream is None else ("stream", stream)
        await view.execute_many(f"delete from sum_view where {column} = $1", [(value,)])


@dataclass
class World:
    """A log, its store, and the places of a projection; whoever projects is called by hand."""

    url: str
    service: str
    projection: Projection
    store: ServiceStore
    places: ShadowStore
    versions: dict[str, int] = field(default_factory=dict)

    async def write(self, *payloads: object, tenant: str = "acme", keys: int = 7) -> None:
        """Commit and publish an event each."""
        published, units, order = await self.store.last_offset(), [], {}
        for n, payload in enumerate(payloads, start=published + 1):
            stream = stream_id(tenant, "thing", f"k{n % keys}")
            version = self.versions.get(stream, EMPTY)
            self.versions[stream] = version + 1
            event = NewEvent(str(uuid4()), "thing.said.v1", json.dumps(payload), {})
            units.append(Unit((Append(stream, Version(version), (event,)),)))
            order[stream, version + 1] = Offset(n)
        await self.store.commit(units)
        waiting = await self.store.pending(limit=len(units))
        await self.store.record(
            [(e.position, order[e.event.stream, e.event.version]) for e in waiting]
        )

    async def project(self, *, batch_events: int = 50) -> None:
        """Bring the live view to the end of the log, as the projector does: begin again if fenced."""
        name, views = self.projection.name, self.places.live
        while batch := await self.store.events(
            after=(at := (await views.checkpoint(name, LOG)).offset), limit=batch_events
        ):
            end = Checkpoint(batch[-1].offset, batch[-1].recorded_at)

            async def apply(view: ViewSession, batch: Sequence[LogEvent] = batch) -> None:
                await self.projection.apply(view, batch)

            try:
                await views.advance(name, LOG, (at, end), apply)
            except Fenced:
                continue

    async def rows(self) -> list[tuple[object, ...]]:
        sql = "select stream, n, events from sum_view order by stream"
        return [tuple(row) for row in await self.places.live.fetch_across(sql)]

    async def tamper(self, sql: str, *row: object) -> None:
        """Change the live view behind everybody's back."""

        async def change(view: ViewSession, _: Marks) -> None:
            await view.execute_many(sql, [row])

        await self.places.amend(change)

    def rebuild(self, projection: Projection | None = None, *, batch_events: int = 20) -> Rebuild:
        source = from_ledger(self.store, batch_events_max=batch_events)
        return Rebuild(projection or self.projection, self.places, self.store, source)

    def replay(self, *, batch_events: int = 20) -> Replay:
        source = from_ledger(self.store, batch_events_max=batch_events)
        return Replay(self.projection, self.places, self.store, source)

    async def at(self) -> tuple[int, int | None, int | None]:
        """Return the offsets of live, shadow and old."""
        found = await self.places.standing()
        shadow, old = found.shadow, found.old
        return (
            found.live.offset,
            None if shadow is None else shadow.offset,
            None if old is None else old.offset,
        )


@asynccontextmanager
async def a_world(url: str, service: str, projection: Projection) -> AsyncIterator[World]:
    where = url.replace("{service}", f"{service}-views"), url.replace("{service}", service)
    async with (
        open_store(where[1], service=f"{service}-log") as store,
        open_shadows(
            where[0], service=service, projection=projection, clock=SystemClock()
        ) as places,
    ):
        await places.live.migrate(projection.name, projection.tables)
        yield World(url, service, projection, store, places)


@pytest.fixture(params=["libsql", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "libsql":
        return f"libsql://{tmp_path}/{{service}}.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.dsn


@pytest.fixture
def service() -> str:
    return f"s{uuid4().hex[:8]}"


@pytest.fixture
async def world(url: str, service: str) -> AsyncIterator[World]:
    async with a_world(url, service, Sum()) as world:
        yield world


@pytest.fixture
async def last(url: str, service: str) -> AsyncIterator[World]:
    async with a_world(url, service, Last()) as world:
        yield world


async def test_a_rebuilt_view_is_the_view(world: World) -> None:
    await world.write(*range(100))
    await world.project()
    before = await world.rows()

    rebuilt = await world.rebuild().run(swap=True)

    assert before == await world.rows()
    assert (0, 100, True) == (rebuilt.started, rebuilt.events, rebuilt.comparison.same)
    assert (100, None, 100) == await world.at()
    await world.write(1, 2, 3)
    await world.project()
    assert (103, None, 100) == await world.at()


async def test_a_view_that_never_began_is_built_to_the_end_of_the_log(world: World) -> None:
    await world.write(*range(100))

    rebuilt = await world.rebuild().run(swap=True)

    assert "the live view has not begun" == rebuilt.comparison.reason
    assert (100, None, 0) == await world.at()
    assert 7 == len(await world.rows())


async def test_a_tampered_row_is_found_shown_and_mended(world: World) -> None:
    await world.write(*range(100))
    await world.project()
    right = await world.rows()
    await world.tamper("update sum_view set n = n + 1000 where stream = $1", "acme/thing/k3")
    await world.tamper("delete from sum_view where stream = $1", "acme/thing/k5")
    wrong = await world.rows()

    checked = await world.rebuild().run(swap=False)

    assert (2, False, None) == (
        checked.comparison.different,
        checked.comparison.same,
        checked.swapped,
    )
    changed, missing = checked.comparison.differences
    assert ("sum_view", ("acme/thing/k3",)) == (changed.table, changed.key)
    assert changed.live is not None
    assert changed.shadow is not None
    n = changed.columns.index("n")
    assert 1000 == changed.live[n] - changed.shadow[n]
    assert (("acme/thing/k5",), None) == (missing.key, missing.live)
    assert wrong == await world.rows()

    swapped = await world.rebuild().run(swap=True)
    assert (2, 100) == (swapped.comparison.different, swapped.started)
    assert right == await world.rows()


async def test_rolling_back_goes_to_the_old_checkpoint_and_catches_up(world: World) -> None:
    await world.write(*range(60))
    await world.project()
    await world.rebuild().run(swap=True)
    await world.write(*range(40))
    await world.project()
    right = await world.rows()

    await world.places.roll_back()
    assert (60, None, 100) == await world.at()

    await world.project()
    assert right == await world.rows()
    assert (100, None, 100) == await world.at()
    assert (await world.rebuild().run(swap=False)).comparison.same


async def test_an_event_that_cannot_be_folded_ends_a_rebuild_by_name(world: World) -> None:
    await world.write(*range(33), "poison", *range(66))
    log = await world.store.events(after=START, limit=100)
    [bad] = [event for event in log if event.payload == b'"poison"']

    with pytest.raises(EventRefused) as refused:
        await world.rebuild().run(swap=True)

    assert str(refused.value) == (
        f"sum cannot fold offset {bad.offset}, thing.said.v1 of {bad.stream}@{bad.version}:"
        " ZeroDivisionError: a bad event"
    )
    assert (START, bad.offset - 1, None) == await world.at()
    assert [] == await world.rows()


async def test_after_its_cure_a_strict_rebuild_goes_on(world: World) -> None:
    class Cured(Sum):
        async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
            await super().apply(view, [e for e in batch if e.payload != b'"poison"'])

    await world.write(*range(33), "poison", *range(66))
    with pytest.raises(EventRefused) as refused:
        await world.rebuild().run(swap=True)

    rebuilt = await world.rebuild(Cured()).run(swap=True)

    before = refused.value.offset - 1
    assert (before, 100 - before) == (rebuilt.started, rebuilt.events)
    assert 99 == sum(int(str(events)) for _, _, events in await world.rows())


async def test_a_hole_in_the_log_ends_a_rebuild(world: World) -> None:
    """A view that lacks an event looks like any other."""
    await world.write(*range(50))
    whole = from_ledger(world.store, batch_events_max=10)

    async def holey(after: Offset, upto: Offset) -> AsyncGenerator[Sequence[LogEvent]]:
        async for batch in whole(after, upto):
            yield [event for event in batch if event.offset != 25]

    rebuild = Rebuild(world.projection, world.places, world.store, holey)
    with pytest.raises(
        Corrupt, match="9 events from offset 21 of thing on were expected and 21 to 30"
    ):
        await rebuild.run(swap=True)
    assert (0, 20, None) == await world.at()


async def test_of_two_rebuilds_at_once_the_second_is_refused(world: World) -> None:
    await world.write(*range(200))
    await world.project()
    before = await world.rows()

    outcomes = await asyncio.gather(
        *(world.rebuild(batch_events=5).run(swap=True) for _ in range(3)), return_exceptions=True
    )

    assert 2 == sum(isinstance(outcome, Claimed) for outcome in outcomes), outcomes
    assert before == await world.rows()
    assert (200, None, 200) == await world.at()


async def test_a_rebuild_under_live_traffic(world: World) -> None:
    """Somebody writes, somebody projects, readers watch: each counter only ever grows for them."""
    chance = random.Random(20)
    await world.write(*range(400))
    await world.project()
    over = asyncio.Event()

    async def write() -> None:
        while not over.is_set():
            await world.write(*(chance.randrange(9) for _ in range(chance.randrange(1, 30))))
            await asyncio.sleep(0)

    async def project() -> None:
        while not over.is_set():
            await world.project(batch_events=chance.randrange(1, 100))
            await asyncio.sleep(0)

    async def read() -> int:
        seen: dict[object, int] = {}
        reads = 0
        while not over.is_set():
            rows = {stream: int(str(events)) for stream, _, events in await world.rows()}
            assert seen.keys() <= rows.keys(), f"{seen.keys() - rows.keys()} disappeared"
            fell = {key: (seen[key], rows[key]) for key in seen if rows[key] < seen[key]}
            assert not fell, f"fell: {fell}"
            seen, reads = rows, reads + 1
        return reads

    others = [asyncio.create_task(work()) for work in (write, project, read, read)]
    swaps = []
    try:
        async with asyncio.timeout(LIMIT_S):
            for _ in range(3):
                rebuilt = await world.rebuild(batch_events=100).run(swap=True)
                assert rebuilt.comparison.same, rebuilt.comparison
                assert rebuilt.swapped is not None
                swaps.append(rebuilt.swapped.checkpoint.offset)
    finally:
        over.set()
    _, _, *reads = await asyncio.gather(*others)

    assert sorted(swaps) == swaps
    assert min(n for n in reads if n is not None) > 0
    await world.project()
    end = await world.store.last_offset()
    assert end == (await world.at())[0] > 400
    assert end == sum(int(str(events)) for _, _, events in await world.rows())
    assert (await world.rebuild().run(swap=False)).comparison.same


def start_process(world: World, *options: str, **env: str) -> subprocess.Popen[str]:
    """Rebuild in a process of its own."""
    command = [sys.executable, __file__, world.url, world.service, *options]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ) | env,
    )


async def test_a_killed_rebuild_goes_on_where_it_was(world: World) -> None:
    await world.write(*range(1500))
    await world.project(batch_events=500)
    before = await world.rows()
    process = start_process(world, "slowly")
    try:

        async def half_way() -> bool:
            shadow = (await world.at())[1] or 0
            assert process.poll() is None, "it ended before it could be killed"
            return shadow >= 50

        await eventually(half_way, within_s=LIMIT_S, what="the shadow grows")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    live, shadow, old = await world.at()
    assert (1500, None) == (live, old)
    assert before == await world.rows()

    rebuilt = await world.rebuild(batch_events=500).run(swap=True)

    assert shadow == rebuilt.started > 0
    assert 1500 - rebuilt.started == rebuilt.events
    assert rebuilt.comparison.same
    assert before == await world.rows()


async def test_a_cancelled_rebuild_leaves_a_shadow_to_go_on_with_or_to_drop(world: World) -> None:
    """As Ctrl-C does it."""
    await world.write(*range(300))
    await world.project()
    before = await world.rows()
    for drop in (False, True):
        half = asyncio.Event()

        def report(progress: Progress, half: asyncio.Event = half) -> None:
            if progress.phase == Phase.BUILDING and progress.offset >= 100:
                half.set()

        rebuild = world.rebuild(batch_events=3)
        rebuild.report = report
        task = asyncio.create_task(rebuild.run(swap=True))
        await half.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        live, shadow, old = await world.at()
        assert (300, None) == (live, old)
        assert shadow is not None
        assert shadow >= 100
        if drop:
            assert await world.places.forget("shadow")
    assert (300, None, None) == await world.at()
    assert before == await world.rows()
    rebuilt = await world.rebuild().run(swap=True)
    assert (0, True) == (rebuilt.started, rebuilt.comparison.same)


async def test_rebuilds_are_the_same_whatever_the_process(last: World) -> None:
    """Hash seeds and time zones decide nothing."""
    await last.write(*range(200), tenant="zürich")
    await last.write(*range(200), tenant="acme")
    await last.project()
    hashes = set()
    for seed, zone in (("0", "UTC"), ("1", "Asia/Kathmandu"), ("4242", "America/St_Johns")):
        process = start_process(last, "last", PYTHONHASHSEED=seed, TZ=zone)
        out, _ = await asyncio.to_thread(process.communicate, timeout=LIMIT_S)
        assert 0 == process.returncode, out
        hashes.add(out)

    [told] = hashes
    assert "'sum_view', 14, 14" in told
    live, shadow = told.split()[-2:]
    assert live == shadow


# Replay.


async def test_replaying_from_an_offset_mends_what_is_folded_again(last: World) -> None:
    await last.write(*range(100))
    await last.project()
    right = await last.rows()
    await last.tamper("update sum_view set n = -1 where stream = $1", "acme/thing/k3")
    await last.tamper("delete from sum_view where stream = $1", "acme/thing/k5")

    replayed = await last.replay().from_offset(Offset(80))

    assert (21, 100) == (replayed.events, replayed.checkpoint.offset)
    assert right == await last.rows()
    assert (100, None, None) == await last.at()


async def test_replaying_from_a_time_begins_with_what_was_recorded_then(last: World) -> None:
    await last.write(*range(30))
    [event] = await last.store.events(after=Offset(29), limit=1)
    await last.write(*range(30))
    await last.project()

    replayed = await last.replay().from_time(event.recorded_at + timedelta(microseconds=1))

    assert (30, 60) == (replayed.events, replayed.checkpoint.offset)
    with pytest.raises(Rejected, match="has folded nothing that was recorded at"):
        await last.replay().from_time(event.recorded_at + timedelta(days=1))


@pytest.mark.parametrize("whole_tenant", [True, False])
async def test_replaying_a_tenant_or_a_stream_makes_its_rows_again(
    last: World, whole_tenant: bool
) -> None:
    await last.write(*range(50), tenant="acme")
    await last.write(*range(50), tenant="rival")
    await last.project()
    right = await last.rows()
    stream = stream_id("acme", "thing", "k3")
    forged = (stream if not whole_tenant else "acme/thing/forged", "acme")
    await last.tamper("delete from sum_view where stream = $1", stream)
    await last.tamper("insert into sum_view values ($1, $2, 5, 999)", *forged)
    await last.tamper("update sum_view set n = -5 where stream = $1", "rival/thing/k1")

    replayed = await last.replay().of("acme", None if whole_tenant else stream)

    assert (50 if whole_tenant else 7, 100) == (replayed.events, replayed.checkpoint.offset)
    wrong = [row for row in await last.rows() if row not in right]
    assert ["rival/thing/k1"] == [stream for stream, _, _ in wrong], "others are left alone"
    assert len(right) == len(await last.rows())


async def test_replaying_a_tenant_under_live_traffic(last: World) -> None:
    """Readers never see the rows gone; the projector goes on; nothing is lost."""
    await last.write(*range(300))
    await last.project()
    over = asyncio.Event()

    async def write() -> None:
        while not over.is_set():
            await last.write(*range(10))
            await last.project()

    async def read() -> None:
        while not over.is_set():
            assert 7 == len(await last.rows())

    others = [asyncio.create_task(work()) for work in (write, read)]
    try:
        async with asyncio.timeout(LIMIT_S):
            for _ in range(5):
                await last.replay(batch_events=1000).of("acme")
    finally:
        over.set()
    await asyncio.gather(*others)
    await last.project()
    assert (await last.rebuild().run(swap=False)).comparison.same


async def test_what_a_projection_does_not_declare_is_refused_with_the_cure(world: World) -> None:
    await world.write(*range(10))
    await world.project()
    before = await world.rows()
    for attempt in (
        world.replay().from_offset(Offset(1)),
        world.replay().from_time((await world.places.standing()).live.recorded_at),  # type: ignore[arg-type]
        world.replay().of("acme"),
        world.replay().of("acme", stream_id("acme", "thing", "k1")),
    ):
        with pytest.raises(
            NotReplayable, match="`flotilla rebuild sum` makes all of it"
        ) as refused:
            await attempt
        assert "projection-not-replayable" == refused.value.code
    assert before == await world.rows()


@pytest.mark.parametrize("first", [0, 11])
async def test_an_offset_that_was_not_folded_is_not_replayed(last: World, first: int) -> None:
    await last.write(*range(10))
    await last.project()
    with pytest.raises(Rejected, match="replay from 1 to 10"):
        await last.replay().from_offset(Offset(first))


async def process_main(url: str, service: str, how: str) -> None:
    """Rebuild in a process of its own, and tell what the comparison found."""
    projection = Last() if how == "last" else Sum()
    async with a_world(url, service, projection) as world:
        rebuild = world.rebuild(batch_events=5 if how == "slowly" else 64)
        if how == "slowly":
            whole = rebuild.source

            async def slow(after: Offset, upto: Offset) -> AsyncGenerator[Sequence[LogEvent]]:
                async for batch in whole(after, upto):
                    await asyncio.sleep(0.02)
                    yield batch

            rebuild.source = slow
        rebuilt = await rebuild.run(swap=False)
        for table in rebuilt.comparison.tables:
            sys.stdout.write(f"{(table.table, table.live_rows, table.shadow_rows)}")
            sys.stdout.write(f" {table.live_hash} {table.shadow_hash}")
        await world.places.forget("shadow")


if __name__ == "__main__":
    asyncio.run(process_main(*sys.argv[1:]))


# A store that was restored without its newest events, and a view that has folded them.


@asynccontextmanager
async def restored(world: World, *payloads: object) -> AsyncIterator[World]:
    """Yield the world with another log under its view: its own was lost."""
    service = f"{world.service}-restored"
    url = world.url.replace("{service}", service)
    async with open_store(url, service=f"{service}-log") as store:
        after = World(world.url, world.service, world.projection, store, world.places)
        await after.write(*payloads)
        yield after


async def diverged(world: World) -> str | None:
    live = await world.places.live.checkpoint(world.projection.name, LOG)
    return await divergence(world.store, live)


async def test_a_view_of_this_log_is_none_of_another_wherever_it_stands(world: World) -> None:
    for count in (0, 1, 20, 20):
        await world.write(*range(count))
        await world.project(batch_events=7)
        assert await diverged(world) is None
        await begin_at(world.projection, world.places.live, world.store)
    await world.write(1, 2, 3)
    assert await diverged(world) is None


@pytest.mark.parametrize(
    ("left", "why"),
    [
        (30, "it has folded up to offset 40, and the log ends at 30"),
        (40, "what it has folded as offset 40, of "),
        (70, "what it has folded as offset 40, of "),
    ],
    ids=["the log ends before it", "the same length", "the log has grown past it"],
)
async def test_a_view_that_folded_what_the_log_lost_goes_on_only_when_it_is_rebuilt(
    world: World, left: int, why: str
) -> None:
    await world.write(*range(1000, 1040))
    await world.project()

    async with restored(world, *range(left)) as after:
        assert why in str(await diverged(after))
        with pytest.raises(Diverged, match=r"`flotilla rebuild sum`.*restore.md"):
            await begin_at(world.projection, after.places.live, after.store)

        rebuilt = await after.rebuild().run(swap=True)

        assert not rebuilt.comparison.same
        assert (min(left, 40), None, 40) == await after.at()
        assert await diverged(after) is None
        await after.write(1, 2, 3)
        await after.project()
        assert {left + 3} == {sum(int(str(row[2])) for row in await after.rows())}
        assert sum(range(left)) + 6 == sum(int(str(row[1])) for row in await after.rows())
        assert (await after.rebuild().run(swap=False)).comparison.same

        await after.places.roll_back()
        assert await diverged(after) is not None, "the old view is still the lost log's"


async def test_a_shadow_of_a_lost_log_is_not_gone_on_with(world: World) -> None:
    await world.write(*range(40))
    await world.project()
    await world.rebuild().run(swap=False)

    async with restored(world, *range(70)) as after:
        with pytest.raises(Corrupt, match="shadow of sum is another log's"):
            await after.rebuild().run(swap=True)

        await after.places.forget("shadow")
        await after.rebuild().run(swap=True)
        assert await diverged(after) is None
