"""The audit trail: nothing changes, goes, comes or moves unseen, in the store or in the view."""

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from flotilla import LogEvent, Offset, StreamId, Version, ViewSession, ViewStore
from flotilla.audit import NO_LINK, Unchainable, canonical, chained
from flotilla.auditing import Audit, Kind, Verified
from flotilla.embedded import PostgresServer
from flotilla.outbox import OutboxEntry
from flotilla.projection import Row
from flotilla.rebuild import from_ledger
from flotilla.replay import NotReplayable
from flotilla.store import Append, Committed, NewEvent, Unit
from flotilla.stores.libsql import LibsqlViews
from flotilla.stores.memory import MemoryStore
from flotilla.stores.postgres import PostgresViews
from flotilla.testing import ManualClock
from svc_projector.audit import AuditView, list_audit
from svc_projector.projector import Projector

COLUMNS = 11
HASH = 10
KEPT = (
    "insert into audit_entry (log_offset, tenant, number, stream, version, event_id, type, actor_id,"
    " about, recorded_at_us, hash) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
)
SEALED = "sealed:1:0123456789abcdef0123456789abcdef:" + "A" * 60


class Store(MemoryStore):
    """A store whose owner changes its rows by hand, as whoever has its files can."""

    @property
    def ledger(self) -> list[OutboxEntry]:
        """Return the rows of the ledger; to be exchanged."""
        return self._outbox

    def put(self, entries: list[OutboxEntry]) -> None:
        """Exchange all rows: those of the ledger, and with them the events in the streams."""
        self._outbox[:] = entries
        self._streams.clear()
        for entry in entries:
            self._streams[entry.event.stream].append(entry.event)
        for events in self._streams.values():
            events.sort(key=lambda event: event.version)


@dataclass
class World:
    """A log of several tenants, folded into an audit view."""

    store: Store
    views: ViewStore
    clock: ManualClock

    async def happen(self, seed: int, events: int = 30) -> None:
        """Let things happen to some tenants, and fold them."""
        chance = random.Random(seed)
        for n in range(events):
            tenant = chance.choice(["acme", "rival", "third"])
            stream = StreamId(f"{tenant}/tenant/{tenant}")
            version = (await self.store.load(stream)).version
            payload = f'{{"user_id":"u{n}","role":"member","email":"{SEALED}","actor_id":"boss"}}'
            metadata = {"correlation": f"c{n}", "causation": "x", "traceparent": "t"}
            event = NewEvent(str(uuid4()), "tenant.member_added.v1", payload, metadata)
            unit = Unit((Append(stream, version, (event,)),))
            assert [Committed()] == await self.store.commit([unit])
            await self.clock.sleep(0.001)
        await self.relay()
        await self.fold()

    async def relay(self) -> None:
        last, waiting = await self.store.last_offset(), await self.store.pending(limit=1000)
        offsets = [(entry.position, Offset(last + n)) for n, entry in enumerate(waiting, start=1)]
        await self.store.record(offsets)

    async def fold(self, view: AuditView | None = None, *, batch: int = 7) -> None:
        """Fold what was not, in batches, as a process that has just started."""
        projector = Projector(view or AuditView(), self.views, self.store)
        await projector.begin()
        after = await projector.start()
        while events := await self.store.events(after=after, limit=batch):
            await projector.project(events)
            after = events[-1].offset

    async def verify(self, tenant: str | None = None, head: str | None = None) -> Verified:
        view = AuditView()
        source = from_ledger(self.store, batch_events_max=11)
        parts = (view, view, self.views, self.store, source)
        return await Audit(*parts, tenant=tenant, head=head).run()

    async def rows(self) -> list[Row]:
        found = await self.views.fetch_across("select * from audit_entry order by log_offset")
        return [tuple(row) for row in found]

    async def put(self, rows: list[Row]) -> None:
        """Exchange all rows of the view, behind everybody's back."""

        async def exchange(view: ViewSession) -> None:
            await view.execute_many("delete from audit_entry where log_offset <> $1", [(2**62,)])
            await view.execute_many(KEPT, rows)

        await self.views.transact(exchange)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    view, clock = AuditView(), ManualClock()
    async with LibsqlViews.open(f"libsql://{tmp_path}/views.db", service="projector") as views:
        await views.migrate(view.name, view.tables)
        yield World(Store(clock), views, clock)


async def test_what_was_only_recorded_and_folded_is_sound(world: World) -> None:
    await world.happen(1)

    verified = await world.verify()

    assert (None, 30, 30) == (verified.difference, verified.entries, verified.upto)
    assert {"acme", "rival", "third"} == set(verified.heads)
    for tenant, head in verified.heads.items():
        [last] = await list_audit(world.views, tenant, before=None, limit=1)
        assert last == head


async def test_an_entry_says_who_did_what_and_holds_nothing_personal(world: World) -> None:
    await world.happen(1, events=1)

    [row] = await world.rows()

    assert ("tenant.member_added.v1", "boss", "u0") == row[6:9]
    assert "sealed" not in str(row)


async def test_the_chain_is_the_same_however_the_log_is_cut(world: World) -> None:
    await world.happen(2)
    rows = await world.rows()
    view = AuditView()
    for batch in (1, 2, 30):
        await world.put([])
        events = await world.store.events(after=Offset(0), limit=100)
        for start in range(0, len(events), batch):
            part = events[start : start + batch]
            await world.views.transact(lambda session, part=part: view.apply(session, part))  # type: ignore[misc]
        assert rows == await world.rows(), f"batches of {batch}"


async def test_what_was_not_folded_yet_is_no_mistake(world: World) -> None:
    await world.happen(3)
    await world.store.commit([_one_more()])
    await world.relay()

    verified = await world.verify()

    assert (None, 30) == (verified.difference, verified.upto)


# Any single change is found.


def changed(rows: list[Row], chance: random.Random) -> tuple[list[Row], int, set[Kind]]:
    at, column = chance.randrange(len(rows)), chance.randrange(1, COLUMNS)
    row = list(rows[at])
    row[column] = row[column] + 1 if isinstance(row[column], int) else f"{row[column]}x"
    return [*rows[:at], tuple(row), *rows[at + 1 :]], at + 1, {Kind.CHANGED}


def removed(rows: list[Row], chance: random.Random) -> tuple[list[Row], int, set[Kind]]:
    at = chance.randrange(len(rows) - 1)
    return [*rows[:at], *rows[at + 1 :]], at + 1, {Kind.MISSING}


def closed_up(rows: list[Row], chance: random.Random) -> tuple[list[Row], int, set[Kind]]:
    """One is removed, and the others are moved up to where it was."""
    at = chance.randrange(len(rows) - 1)
    moved = [(row[0] - 1, *row[1:]) for row in rows[at + 1 :]]
    return [*rows[:at], *moved], at + 1, {Kind.MISSING}


def inserted(rows: list[Row], chance: random.Random) -> tuple[list[Row], int, set[Kind]]:
    """One that never happened, and the others are moved down; or beyond an end."""
    at = chance.randrange(len(rows) + 2)
    made = list(rows[min(at, len(rows) - 1)])
    made[3:6] = "acme/tenant/acme", 10**6, str(uuid4())
    if at > len(rows):
        return [(-5, *made[1:]), *rows], -5, {Kind.INSERTED}
    moved = [(row[0] + 1, *row[1:]) for row in rows[at:]]
    return [*rows[:at], (at + 1, *made[1:]), *moved], at + 1, {Kind.INSERTED}


def swapped(rows: list[Row], chance: random.Random) -> tuple[list[Row], int, set[Kind]]:
    one, other = sorted(chance.sample(range(len(rows)), 2))
    new = list(rows)
    new[one], new[other] = (rows[one][0], *rows[other][1:]), (rows[other][0], *rows[one][1:])
    return new, one + 1, {Kind.REORDERED}


def cut(rows: list[Row], chance: random.Random) -> tuple[list[Row], int, set[Kind]]:
    at = chance.randrange(len(rows))
    return rows[:at], at + 1, {Kind.TRUNCATED}


Change = Callable[[list[Row], random.Random], tuple[list[Row], int, set[Kind]]]


@pytest.mark.parametrize("change", [changed, removed, closed_up, inserted, swapped, cut])
async def test_a_single_change_of_the_view_is_found_and_named(world: World, change: Change) -> None:
    await world.happen(4)
    sound = await world.rows()
    for seed in range(40):
        rows, offset, kinds = change(sound, random.Random(seed))
        await world.put(rows)

        found = (await world.verify()).difference

        assert found is not None, f"{change.__name__}, seed {seed}"
        assert (offset, True) == (found.offset, found.kind in kinds), (change, seed, found)
        assert "view" == found.place
    await world.put(sound)
    assert (await world.verify()).difference is None


def _changed(entries: list[OutboxEntry], chance: random.Random) -> tuple[list[OutboxEntry], int]:
    at = chance.randrange(len(entries))
    event = entries[at].event
    new = chance.choice(
        [
            replace(event, payload=event.payload.replace("member", "owner ", 1)),
            replace(event, payload=event.payload + " "),
            replace(event, payload=event.payload.replace(SEALED, SEALED[:-1] + "B")),
            replace(event, event_id=str(uuid4())),
            replace(event, type="tenant.member_removed.v1"),
            replace(event, recorded_at=event.recorded_at + timedelta(microseconds=1)),
            replace(event, metadata={**event.metadata, "correlation": "other"}),
            replace(event, metadata={k: v for k, v in event.metadata.items() if k != "causation"}),
        ]
    )
    return [*entries[:at], replace(entries[at], event=new), *entries[at + 1 :]], at + 1


def _removed(entries: list[OutboxEntry], chance: random.Random) -> tuple[list[OutboxEntry], int]:
    at = chance.randrange(len(entries))
    return [*entries[:at], *entries[at + 1 :]], at + 1


def _closed_up(entries: list[OutboxEntry], chance: random.Random) -> tuple[list[OutboxEntry], int]:
    at = chance.randrange(len(entries))
    rest = [replace(e, offset=Offset((e.offset or 0) - 1)) for e in entries[at + 1 :]]
    return [*entries[:at], *rest], at + 1


def _inserted(entries: list[OutboxEntry], chance: random.Random) -> tuple[list[OutboxEntry], int]:
    """One that never happened takes a place in the log, and a version at the end of its stream."""
    at = chance.randrange(len(entries))
    like = entries[at]
    event = replace(like.event, event_id=str(uuid4()), version=Version(1000))
    rest = [replace(e, offset=Offset((e.offset or 0) + 1)) for e in entries[at:]]
    return [*entries[:at], replace(like, event=event), *rest], at + 1


def _swapped(entries: list[OutboxEntry], chance: random.Random) -> tuple[list[OutboxEntry], int]:
    one, other = sorted(chance.sample(range(len(entries)), 2))
    new = list(entries)
    new[one] = replace(entries[one], event=entries[other].event)
    new[other] = replace(entries[other], event=entries[one].event)
    return new, one + 1


def _cut(entries: list[OutboxEntry], chance: random.Random) -> tuple[list[OutboxEntry], int]:
    at = chance.randrange(1, len(entries))
    return entries[:at], at + 1


StoreChange = Callable[[list[OutboxEntry], random.Random], tuple[list[OutboxEntry], int]]


@pytest.mark.parametrize("change", [_changed, _removed, _closed_up, _inserted, _swapped, _cut])
async def test_a_single_change_of_the_store_is_found_and_named(
    world: World, change: StoreChange
) -> None:
    await world.happen(5)
    sound = list(world.store.ledger)
    for seed in range(40):
        entries, offset = change(sound, random.Random(seed))
        world.store.put(entries)

        found = (await world.verify()).difference

        assert found is not None, f"{change.__name__}, seed {seed}"
        assert offset == found.offset, (change.__name__, seed, found)
    world.store.put(sound)
    assert (await world.verify()).difference is None


async def test_one_tenants_chain_is_verified_without_the_others(world: World) -> None:
    await world.happen(6)
    rows = await world.rows()
    of_rival = next(n for n, row in enumerate(rows) if row[1] == "rival")
    rows[of_rival] = (*rows[of_rival][:7], "nobody", *rows[of_rival][8:])
    await world.put(rows)

    assert (await world.verify("acme")).difference is None
    assert {"acme"} == set((await world.verify("acme")).heads)
    found = (await world.verify("rival")).difference
    assert found is not None
    assert (of_rival + 1, ("actor_id",)) == (found.offset, found.fields)


async def test_an_entry_given_to_another_tenant_is_missed_and_found(world: World) -> None:
    await world.happen(6)
    rows = await world.rows()
    at = next(n for n, row in enumerate(rows) if row[1] == "acme")
    rows[at] = (rows[at][0], "rival", *rows[at][2:])
    await world.put(rows)

    missed = (await world.verify("acme")).difference
    found = (await world.verify("rival")).difference

    assert missed is not None
    assert found is not None
    assert (Kind.MISSING, at + 1) == (missed.kind, missed.offset)
    assert (Kind.INSERTED, at + 1) == (found.kind, found.offset)


async def test_a_history_rewritten_everywhere_is_found_by_a_head_from_before(world: World) -> None:
    await world.happen(7)
    kept = (await world.verify()).heads["acme"]
    later = await world.verify("acme", kept.hash)
    assert (None, kept.offset) == (later.difference, later.head_at)

    entries = list(world.store.ledger)
    event = entries[kept.offset - 1].event
    forged = replace(event, payload=event.payload.replace("boss", "else"))
    entries[kept.offset - 1] = replace(entries[kept.offset - 1], event=forged)
    world.store.put(entries)
    await world.put([])
    events = await world.store.events(after=Offset(0), limit=100)
    await world.views.transact(lambda view: AuditView().apply(view, events))

    assert (await world.verify()).difference is None, "two copies that were changed alike"
    found = (await world.verify("acme", kept.hash)).difference
    assert found is not None
    assert Kind.HEAD_UNKNOWN == found.kind


async def test_what_the_ledger_has_no_more_is_verified_from_the_streams(world: World) -> None:
    await world.happen(8)
    await world.store.read_by("audit", Offset(30))
    await world.clock.sleep(10)
    assert 12 == await world.store.prune(older_than_s=1, limit=12)

    assert (await world.verify()).difference is None
    assert (await world.verify("acme")).difference is None

    sound = list(world.store.ledger)
    event = replace(sound[3].event, payload='{"actor_id":"else"}')
    world.store.put([*sound[:3], replace(sound[3], event=event), *sound[4:]])
    found = (await world.verify()).difference
    assert found is not None
    assert (Kind.CHANGED, 4) == (found.kind, found.offset)
    world.store.put(sound)
    rows = await world.rows()
    await world.put([*rows[:5], *rows[6:]])
    found = (await world.verify()).difference
    assert found is not None
    assert (Kind.MISSING, "view", 6) == (found.kind, found.place, found.offset)


# How it is folded.


async def test_folding_a_part_again_mends_it(world: World) -> None:
    """What `flotilla replay audit --from-offset` does, and `--tenant`."""
    await world.happen(9)
    rows, view = await world.rows(), AuditView()
    events = await world.store.events(after=Offset(9), limit=100)
    await world.put([*rows[:9], *((*row[:HASH], "0" * 64) for row in rows[9:])])

    await world.views.transact(lambda session: view.apply(session, events))
    assert rows == await world.rows()

    own = [e for e in await world.store.events(after=Offset(0), limit=100) if e.tenant == "acme"]

    async def again(session: ViewSession) -> None:
        await view.forget(session, "acme", None)
        await view.apply(session, own)

    await world.views.transact(again)
    assert rows == await world.rows()


async def test_one_stream_cannot_be_taken_out_of_a_chain(world: World) -> None:
    await world.happen(9, events=2)

    async def forget(session: ViewSession) -> None:
        await AuditView().forget(session, "acme", StreamId("acme/tenant/acme"))

    with pytest.raises(NotReplayable, match="whole tenant"):
        await world.views.transact(forget)


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"[1]", b'{"actor_id": 5}', b'{"actor_id": "\\u0000"}']
)
async def test_an_event_of_any_form_is_in_the_trail(world: World, payload: bytes) -> None:
    await world.happen(1, events=1)
    [event] = await world.store.events(after=Offset(0), limit=1)

    entry = AuditView().entry(replace(event, payload=payload, type="?"), NO_LINK)

    assert (None, "?") == (entry.actor_id, entry.type)


async def test_every_field_of_an_event_is_in_its_bytes(world: World) -> None:
    await world.happen(1, events=1)
    [event] = await world.store.events(after=Offset(0), limit=1)
    others = [
        replace(event, **{name: value})  # type: ignore[arg-type] # by name
        for name, value in {
            "offset": 2,
            "tenant": "acm",
            "stream": "acme/tenant/b",
            "version": 2,
            "type": "tenant.member_added.v2",
            "payload": event.payload + b"\n",
            "recorded_at": event.recorded_at + timedelta(microseconds=1),
            "traceparent": None,
            "event_id": "1",
            "correlation": "",
            "causation": "",
        }.items()
    ]

    assert len(LogEvent.__dataclass_fields__) == len(others), "a new field has to be in the chain"
    assert len(others) + 1 == len({canonical(one) for one in [event, *others]})
    moved = replace(event, correlation="a", causation="b,1:c")
    assert canonical(moved) != canonical(replace(event, correlation="a,1:b", causation="c"))
    with pytest.raises(Unchainable, match="rebuild"):
        chained(NO_LINK, replace(event, event_id=""))


async def test_the_trail_is_the_same_on_postgres(
    world: World, postgres_server: PostgresServer
) -> None:
    await world.happen(10)
    view, service = AuditView(), f"p{uuid4().hex[:12]}"
    async with PostgresViews.open(postgres_server.dsn, service=service) as views:
        await views.migrate(view.name, view.tables)
        there = World(world.store, views, world.clock)
        await there.fold()

        assert await world.rows() == await there.rows()
        assert (await there.verify()).difference is None
        assert (await there.verify("acme")).difference is None
        rows = await there.rows()
        await there.put([*rows[:20], *rows[21:]])
        found = (await there.verify()).difference
        assert found is not None
        assert (Kind.MISSING, 21) == (found.kind, found.offset)


def _one_more() -> Unit:
    event = NewEvent(str(uuid4()), "tenant.renamed.v1", "{}", {})
    return Unit((Append(StreamId("new/tenant/new"), Version(0), (event,)),))
