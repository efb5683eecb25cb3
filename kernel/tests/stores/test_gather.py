"""Questions asked together: bounded, and every caller with an answer or an error of its own."""

import asyncio
from collections.abc import Sequence

import pytest

from flotilla.errors import Unavailable
from flotilla.stores.gather import Gather


class Oracle:
    """Answers when it is let; notes what it was asked."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.gate = asyncio.Event()
        self.asked: list[list[int]] = []
        self.error = error

    async def ask(self, questions: Sequence[int]) -> list[str]:
        self.asked.append(list(questions))
        await self.gate.wait()
        if self.error:
            raise self.error
        return [f"{question}!" for question in questions]


async def ticks(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_each_gets_the_answer_to_its_own_question_in_as_few_flights_as_possible() -> None:
    oracle = Oracle()
    gather = Gather(oracle.ask, batch_max=3, flights_max=2)
    asking = [asyncio.create_task(gather.answer(n)) for n in range(9)]
    await ticks()
    oracle.gate.set()

    assert [f"{n}!" for n in range(9)] == await asyncio.gather(*asking)
    assert [[0], [1], [2, 3, 4], [5, 6, 7], [8]] == oracle.asked


async def test_a_full_queue_refuses_at_once_and_those_who_wait_are_answered() -> None:
    oracle = Oracle()
    gather = Gather(oracle.ask, flights_max=1, waiting_max=2)
    asking = [asyncio.create_task(gather.answer(n)) for n in range(3)]
    await ticks()

    for _ in range(2):
        with pytest.raises(Unavailable, match="2 questions are waiting"):
            await gather.answer(3)

    oracle.gate.set()
    assert ["0!", "1!", "2!"] == await asyncio.gather(*asking)
    assert "4!" == await gather.answer(4)


@pytest.mark.parametrize(
    ("error", "heard"),
    [
        (Unavailable("gone", code="store-locked"), Unavailable),
        (LookupError("a bug"), LookupError),
        (asyncio.CancelledError(), Unavailable),
    ],
)
async def test_everybody_of_a_batch_hears_of_a_failure_in_an_error_of_its_own(
    error: BaseException, heard: type[Exception]
) -> None:
    """One instance would gather the tracebacks of all, and whoever annotates it would tell others."""
    oracle = Oracle(error)
    gather = Gather(oracle.ask, flights_max=1)
    asking = [asyncio.create_task(gather.answer(n)) for n in range(4)]
    await ticks()
    oracle.gate.set()

    errors = await asyncio.gather(*asking, return_exceptions=True)

    assert [heard] * 4 == [type(e) for e in errors]
    assert 4 == len({id(e) for e in errors} - {id(error)})
    assert {error} == {e.__cause__ for e in errors if isinstance(e, BaseException)}
    if isinstance(error, Unavailable):
        assert {("gone", "store-locked")} == {(str(e), getattr(e, "code", "")) for e in errors}


async def test_whoever_gives_up_while_waiting_is_not_asked_for() -> None:
    oracle = Oracle()
    gather = Gather(oracle.ask, flights_max=1, batch_max=2)
    asking = [asyncio.create_task(gather.answer(n)) for n in range(4)]
    await ticks()
    for quitter in (asking[1], asking[2]):
        quitter.cancel()
    await ticks()
    oracle.gate.set()

    assert ["0!", "3!"] == [await asking[0], await asking[3]]
    assert [[0], [3]] == oracle.asked
