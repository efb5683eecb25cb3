"""A batch is committed as if its units came one after the other: on paper, and in every store."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flotilla.embedded import PostgresServer
from flotilla.store import (
    Append,
    ClaimKey,
    EventStore,
    Failed,
    IdempotencyRecord,
    Outcome,
    StreamId,
    Unit,
    Version,
    stream_id,
)
from flotilla.stores.libsql import LibsqlStore
from flotilla.stores.memory import MemoryStore
from flotilla.stores.postgres import PostgresStore
from flotilla.stores.rounds import Chain, plan_rounds
from flotilla.testing import new_event
from flotilla.testing.store import A, B, append, record

HOUR_S = 3600
STREAMS, KEYS = ("a", "b", "c"), ("k1", "k2", "k3")


@dataclass(frozen=True)
class Step:
    """What somebody does to a stream: append `events`, `off` by so much from where it stands."""

    stream: str
    events: int
    off: int = 0


@dataclass(frozen=True)
class Intent:
    """A unit before it is known where its streams stand."""

    steps: tuple[Step, ...]
    key: str | None = None
    content: bytes = b"f"
    ttl_s: int = HOUR_S
    poisoned: bool = False


steps = st.builds(
    Step,
    stream=st.sampled_from(STREAMS),
    events=st.sampled_from([1, 1, 1, 2, 0]),
    off=st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1]),
)
intents = st.builds(
    Intent,
    steps=st.lists(steps, max_size=3, unique_by=lambda step: step.stream).map(tuple)
    | steps.map(lambda step: (step,)),
    key=st.none() | st.sampled_from(KEYS),
    content=st.sampled_from([b"f", b"f", b"other"]),
    ttl_s=st.sampled_from([HOUR_S, HOUR_S, 0]),
    poisoned=st.sampled_from([False] * 15 + [True]),
)
batches = st.lists(intents, max_size=12)


def units_of(intents: Sequence[Intent], tenant: str, heads: dict[str, int]) -> list[Unit]:
    """Return the units of a batch by somebody who believes that all of them will be committed."""
    units = []
    for n, intent in enumerate(intents):
        appends = []
        for step in intent.steps:
            at = max(0, heads.get(step.stream, 0) + step.off)
            events = tuple(
                new_event("{" if intent.poisoned else f'"{n}-{step.stream}-{i}"')
                for i in range(step.events)
            )
            appends.append(Append(stream_id(tenant, "thing", step.stream), Version(at), events))
            if step.off == 0:
                heads[step.stream] = at + step.events
        claim = ClaimKey(tenant, "thing", intent.key) if intent.key else None
        reply = f"reply-{n}".encode()
        units.append(
            Unit(
                tuple(appends),
                IdempotencyRecord(claim, intent.content, reply, intent.ttl_s) if claim else None,
            )
        )
    return units


planned = batches.map(lambda intents: units_of(intents, "acme", {}))


def touched(unit: Unit) -> set[StreamId | ClaimKey]:
    """Return what a unit depends on."""
    return {append.stream for append in unit.appends} | (
        {unit.record.claim} if unit.record else set()
    )


def places(rounds: Sequence[Sequence[Chain]]) -> dict[int, tuple[int, int, int]]:
    """Return the (round, chain, place in it) of every unit."""
    return {
        index: (r, c, place)
        for r, chains in enumerate(rounds)
        for c, chain in enumerate(chains)
        for place, index in enumerate(chain)
    }


class TestPlanning:
    @given(planned)
    def test_every_unit_is_in_exactly_one_place(self, units: list[Unit]) -> None:
        everywhere = [i for chains in plan_rounds(units) for chain in chains for i in chain]

        assert list(range(len(units))) == sorted(everywhere)

    @given(planned)
    def test_whatever_shares_a_stream_or_a_key_keeps_its_order(self, units: list[Unit]) -> None:
        place = places(plan_rounds(units))

        for earlier, later in combinations(range(len(units)), 2):
            if touched(units[earlier]) & touched(units[later]):
                (round_1, chain_1, _), (round_2, chain_2, _) = place[earlier], place[later]
                assert place[earlier] < place[later]
                assert round_1 < round_2 or chain_1 == chain_2

    @given(planned)
    def test_the_chains_of_a_round_share_nothing(self, units: list[Unit]) -> None:
        for chains in plan_rounds(units):
            assert [] not in chains
            for one, other in combinations(chains, 2):
                ours = set[StreamId | ClaimKey]().union(*(touched(units[i]) for i in one))
                theirs = set[StreamId | ClaimKey]().union(*(touched(units[i]) for i in other))
                assert not ours & theirs

    @given(planned)
    def test_a_chain_is_consecutive_in_one_stream_and_uses_no_key_twice(
        self, units: list[Unit]
    ) -> None:
        for chain in (c for chains in plan_rounds(units) for c in chains if len(c) > 1):
            steps = [append for i in chain for append in units[i].appends]
            claims = [r.claim for i in chain if (r := units[i].record)]
            assert len(chain) == len(steps)
            assert 1 == len({step.stream for step in steps})
            assert [step.version for step in steps[:-1]] == [step.expected for step in steps[1:]]
            assert len(claims) == len(set(claims))

    @given(planned)
    def test_nobody_waits_for_a_round_without_a_reason(self, units: list[Unit]) -> None:
        """So there are at most as many rounds as units in a row that depend on each other."""
        rounds = plan_rounds(units)
        place = places(rounds)

        for index, (turn, chain, _) in place.items():
            before = [place[i] for i in range(index) if touched(units[i]) & touched(units[index])]
            reasons = [at for at in before if at[0] == turn - 1 or at[:2] == (turn, chain)]
            assert turn == 0 or reasons
        assert len(rounds) <= len(units)

    def test_a_hot_stream_is_one_statement_and_so_are_many_cold_ones(self) -> None:
        hot = [Unit((append(A, n, "1"),), record(f"k{n}")) for n in range(256)]
        cold = [Unit((append(stream_id("acme", "thing", f"s{n}"), 0, "1"),)) for n in range(256)]

        assert [[list(range(256))]] == plan_rounds(hot)
        assert [[[n] for n in range(256)]] == plan_rounds(cold)

    def test_two_hot_streams_take_turns_in_one_statement(self) -> None:
        units = [Unit((append(s, n, "1"),)) for n in range(3) for s in (A, B)]

        assert [[[0, 2, 4], [1, 3, 5]]] == plan_rounds(units)

    def test_a_break_in_a_stream_ends_its_chain(self) -> None:
        at = [0, 1, 1, 2]
        units = [Unit((append(A, n, "1"),)) for n in at]

        assert [[[0, 1]], [[2, 3]]] == plan_rounds(units)


# The port's promise, on every store.


@pytest.fixture
async def postgres(postgres_server: PostgresServer) -> AsyncIterator[PostgresStore]:
    # What is compared here is not durability; a hundred fsyncs would only cost time.
    dsn = f"{postgres_server.dsn}&synchronous_commit=off"
    async with PostgresStore.open(dsn, service="rounds") as store:
        yield store


@pytest.fixture
async def libsql(tmp_path: Path) -> AsyncIterator[LibsqlStore]:
    async with LibsqlStore.open(f"libsql://{tmp_path}/rounds.db", service="rounds") as store:
        yield store


tenants = (f"t{n}" for n in count())
"""Each example has streams and keys of its own."""


def comparable(outcome: Outcome) -> object:
    """Return an outcome, without the words of the database in it."""
    return Failed if isinstance(outcome, Failed) else outcome


async def seen(store: EventStore, tenant: str) -> dict[str, object]:
    """Return all that a tenant can see of a store, but for times."""
    claims = [ClaimKey(tenant, "thing", key) for key in KEYS]
    found: dict[str, object] = {}
    for name in STREAMS:
        loaded = await store.load(stream_id(tenant, "thing", name), claims=claims)
        found[name] = (loaded.version, [(e.version, e.event_id, e.payload) for e in loaded.events])
        found["replies"] = dict(loaded.replies)
    return found


ONE = Step("a", 1)


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(script=st.lists(batches, min_size=1, max_size=3))
@example(script=[[Intent((ONE,)), Intent((ONE,), "k1"), Intent((ONE,), "k1"), Intent((ONE,))]])
@example(script=[[Intent((ONE,)), Intent((ONE, Step("b", 1))), Intent((Step("b", 2),))]])
@example(script=[[Intent((ONE,)), Intent((ONE,), poisoned=True), Intent((ONE,))]])
@example(script=[[Intent((), "k1"), Intent((), "k1", b"other")], [Intent((Step("a", 0),))] * 2])
async def test_every_store_does_as_if_units_came_one_after_the_other(
    *, postgres: PostgresStore, libsql: LibsqlStore, script: list[list[Intent]]
) -> None:
    """The specification is the one that really does: memory."""
    tenant = next(tenants)
    memory = MemoryStore()
    for intents in script:
        heads = {s: (await memory.load(stream_id(tenant, "thing", s))).version for s in STREAMS}
        units = units_of(intents, tenant, dict(heads))

        expected = [comparable(outcome) for outcome in await memory.commit(units)]

        assert expected == [comparable(outcome) for outcome in await postgres.commit(units)]
        assert expected == [comparable(outcome) for outcome in await libsql.commit(units)]
        found = await seen(memory, tenant)
        assert found == await seen(postgres, tenant)
        assert found == await seen(libsql, tenant)


@pytest.mark.parametrize("bad", ["\0", "\ud800"])
async def test_what_cannot_be_stored_is_not_there_and_spoils_nobody_elses_answer(
    postgres: PostgresStore, libsql: LibsqlStore, bad: str
) -> None:
    """Keys come from outside, and questions of many callers go out together."""
    tenant = next(tenants)
    stream, nowhere = stream_id(tenant, "thing", "a"), stream_id(tenant, "thing", f"a{bad}")
    fine, wrong = ClaimKey(tenant, "thing", "k"), ClaimKey(tenant, "thing", f"k{bad}")
    unit = Unit((append(stream, 0, "1"),), IdempotencyRecord(fine, b"f", b"reply", HOUR_S))
    for store in (MemoryStore(), postgres, libsql):
        await store.commit([unit])

        answers = await asyncio.gather(
            *(store.load(stream, claims=[fine, wrong] if n % 2 else [fine]) for n in range(20)),
            store.load(nowhere, claims=[fine]),
        )

        assert [(1, [fine])] * 20 == [(a.version, list(a.replies)) for a in answers[:-1]]
        assert (0, ()) == (answers[-1].version, answers[-1].events)
