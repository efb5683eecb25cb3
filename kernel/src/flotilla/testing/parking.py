"""What parking promises on every view store, as tests. Subclass with a `views` fixture.

    class TestLibsqlParking(ParkingContract): ...

`storm` is a whole life of a projection from a seed: batches of any size, redeliveries, stores that do
not answer, restarts, poison and retries. `accounted` is the judge: every event is in the view once, in
order, or parked with all later ones of its key.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from flotilla.errors import Conflict, Corrupt, Unavailable
from flotilla.heartbeat import Heartbeat, beat, heartbeats
from flotilla.outbox import START, LogEvent, Offset
from flotilla.parked import NotParked, discard, parked_counts, parked_events
from flotilla.parking import Parking, ParkingFull, StillPoison
from flotilla.projection import ViewSession, ViewStore
from flotilla.store import StreamId, Version
from flotilla.testing.worlds import ManualClock

LOG = "thing"
AT = datetime(2026, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)
ALL = 10_000
STORM_EVENTS, STORM_KEYS = 60, 6


class Diary:
    """Writes each event on the next line of its stream. What it finds `poisonous` it refuses."""

    name = "diary"
    log = LOG
    staleness_budget_s = 5.0
    tables = (
        "create table diary (line bigint primary key, stream text not null, at bigint not null)",
    )

    def __init__(self) -> None:
        self.poisonous: set[int] = set()
        self.unavailable: Callable[[], bool] = lambda: False
        self.paused: asyncio.Event | None = None
        self.reached = asyncio.Event()

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Write the batch; the damage of a failure is done before it shows."""
        [(lines,)] = await view.fetch("select count(*) from diary")
        await view.execute_many(
            "insert into diary (line, stream, at) values ($1, $2, $3)",
            [(lines + n, event.stream, event.offset) for n, event in enumerate(batch, start=1)],
        )
        if self.paused is not None:
            self.reached.set()
            await self.paused.wait()
        if self.unavailable():
            raise Unavailable("on purpose")
        for event in batch:
            if event.offset in self.poisonous:
                raise ValueError(f"cannot fold {event.offset}: \0 \ud800")


class DiaryByTenant(Diary):
    """Declares what must stay in order: all of a tenant's events."""

    def key_of(self, event: LogEvent) -> str:
        """Return the tenant."""
        return event.tenant


type Make = Callable[[Diary, ViewStore], Parking]


def event(
    offset: int, key: str, *, tenant: str = "acme", payload: bytes = b'{"a": "\\u0000"}'
) -> LogEvent:
    """Return the event at `offset`; its version says nothing here."""
    stream = StreamId(f"{tenant}/thing/{key}")
    return LogEvent(Offset(offset), tenant, stream, Version(1), "thing.happened.v1", payload, AT)


def log_of(keys: str) -> list[LogEvent]:
    """Return a log: "aab" is two events of a and one of b, at the offsets 1, 2, 3."""
    return [event(n, key) for n, key in enumerate(keys, start=1)]


async def fold(parking: Parking, events: Sequence[LogEvent]) -> None:
    """Fold those of `events` that are behind the checkpoint, as a projector does."""
    name, log = parking.projection.name, parking.projection.log
    after = (await parking.views.checkpoint(name, log)).offset
    if new := [e for e in events if e.offset > after]:
        async for _ in parking.fold(after, new):
            pass


def by_hand(diary: Diary, views: ViewStore) -> Parking:
    """Return a parking at a known time."""
    return Parking(diary, views, ManualClock(AT))


def cramped(diary: Diary, views: ViewStore) -> Parking:
    """Return a parking with room for four events."""
    return Parking(diary, views, parked_max=4)


async def restarted(views: ViewStore, diary: Diary, make: Make = by_hand) -> Parking:
    """Return what a process that has just started has: nothing but what is in the database."""
    await views.migrate(diary.name, diary.tables)
    parking = make(diary, views)
    await parking.load()
    return parking


async def written(views: ViewStore) -> list[int]:
    """Return the offsets in the diary, line by line."""
    return [at for (at,) in await views.fetch_across("select at from diary order by line")]


async def parked(views: ViewStore) -> list[int]:
    """Return the offsets that are parked."""
    return [e.event.offset for e in await parked_events(views, limit=ALL)]


async def accounted(views: ViewStore, events: Sequence[LogEvent]) -> None:
    """Fail unless every event is in the view once, in order, or parked with what follows it."""
    upto = (await views.checkpoint(Diary.name, LOG)).offset
    in_view, set_aside = await written(views), await parked(views)
    by_stream: dict[str, list[int]] = defaultdict(list)
    for e in events[:upto]:
        by_stream[e.stream].append(e.offset)
    for stream, offsets in by_stream.items():
        seen = [at for at in in_view if at in offsets]
        aside = [at for at in set_aside if at in offsets]
        assert seen + aside == offsets, (
            f"{stream}: {seen} in the view, {aside} parked, of {offsets}"
        )
    assert len(in_view) + len(set_aside) == upto


async def storm(views: ViewStore, seed: int, make: Make) -> None:
    """Let a projection live through anything, and judge it after every step; then cure it."""
    chance = random.Random(seed)
    diary = Diary()
    diary.poisonous = set(chance.sample(range(1, STORM_EVENTS + 1), chance.randint(1, 5)))
    diary.unavailable = lambda: chance.random() < 0.15
    events = [event(n, chance.choice("abcdef"[:STORM_KEYS])) for n in range(1, STORM_EVENTS + 1)]
    parking = await restarted(views, diary, make)
    for _ in range(120):
        at = (await views.checkpoint(diary.name, LOG)).offset
        try:
            match chance.choice(["fold", "fold", "fold", "restart", "retry"]):
                case "fold":
                    await fold(parking, events[max(0, at - 3) : at + chance.randint(1, 9)])
                case "restart":
                    parking = await restarted(views, diary, make)
                case _ if parking.keys:
                    await parking.retry(chance.choice(sorted(parking.keys)))
        except (StillPoison, NotParked):
            pass
        except (Unavailable, Conflict):
            parking = await restarted(views, diary, make)
        await accounted(views, events)
    diary.unavailable, diary.poisonous = (lambda: False), set()
    await fold(parking, events)
    for key in {e.key for e in await parked_events(views, limit=ALL)}:
        await parking.retry(key)
    assert sorted(await written(views)) == list(range(1, STORM_EVENTS + 1)), f"seed {seed}"
    await accounted(views, events)


class ParkingContract:
    """One subclass an adapter; one method a promise."""

    @pytest.fixture
    def views(self) -> ViewStore:
        """Build an empty view store."""
        raise NotImplementedError

    @pytest.mark.parametrize("at", range(1, 8))
    async def test_poison_and_what_follows_it_is_parked_and_its_neighbours_flow(
        self, views: ViewStore, at: int
    ) -> None:
        """Wherever in a batch it is."""
        events, diary = log_of("abcabca"), Diary()
        diary.poisonous = {at}
        parking = await restarted(views, diary)

        await fold(parking, events)

        same = [e.offset for e in events if e.stream == events[at - 1].stream and e.offset >= at]
        assert same == await parked(views)
        assert Offset(7) == (await views.checkpoint("diary", LOG)).offset
        await accounted(views, events)

    async def test_poison_is_delivered_twice_and_parked_once(self, views: ViewStore) -> None:
        """With a restart between, and by another process."""
        events, diary = log_of("abab"), Diary()
        diary.poisonous = {2}
        await fold(await restarted(views, diary), events)

        for _ in range(2):
            await fold(await restarted(views, diary), events)

        assert ([1, 3], [2, 4]) == (await written(views), await parked(views))
        assert [1, 0] == [e.tries for e in await parked_events(views, limit=ALL)]

    async def test_what_follows_after_a_restart_is_parked_too(self, views: ViewStore) -> None:
        """The keys are in the database, not in the process."""
        events, diary = log_of("abba"), Diary()
        diary.poisonous = {2}
        await fold(await restarted(views, diary), events[:2])

        await fold(await restarted(views, diary), events)

        assert ([1, 4], [2, 3]) == (await written(views), await parked(views))

    async def test_poison_beside_poison(self, views: ViewStore) -> None:
        """All of a batch may be."""
        events, diary = log_of("abcd"), Diary()
        diary.poisonous = {1, 2, 3, 4}

        await fold(await restarted(views, diary), events)

        assert ([], [1, 2, 3, 4]) == (await written(views), await parked(views))

    async def test_an_event_is_parked_as_it_was_delivered(self, views: ViewStore) -> None:
        """To the byte, with what went wrong, in words that every database takes."""
        diary = Diary()
        diary.poisonous = {1}
        odd = event(1, "a", payload=b'\xff\x00{"n": 1}')
        await fold(await restarted(views, diary), [odd])

        [found] = await parked_events(views, limit=ALL)

        assert odd == found.event
        assert ("diary", LOG, "acme/thing/a", 1) == (
            found.projection,
            found.log,
            found.key,
            found.tries,
        )
        assert found.error.startswith("ValueError: cannot fold 1")
        assert AT == found.parked_at
        [count] = await parked_counts(views)
        assert (1, 1, AT, AT) == (
            count.events,
            count.keys,
            count.oldest_parked_at,
            count.oldest_recorded_at,
        )

    async def test_parked_events_are_found_by_projection_key_and_offset(
        self, views: ViewStore
    ) -> None:
        """And not more of them than asked for."""
        events, diary = log_of("abab"), Diary()
        diary.poisonous = {1, 2}
        await fold(await restarted(views, diary), events)

        async def found(projection: str = "", key: str = "", offset: int = 0) -> list[int]:
            rows = await parked_events(
                views, projection=projection, key=key, offset=offset, limit=3
            )
            return [e.event.offset for e in rows]

        assert [1, 2, 3] == await found()
        assert [1, 3] == await found("diary", "acme/thing/a")
        assert [4] == await found(offset=4)
        assert [] == await found("nobody")

    async def test_a_projection_may_say_what_belongs_together(self, views: ViewStore) -> None:
        """Here all of a tenant's events, of whatever stream."""
        diary = DiaryByTenant()
        diary.poisonous = {1}
        events = [event(1, "a"), event(2, "b"), event(3, "a", tenant="rival"), event(4, "c")]

        await fold(await restarted(views, diary), events)

        assert ([3], [1, 2, 4]) == (await written(views), await parked(views))

    @pytest.mark.parametrize("error", [Unavailable, Corrupt, ConnectionError, TimeoutError])
    async def test_what_may_pass_or_is_nobody_s_event_is_never_parked(
        self, views: ViewStore, error: type[Exception]
    ) -> None:
        """It comes through, and nothing moves."""

        class Failing(Diary):
            async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
                await super().apply(view, batch)
                raise error("on purpose")

        parking = await restarted(views, Failing())

        with pytest.raises((error, Unavailable)):
            await fold(parking, log_of("ab"))

        assert ([], []) == (await written(views), await parked(views))
        assert START == (await views.checkpoint("diary", LOG)).offset

    async def test_parking_is_bounded_and_then_the_checkpoint_stays(self, views: ViewStore) -> None:
        """A projection that fails for everything is wrong itself; room makes it go on."""
        events, diary = log_of("abcdefa"), Diary()
        diary.poisonous = {1, 2, 3, 4, 5}
        parking = await restarted(views, diary, cramped)

        for _ in range(2):
            with pytest.raises(ParkingFull, match=r"4 events of thing are parked.*offset 5"):
                await fold(parking, events)
            assert ([], [1, 2, 3, 4]) == (await written(views), await parked(views))
            assert Offset(4) == (await views.checkpoint("diary", LOG)).offset

        diary.poisonous = {5}
        assert 1 == await parking.retry("acme/thing/a")
        await fold(parking, events)
        assert ([1, 6, 7], [2, 3, 4, 5]) == (await written(views), await parked(views))

    async def test_a_retry_folds_all_of_a_key_in_order_and_frees_it(self, views: ViewStore) -> None:
        """And what comes afterwards flows, in the process that parked it too."""
        events, diary = log_of("abaabaab"), Diary()
        diary.poisonous = {1, 2}
        parking = await restarted(views, diary)
        await fold(parking, events[:6])
        diary.poisonous = {2}

        assert 4 == await (await restarted(views, diary)).retry("acme/thing/a")

        await fold(parking, events)
        assert ([1, 3, 4, 6, 7], [2, 5, 8]) == (await written(views), await parked(views))

    async def test_a_retry_that_fails_changes_nothing_but_the_count(self, views: ViewStore) -> None:
        """All of a key or nothing; the event that failed is named."""
        events, diary = log_of("aaa"), Diary()
        diary.poisonous = {1}
        parking = await restarted(views, diary)
        await fold(parking, events)
        diary.poisonous = {2}

        with pytest.raises(StillPoison, match="offset 2: ValueError"):
            await parking.retry("acme/thing/a")

        assert ([], [1, 2, 3]) == (await written(views), await parked(views))
        found = await parked_events(views, limit=ALL)
        assert [1, 1, 0] == [e.tries for e in found]
        assert "cannot fold 2" in found[1].error
        with pytest.raises(NotParked):
            await parking.retry("acme/thing/nobody")

    async def test_what_arrives_during_a_retry_is_neither_lost_nor_out_of_order(
        self, views: ViewStore
    ) -> None:
        """It waits for the retry, finds the key free, and is folded."""
        events, diary, retried = log_of("aba"), Diary(), Diary()
        diary.poisonous = {1}
        running = await restarted(views, diary)
        await fold(running, events[:2])
        operator = await restarted(views, retried)
        retried.paused = asyncio.Event()

        retry = asyncio.create_task(operator.retry("acme/thing/a"))
        await retried.reached.wait()
        folding = asyncio.create_task(fold(running, events))
        await asyncio.sleep(0.05)  # time to go wrong in; it must not need it
        retried.paused.set()

        assert 1 == await retry
        await folding
        assert ([2, 1, 3], []) == (await written(views), await parked(views))
        await accounted(views, events)

    async def test_a_retry_during_a_batch_takes_what_the_batch_parks(
        self, views: ViewStore
    ) -> None:
        """The other way round: it waits for the batch, and finds one event more."""
        events, diary = log_of("aab"), Diary()
        diary.poisonous = {1}
        running = await restarted(views, diary)
        await fold(running, events[:1])
        operator = await restarted(views, Diary())
        diary.paused = asyncio.Event()

        folding = asyncio.create_task(fold(running, events))
        await diary.reached.wait()
        retry = asyncio.create_task(operator.retry("acme/thing/a"))
        await asyncio.sleep(0.05)  # time to go wrong in; it must not need it
        diary.paused.set()

        await folding
        assert 2 == await retry
        assert ([3, 1, 2], []) == (await written(views), await parked(views))

    async def test_what_is_discarded_is_gone_and_the_rest_of_the_key_stays_parked(
        self, views: ViewStore
    ) -> None:
        """Until all of it is: then the key flows."""
        events, diary = log_of("aaabaaa"), Diary()
        diary.poisonous = {1}
        parking = await restarted(views, diary)
        await fold(parking, events[:4])

        [first] = await parked_events(views, offset=1, limit=1)
        await discard(views, [first])
        await fold(parking, events[:5])
        assert ([4], [2, 3, 5]) == (await written(views), await parked(views))

        with pytest.raises(NotParked):
            await discard(views, [*await parked_events(views, offset=2, limit=1), first])
        assert [2, 3, 5] == await parked(views), "half of it was discarded"
        await discard(views, await parked_events(views, key="acme/thing/a", limit=ALL))
        await fold(parking, events)
        assert ([4, 6, 7], []) == (await written(views), await parked(views))

    @pytest.mark.parametrize("seed", range(8))
    async def test_in_any_storm_every_event_is_in_the_view_or_parked(
        self, views: ViewStore, seed: int
    ) -> None:
        """The seed is the bug report."""
        await storm(views, seed, Parking)

    async def test_a_sign_of_life_is_the_last_one(self, views: ViewStore) -> None:
        """One row a projection."""
        first, later = (Heartbeat("p", LOG, 5.0, AT, trouble) for trouble in ("silent", ""))
        other = Heartbeat("q", LOG, 0.5, AT)
        await beat(views, [first, other])
        await beat(views, [later])

        assert [later, other] == await heartbeats(views)
