"""What every store and view store promises about tenants, as tests: nothing is seen of another, or told.

Subclass with a `store`, or a `views` fixture in which `note` of `NOTES` exists. Events, replies and rows
are coloured with their tenant, so a leak is seen wherever it comes out. Where a database can hold more
than the code does (row-level security), its own tests say so.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from flotilla.outbox import START, Offset
from flotilla.projection import ViewSession, ViewStore
from flotilla.store import (
    ClaimKey,
    Committed,
    Conflicted,
    Failed,
    IdempotencyRecord,
    Replayed,
    Reused,
    StreamId,
    Unit,
    Version,
    stream_id,
)
from flotilla.testing.store import append
from flotilla.testing.views import step

TENANTS = (
    *("acme", "Acme", "acm", "acme ", " acme", "acme%", "acme_", "%", "_", "*", "null", "on", "-"),
    *("'acme'", 'ac"me', "acme' or '1'='1", "acme'); drop table event; --", "{acme}", "acme,rival"),
    *("{acme,rival}", "acme\\", "$1", "rival", "acme.thing", "acme\nrival", "acme\trival"),
    *(
        "\u0430cme",
        "acme\u200b",
        "\uff41cme",
        "e\u0301",
        "\xe9",
        "stra\xdfe",
        "strasse",
        "\u0130",
        "i",
    ),
)
"""Names that look like each other, or like more than a name: each is a tenant, and none is another."""
NOTES = """
create table note (
    tenant text not null, id text not null, body text not null, primary key (tenant, id)
)
"""
_WRITE = "insert into note (tenant, id, body) values ($1, $2, $3)"
_BY_ID = "select tenant, body from note where tenant = $1 and id = $2"
_ALL = "select tenant, body from note where tenant = $1 order by id"
CALLERS = 16
"""At a time: more than there are connections."""


def claimed(tenant: str, key: str, fingerprint: bytes = b"f") -> IdempotencyRecord:
    """Return the record of a command, whose reply tells its tenant."""
    return IdempotencyRecord(ClaimKey(tenant, "thing", key), fingerprint, tenant.encode(), 3600)


def coloured(tenant: str, key: str, at: int = 0, *, by: str = "") -> Unit:
    """Return a unit of one event, which tells its tenant."""
    change = append(stream_id(tenant, "thing", key), at, json.dumps(tenant))
    return Unit((change,), claimed(tenant, by) if by else None)


class TenantIsolationContract:
    """One subclass a store; one method a promise."""

    operations: int = 10_000
    """How many the interleaving does, over all its seeds."""

    @pytest.fixture
    def store(self) -> Any:
        """Build an empty store."""
        raise NotImplementedError

    async def test_tenants_whose_names_look_alike_have_nothing_in_common(self, store: Any) -> None:
        """The same stream and the same key are another's, and free, for each of them."""
        outcomes = await store.commit([coloured(t, "a", by="k") for t in TENANTS])
        assert [Committed()] * len(TENANTS) == list(outcomes)

        again = await store.commit([coloured(t, "a", by="k") for t in TENANTS])
        assert [Replayed(t.encode()) for t in TENANTS] == list(again)
        for tenant in TENANTS:
            stream, key = stream_id(tenant, "thing", "a"), ClaimKey(tenant, "thing", "k")
            loaded = await store.load(stream, claims=[key])
            assert [json.dumps(tenant)] == [e.payload for e in loaded.events]
            assert {key: tenant.encode()} == {k: r.reply for k, r in loaded.replies.items()}
            assert [json.dumps(tenant)] == [e.payload for e in await store.read(stream)]

    async def test_a_key_of_another_tenant_stands_for_nothing(self, store: Any) -> None:
        """A stream is loaded with the replies of its own tenant, whatever is asked for."""
        await store.commit([coloured("rival", "a", by="k")])

        keys = [ClaimKey("rival", "thing", "k"), ClaimKey("acme", "thing", "k")]
        loaded = await store.load(stream_id("acme", "thing", "a"), claims=keys)

        assert (Version(0), (), {}) == (loaded.version, loaded.events, dict(loaded.replies))

    @pytest.mark.parametrize(
        "unit",
        [
            Unit((*coloured("acme", "a").appends, *coloured("rival", "a").appends)),
            Unit(coloured("acme", "a").appends, claimed("rival", "k")),
            Unit((append(StreamId("/thing/a"), 0, "1"),)),
        ],
        ids=["streams of two", "a key of another", "of nobody"],
    )
    async def test_a_unit_of_work_is_one_tenants(self, store: Any, unit: Unit) -> None:
        """Or it is refused, alone, and writes nothing."""
        refused, fine = await store.commit([unit, coloured("other", "b", by="k")])

        assert Committed() == fine
        assert isinstance(refused, Failed), refused
        assert "not-one-tenants" == refused.error.code
        for tenant in ("acme", "rival"):
            loaded = await store.load(
                stream_id(tenant, "thing", "a"), claims=[ClaimKey(tenant, "thing", "k")]
            )
            assert (Version(0), {}) == (loaded.version, dict(loaded.replies))

    async def test_an_outcome_says_nothing_of_what_others_have(self, store: Any) -> None:
        """Conflicts, replays and reused keys are those of a database in which one is alone."""
        await store.commit(
            [coloured("rival", f"x{n}", v) for n in range(3) for v in range(n)]
            + [Unit((), claimed("rival", "k"))]
        )
        for n in range(3):
            alone, beside = [
                await store.commit(
                    [coloured(tenant, f"{name}{n}", at) for at in (1, 2, 3, 0)]
                    + [
                        Unit((), claimed(tenant, f"{key}{n}", print_))
                        for print_ in (b"1", b"1", b"2")
                    ]
                )
                for tenant, name, key in (("acme", "y", "z"), ("acme", "x", "k"))
            ]
            assert list(alone) == list(beside)
            assert [Conflicted()] * 4 + [Committed(), Replayed(b"acme"), Reused()] == list(beside)
        assert [json.dumps("rival")] * 2 == [
            event.payload for event in await store.read(stream_id("rival", "thing", "x2"))
        ]

    async def test_a_name_is_no_pattern_and_no_path(self, store: Any) -> None:
        """What is not the very name of a stream is no stream."""
        await store.commit([coloured("acme", "a"), coloured("rival", "a")])
        for name in (
            *(
                "%/thing/a",
                "acme/%/a",
                "acme/thing/%",
                "acme/thing/_",
                "acme/thing/a/",
                "/acme/thing/a",
            ),
            *(
                "acme/../rival/thing/a",
                "acme//thing/a",
                "acme/thing",
                "acme",
                "",
                "/",
                "acme/thing/A",
            ),
            *("acme/thing/a' or '1'='1", "acme/thing/a\0", "acme/thing/\ud800", "rival\0/thing/a"),
        ):
            stream = StreamId(name)
            assert Version(0) == (await store.load(stream)).version, name
            assert [] == list(await store.read(stream)), name

    @pytest.mark.parametrize("seed", range(4))
    async def test_many_at_once_over_few_connections_leak_nothing(
        self, store: Any, seed: int
    ) -> None:
        """Every answer has the colour of who asked, whatever else was in the same flight."""
        chance = random.Random(f"isolation-{seed}")
        tenants = chance.sample(TENANTS, 8)
        left = iter(range(self.operations // 4))
        await asyncio.gather(
            *(_caller(store, tenants, left, random.Random(f"{seed}-{n}")) for n in range(CALLERS))
        )
        entries = await store.pending(limit=100_000)
        wrong = [e for e in entries if e.event.payload != json.dumps(e.event.stream.split("/")[0])]
        assert [] == wrong, f"seed {seed}"
        assert entries, "nothing was written"


async def _caller(store: Any, tenants: Sequence[str], left: Any, chance: random.Random) -> None:
    """Work for one tenant after the other, and believe no answer."""
    for _ in left:
        tenant, key = chance.choice(tenants), chance.choice("abc")
        stream, foreign = stream_id(tenant, "thing", key), chance.choice(tenants)
        match chance.randrange(4):
            case 0:
                claims = [ClaimKey(t, "thing", key) for t in (tenant, foreign)]
                loaded = await store.load(stream, claims=claims)
                seen = [e.payload for e in loaded.events]
                assert {tenant.encode()} >= {r.reply for r in loaded.replies.values()}
            case 1:
                seen = [e.payload for e in await store.read(stream, limit=10)]
            case _:
                head = (await store.load(stream)).version
                mine = coloured(tenant, key, head, by=chance.choice(["", "", key, f"{key}{head}"]))
                mixed = Unit((*mine.appends, *coloured(f"{tenant}x", key).appends))
                [outcome, other] = await store.commit([mine, mixed])
                assert isinstance(other, Failed), other
                assert not isinstance(outcome, Failed), outcome
                seen = [json.dumps(outcome.reply.decode())] if isinstance(outcome, Replayed) else []
        assert {json.dumps(tenant)} >= set(seen)


class ViewIsolationContract:
    """One subclass a view store; one method a promise."""

    @pytest.fixture
    def views(self) -> ViewStore:
        """Build an empty view store with the table `note`."""
        raise NotImplementedError

    async def test_a_query_sees_the_rows_of_its_tenant_alone(self, views: ViewStore) -> None:
        """However their names look, and whoever asked before on the same connection."""
        await write_notes(views)
        assert [] == list(await views.fetch_of("nobody", _ALL))
        for tenant, other in permutations(TENANTS, 2):
            if tenant == TENANTS[0]:
                assert [(other, other)] == list(await views.fetch_of(other, _ALL))
            assert [(tenant, tenant)] == list(await views.fetch_of(tenant, _BY_ID, "a"))
            assert [] == list(await views.fetch_of(tenant, _BY_ID, other))

    async def test_a_query_that_does_not_ask_for_its_tenant_is_refused(
        self, views: ViewStore
    ) -> None:
        """It would see whatever the database lets it see."""
        for sql in ("select body from note where id = $1", "select $1", "select tenant = $10"):
            with pytest.raises(ValueError, match="asks for `tenant = "):
                await views.fetch_of("acme", sql)

    async def test_who_works_for_every_tenant_says_so(self, views: ViewStore) -> None:
        """Operators, and directories by user."""
        await write_notes(views)
        found = await views.fetch_across("select count(*), count(distinct tenant) from note")
        assert [(len(TENANTS), len(TENANTS))] == list(found)

    async def test_many_at_once_over_few_connections_see_their_own(self, views: ViewStore) -> None:
        """Also while rows of all are being folded."""
        await write_notes(views)
        chance = random.Random("views")

        async def look() -> None:
            for _ in range(40):
                tenant = chance.choice(TENANTS)
                assert {tenant} == {body for _, body in await views.fetch_of(tenant, _ALL)}

        async def fold() -> None:
            for n in range(20):
                await views.transact(
                    lambda view, n=n: view.execute_many(  # type: ignore[misc]
                        _WRITE, [(tenant, f"b{n}", tenant) for tenant in TENANTS]
                    )
                )

        await asyncio.gather(fold(), *(look() for _ in range(CALLERS)))


async def write_notes(views: ViewStore) -> None:
    """Fold a note of every tenant, in one batch."""

    async def apply(view: ViewSession) -> None:
        await view.execute_many(_WRITE, [(tenant, "a", tenant) for tenant in TENANTS])

    await views.advance("note", "thing", step(int(START), int(Offset(1))), apply)
