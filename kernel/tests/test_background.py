"""Work in the background goes on, or says why not; it never dies silently."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from flotilla.background import BACKOFF_MAX_S, STOP_TIMEOUT_S, Background, background
from flotilla.errors import Corrupt, Unavailable
from flotilla.testing import ManualClock, eventually


class PatientClock(ManualClock):
    """Remembers how long it was asked to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses_s: list[float] = []

    async def sleep(self, duration_s: float) -> None:
        self.pauses_s.append(duration_s)
        await super().sleep(duration_s)


class Work:
    """Does what it is told, pass by pass; afterwards it works for ever."""

    def __init__(self, *passes: BaseException | None, clock: ManualClock | None = None) -> None:
        self._passes = list(passes)
        self._clock = clock
        self.begun = 0
        self.troubles: list[str | None] = []
        """What was shown when each pass began."""
        self.steady = asyncio.Event()
        self.ended = False

    async def __call__(self, shown: Background) -> None:
        self.begun += 1
        self.troubles.append(shown.trouble)
        if not self._passes:
            self.steady.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.ended = True
        await asyncio.sleep(0)
        if self._clock:
            self._clock.advance(BACKOFF_MAX_S + 1)
        outcome = self._passes.pop(0)
        if outcome is not None:
            raise outcome


@asynccontextmanager
async def working(work: Work, clock: ManualClock | None = None) -> AsyncIterator[Background]:
    """Run `work` until it is steady."""
    chance = random.Random(1)
    async with background("pump", work, clock=clock or ManualClock(), chance=chance) as shown:
        async with asyncio.timeout(5):
            await work.steady.wait()
        yield shown


async def test_when_a_pass_is_over_the_next_begins() -> None:
    work = Work(None, None, None)

    async with working(work) as shown:
        assert (4, None) == (work.begun, shown.trouble)
    assert work.ended


async def test_an_error_is_shown_and_logged_and_the_work_begins_again() -> None:
    work = Work(ZeroDivisionError("by nothing"), None)

    with capture_logs() as lines:
        async with working(work):
            pass

    assert [None, "pump: by nothing", None] == work.troubles
    [line] = [line for line in lines if line["event"] == "background.failed"]
    assert ("error", "pump", 1, True) == (
        line["log_level"],
        line["work"],
        line["failures"],
        line["exc_info"],
    )


async def test_an_outage_is_a_warning_and_no_traceback() -> None:
    with capture_logs() as lines:
        async with working(Work(Unavailable("away"))):
            pass

    assert [("warning", None)] == [(line["log_level"], line.get("exc_info")) for line in lines]


async def test_endless_work_says_itself_that_it_recovered() -> None:
    work = Work(Unavailable("away"))

    async with working(work) as shown:
        assert "pump: away" == shown.trouble
        shown.recovered()
        assert shown.trouble is None


async def test_pauses_grow_up_to_a_limit_and_differ_by_chance() -> None:
    clock = PatientClock()

    async with working(Work(*(Unavailable("away") for _ in range(12))), clock):
        pass

    pauses_s = clock.pauses_s
    limits_s = [min(BACKOFF_MAX_S, 0.05 * 2**n) for n in range(1, 13)]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses_s, limits_s, strict=True))
    assert 12 == len(set(pauses_s))


async def test_a_pass_that_worked_forgives_the_failures_before_it() -> None:
    clock = PatientClock()
    failures: Sequence[BaseException] = [Unavailable("away") for _ in range(6)]

    async with working(Work(*failures, None, Unavailable("again")), clock):
        pass

    *_, last, after = clock.pauses_s
    assert last >= 1.0
    assert after <= 0.1


async def test_having_worked_for_long_forgives_them_too() -> None:
    clock = PatientClock()

    async with working(Work(*(Unavailable("away") for _ in range(6)), clock=clock), clock):
        pass

    assert max(clock.pauses_s) <= 0.1


async def test_a_broken_promise_halts_it_for_a_human() -> None:
    work = Work(Corrupt("offset 7 is missing"), None)

    with capture_logs() as lines:
        async with background("pump", work, clock=ManualClock(), chance=random.Random(1)) as shown:

            async def halted() -> str | None:
                return shown.trouble

            assert "pump halted: offset 7 is missing" == await eventually(halted)
            for _ in range(10):
                await asyncio.sleep(0)

    assert 1 == work.begun
    assert [("background.halted", "critical")] == [
        (line["event"], line["log_level"]) for line in lines
    ]


async def test_a_cancellation_that_nobody_of_us_asked_for_is_only_a_failure() -> None:
    """A library cancelled what the work was waiting for: to die of that would be to die silently."""
    work = Work(asyncio.CancelledError(), None)

    async with working(work):
        pass

    assert [None, "pump: CancelledError", None] == work.troubles


async def test_the_end_of_the_block_ends_it_also_while_it_backs_off() -> None:
    class Stuck(ManualClock):
        asleep = asyncio.Event()

        async def sleep(self, duration_s: float) -> None:  # noqa: ARG002 - it never ends
            self.asleep.set()
            await asyncio.Event().wait()

    clock = Stuck()
    async with asyncio.timeout(STOP_TIMEOUT_S / 2):
        async with background("pump", Work(Unavailable("x")), clock=clock, chance=random.Random(1)):
            await clock.asleep.wait()


async def test_work_that_answers_its_end_with_an_error_ends_as_well() -> None:
    """At once, and without another pass."""
    begun = 0
    started = asyncio.Event()

    async def work(_: Background) -> None:
        nonlocal begun
        begun += 1
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Unavailable("the connection was closed under me") from None

    async with asyncio.timeout(STOP_TIMEOUT_S / 2):
        async with background("pump", work, clock=ManualClock(), chance=random.Random(1)):
            await started.wait()

    assert 1 == begun


async def test_an_error_of_the_block_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        async with working(Work()):
            raise ZeroDivisionError
