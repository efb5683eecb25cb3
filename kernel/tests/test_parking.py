"""The parking suite can fail: each of these mistakes is one that somebody made elsewhere."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from flotilla.errors import Unavailable
from flotilla.outbox import LogEvent, Offset
from flotilla.parking import Parking
from flotilla.projection import Checkpoint, ViewSession, ViewStore
from flotilla.stores.libsql import LibsqlViews
from flotilla.testing.parking import Diary, accounted, fold, log_of, storm

SEEDS = range(8)


@pytest.fixture
async def views(tmp_path: Path) -> AsyncIterator[LibsqlViews]:
    async with LibsqlViews.open(f"libsql://{tmp_path}/views.db", service="thing") as opened:
        yield opened


async def caught(
    tmp_path: Path, make: Callable[[Diary, ViewStore], Parking], wrap: type | None = None
) -> list[int]:
    """Return the seeds whose storm shows the mistake."""
    found = []
    for seed in SEEDS:
        url = f"libsql://{tmp_path}/{seed}.db"
        async with LibsqlViews.open(url, service="thing") as opened:
            store: ViewStore = wrap(opened) if wrap else opened
            try:
                await storm(store, seed, make)
            except AssertionError:
                found.append(seed)
    return found


class SkipsOnError(Parking):
    """What most libraries do when an event fails: log it and go on."""

    async def _park(self, *_: object, **__: object) -> None:
        return


class ForgetsTheKey(Parking):
    """A dead-letter queue: the event is kept, and later ones of its key overtake it."""

    def key_of(self, event: LogEvent) -> str:
        return f"{event.stream}@{event.offset}"


class CheckpointOutside:
    """A view store that moves the checkpoint in a transaction of its own."""

    def __init__(self, views: LibsqlViews) -> None:
        self._views = views

    def __getattr__(self, name: str) -> object:
        return getattr(self._views, name)

    async def advance(
        self,
        projection: str,
        log: str,
        step: tuple[Offset, Checkpoint],
        apply: Callable[[ViewSession], Awaitable[None]],
    ) -> None:
        async def nothing(_view: ViewSession) -> None:
            return

        await self._views.advance(projection, log, step, nothing)
        await self._views.transact(apply)


async def test_skip_on_error_is_caught(tmp_path: Path) -> None:
    assert list(SEEDS) == await caught(tmp_path, SkipsOnError)


async def test_a_checkpoint_outside_of_the_transaction_is_caught(tmp_path: Path) -> None:
    assert list(SEEDS) == await caught(tmp_path, Parking, CheckpointOutside)


async def test_a_dead_letter_that_is_overtaken_by_its_key_is_caught(tmp_path: Path) -> None:
    assert [] != await caught(tmp_path, ForgetsTheKey)


async def test_the_storm_passes_without_a_mistake(tmp_path: Path) -> None:
    assert [] == await caught(tmp_path, Parking)


async def test_one_poisonous_event_costs_a_few_transactions_and_not_one_an_event(
    views: LibsqlViews,
) -> None:
    tried: list[int] = []

    class Counting(Diary):
        async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
            tried.append(len(batch))
            await super().apply(view, batch)

    diary, events = Counting(), log_of("".join(chr(0x100 + n) for n in range(500)))
    diary.poisonous = {333}
    await views.migrate(diary.name, diary.tables)

    await fold(Parking(diary, views), events)

    assert len(tried) <= 2 * 9 + 1, tried
    await accounted(views, events)


async def test_a_store_that_goes_away_while_poison_is_parked_loses_nothing(
    views: LibsqlViews,
) -> None:
    class Fails(Parking):
        async def _park(self, *arguments: object, **more: object) -> None:
            await super()._park(*arguments, **more)  # type: ignore[arg-type] # passed on as they are
            if not gone:
                gone.append(True)
                raise Unavailable("on purpose")

    gone: list[bool] = []
    diary, events = Diary(), log_of("aba")
    diary.poisonous = {1}
    await views.migrate(diary.name, diary.tables)
    with pytest.raises(Unavailable):
        await fold(Fails(diary, views), events)
    await accounted(views, events)

    await fold(Fails(diary, views), events)

    await accounted(views, events)
    assert 3 == (await views.checkpoint(diary.name, diary.log)).offset
