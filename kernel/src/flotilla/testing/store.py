"""What every event store promises, as tests.

Subclass, give a `store` fixture that yields an empty store, inherit the rest. What a store cannot do
it declares in its type and is tested to refuse; nothing here skips.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from flotilla.aggregate import EVENT_BYTES_MAX
from flotilla.commit import GroupCommitter
from flotilla.errors import EventTooLarge, Unavailable
from flotilla.store import (
    EMPTY,
    Append,
    ClaimKey,
    Committed,
    Conflicted,
    EventStore,
    Failed,
    IdempotencyRecord,
    NewEvent,
    Outcome,
    Replayed,
    Reused,
    Snapshot,
    StreamId,
    Unit,
    Version,
    stream_id,
)
from flotilla.stores.storable import UNIT_BYTES_MAX, Unstorable
from flotilla.testing.worlds import eventually, new_event

A = stream_id("acme", "thing", "a")
B = stream_id("acme", "thing", "b")
C = stream_id("acme", "thing", "c")
HOUR_S = 3600
POISON = [
    *("", " ", "not json", "NaN", '{"n":NaN}', "[Infinity]", "-Infinity", "nan", "'x'", '{"a":1,}'),
    *("[1,]", "{a:1}", "01", "+1", ".5", "1.", "0x10", "1 2", "// x\n1", "[1] x", "True"),
    *('"\t"', '"\n"', '"\x01"', '"\\x41"', '"\\u12"', '"open', "\ufeff1", "\x0b1", "\xa01"),
    *("[" * 501 + "]" * 501, '{"a":' * 501 + "1" + "}" * 501, "[" * 100_000, "[" * 10, "]"),
]
ODD = [
    *(
        "null",
        '""',
        "[]",
        "{}",
        " \t\r\n1 ",
        "1e999",
        "-0",
        "1E+2",
        "123456789012345678901234567890",
    ),
    *('{"a":1,"a":2}', '{"b":1,"a":2}', '"\\ud800"', '"\\u0000"', '"\\/"', '"\x7f\u2028"', '""'),
    *('"' + "[" * 2000 + '"', "[" + "{}," * 2000 + "{}]", '["\\"' + "[" * 600 + '"]'),
]
"""JSON by RFC 8259, and strings that a hasty reader might stumble over."""


def append(stream: StreamId, expected: int, *payloads: str) -> Append:
    """Return an append of one event a payload."""
    return Append(stream, Version(expected), tuple(new_event(p) for p in payloads))


def record(
    key: str, fingerprint: bytes = b"f", reply: bytes = b"reply", *, ttl_s: int = HOUR_S
) -> IdempotencyRecord:
    """Return the record of a command that was asked for under `key`."""
    return IdempotencyRecord(ClaimKey("acme", "thing", key), fingerprint, reply, ttl_s)


async def commit_one(
    store: EventStore, *appends: Append, by: IdempotencyRecord | None = None
) -> Outcome:
    """Commit a single unit and return its outcome."""
    [outcome] = await store.commit([Unit(appends, by)])
    return outcome


async def payloads(store: EventStore, stream: StreamId) -> list[str]:
    """Return the payloads of a stream, in order."""
    return [event.payload for event in await store.read(stream)]


class EventStoreContract:
    """One subclass an adapter; one method a promise."""

    @pytest.fixture
    def store(self) -> EventStore:
        """Build an empty store."""
        raise NotImplementedError

    # Streams.

    async def test_an_unknown_stream_is_empty(self, store: EventStore) -> None:
        """Loading never raises for a missing stream."""
        loaded = await store.load(A)

        assert (EMPTY, None, ()) == (loaded.version, loaded.snapshot, loaded.events)

    async def test_committing_nothing_is_fine(self, store: EventStore) -> None:
        """An empty batch has no outcomes."""
        assert [] == list(await store.commit([]))

    async def test_events_come_back_as_they_went_in(self, store: EventStore) -> None:
        """Every field, to the byte: spaces, order of keys, unicode, numbers that floats would spoil."""
        text = '{ "b":1.0, "a" : "ü😀\\u0000 \\"", "n":12345678901234567890 }'
        event = NewEvent(
            "0198c5a2-7a5e-7cc3-8a51-3f1d2c4b5a69",
            "thing.happened.v1",
            text,
            {"k": "ü\n'", "x": ""},
        )
        await commit_one(store, Append(A, EMPTY, (event,)))

        [found] = (await store.load(A)).events

        assert (A, 1, event.event_id, event.type, event.payload, dict(event.metadata)) == (
            found.stream,
            found.version,
            found.event_id,
            found.type,
            found.payload,
            dict(found.metadata),
        )
        assert found.recorded_at.tzinfo is not None

    async def test_events_come_back_in_order(self, store: EventStore) -> None:
        """Append order is read order, across commits."""
        await commit_one(store, append(A, 0, '"one"', '"two"'))
        await commit_one(store, append(A, 2, '"three"'))

        loaded = await store.load(A)

        assert ['"one"', '"two"', '"three"'] == [event.payload for event in loaded.events]
        assert [1, 2, 3] == [event.version for event in loaded.events]
        assert loaded.version == 3

    async def test_a_stream_is_read_page_by_page(self, store: EventStore) -> None:
        """`after` and `limit` cut pages that neither overlap nor leave gaps."""
        await commit_one(store, append(A, 0, *(str(n) for n in range(1, 8))))

        pages = [
            [e.version for e in await store.read(A, after=Version(after), limit=3)]
            for after in (0, 3, 6, 7)
        ]

        assert [[1, 2, 3], [4, 5, 6], [7], []] == pages

    async def test_streams_do_not_leak_into_each_other(self, store: EventStore) -> None:
        """A write to one stream is invisible in another, however similar their names."""
        near = stream_id("acme", "thing", "a%")
        await commit_one(store, append(A, 0, '"mine"'))

        assert (await store.load(B)).version == EMPTY
        assert (await store.load(near)).version == EMPTY

    # Compare and set.

    @pytest.mark.parametrize("stale", [0, 1, 3, 7])
    async def test_a_wrong_expectation_conflicts_and_writes_nothing(
        self, store: EventStore, stale: int
    ) -> None:
        """Behind or ahead: both are refused."""
        await commit_one(store, append(A, 0, '"one"', '"two"'))

        outcome = await commit_one(store, append(A, stale, '"late"'), by=record("k"))

        assert outcome == Conflicted()
        assert ['"one"', '"two"'] == await payloads(store, A)
        assert not (await store.load(A, claims=[record("k").claim])).replies

    async def test_of_many_racing_writers_one_wins_each_version(self, store: EventStore) -> None:
        """CAS, under concurrency."""
        outcomes = await asyncio.gather(
            *(commit_one(store, append(A, 0, f'"{n}"'), by=record(f"k{n}")) for n in range(20))
        )

        assert (1, 19) == (outcomes.count(Committed()), outcomes.count(Conflicted()))
        assert 1 == len(await payloads(store, A))

    async def test_a_condition_alone_is_checked_and_writes_nothing(self, store: EventStore) -> None:
        """Append without events: also for a stream that must not exist."""
        await commit_one(store, append(A, 0, '"one"'))

        assert Committed() == await commit_one(store, append(A, 1), by=record("k1"))
        assert Committed() == await commit_one(store, append(B, 0), by=record("k2"))
        assert Conflicted() == await commit_one(store, append(A, 0), by=record("k3"))
        assert Conflicted() == await commit_one(store, append(B, 1), by=record("k4"))
        assert (1, 0) == ((await store.load(A)).version, (await store.load(B)).version)
        assert Committed() == await commit_one(store, append(B, 0, '"first"'))

    # Units.

    async def test_a_unit_over_several_streams_is_all_or_nothing(self, store: EventStore) -> None:
        """The second stream's conflict undoes the first stream's append."""
        await commit_one(store, append(B, 0, '"b1"'))

        refused = await commit_one(
            store, append(A, 0, '"a1"'), append(B, 0, '"b?"'), by=record("k")
        )
        accepted = await commit_one(store, append(A, 0, '"a1"'), append(B, 1, '"b2"'))

        assert (Conflicted(), Committed()) == (refused, accepted)
        assert (['"a1"'], ['"b1"', '"b2"']) == (await payloads(store, A), await payloads(store, B))

    async def test_a_unit_may_depend_on_a_stream_it_does_not_write(self, store: EventStore) -> None:
        """A condition on one stream guards an append to another."""
        await commit_one(store, append(A, 0, '"a1"'))

        assert Conflicted() == await commit_one(store, append(B, 0, '"b1"'), append(A, 0))
        assert Committed() == await commit_one(store, append(B, 0, '"b1"'), append(A, 1))
        assert 1 == (await store.load(A)).version

    async def test_a_batch_has_an_outcome_for_each_unit_in_order(self, store: EventStore) -> None:
        """All four outcomes side by side; units do not affect each other."""
        await commit_one(store, append(A, 0, '"a1"'), by=record("used", reply=b"first"))

        outcomes = await store.commit(
            [
                Unit((append(B, 0, '"b1"'),), record("new")),
                Unit((append(A, 0, '"no"'),), record("conflicting")),
                Unit((append(A, 1, '"no"'),), record("used", reply=b"second")),
                Unit((append(A, 1, '"no"'),), record("used", fingerprint=b"other")),
                Unit((append(C, 0, '"c1"'),)),
            ]
        )

        assert [Committed(), Conflicted(), Replayed(b"first"), Reused(), Committed()] == list(
            outcomes
        )
        assert (['"a1"'], ['"b1"']) == (await payloads(store, A), await payloads(store, B))

    async def test_units_of_one_stream_in_one_batch_follow_each_other(
        self, store: EventStore
    ) -> None:
        """Consecutive expected versions commit together; a break stops what builds on it."""
        outcomes = await store.commit(
            [
                Unit((append(A, 0, '"1"'),), record("k1")),
                Unit((append(A, 1, '"2"', '"3"'),), record("k2")),
                Unit((append(A, 3),), record("k3")),
                Unit((append(A, 3, '"4"'),), record("k4")),
                Unit((append(A, 3, '"no"'),), record("k5")),
                Unit((append(A, 4, '"5"'),)),
            ]
        )

        assert [Committed()] * 4 + [Conflicted()] * 2 == list(outcomes)
        assert [f'"{n}"' for n in range(1, 5)] == await payloads(store, A)

    @pytest.mark.parametrize("other", [1, 2])
    async def test_what_was_decided_on_a_phantom_is_not_committed_even_if_its_version_fits(
        self, store: EventStore, other: int
    ) -> None:
        """Somebody else took exactly the versions that the units before it would have had."""
        await commit_one(store, append(A, 0, *(f'"other {n}"' for n in range(other))))

        outcomes = await store.commit(
            [Unit((append(A, n, f'"phantom {n}"'),), record(f"k{n}")) for n in range(4)]
        )

        assert [Conflicted()] * 4 == list(outcomes)
        assert other == len(await payloads(store, A))

    async def test_what_builds_on_a_replayed_unit_conflicts(self, store: EventStore) -> None:
        """The units before it in the batch stand, those after it were decided on a phantom."""
        await commit_one(store, append(B, 0, '"b"'), by=record("used", reply=b"then"))

        outcomes = await store.commit(
            [
                Unit((append(A, 0, '"1"'),), record("k1")),
                Unit((append(A, 1, '"no"'),), record("used")),
                Unit((append(A, 2, '"no"'),), record("k3")),
            ]
        )

        assert [Committed(), Replayed(b"then"), Conflicted()] == list(outcomes)
        assert ['"1"'] == await payloads(store, A)

    async def test_units_over_common_streams_in_one_batch_follow_each_other(
        self, store: EventStore
    ) -> None:
        """Also when some of them span several streams."""
        outcomes = await store.commit(
            [
                Unit((append(A, 0, '"a1"'), append(B, 0, '"b1"'))),
                Unit((append(B, 1, '"b2"'),)),
                Unit((append(A, 1, '"a2"'), append(B, 2, '"b3"'))),
                Unit((append(A, 1, '"no"'), append(B, 3, '"no"'))),
            ]
        )

        assert [Committed()] * 3 + [Conflicted()] == list(outcomes)
        assert ['"a1"', '"a2"'] == await payloads(store, A)
        assert ['"b1"', '"b2"', '"b3"'] == await payloads(store, B)

    async def test_a_poisoned_unit_fails_alone(self, store: EventStore) -> None:
        """What the database cannot take must not take its neighbours with it."""
        outcomes = await store.commit(
            [
                Unit((append(A, 0, '"good"'),), record("k1")),
                Unit((append(B, 0, "not json"),), record("k2")),
                Unit((append(StreamId("acme/thing/\x00"), 0, '"nul"'),), record("k3")),
                Unit((append(stream_id("acme", "thing", "c"), 0, '"fine"'),), record("k4")),
            ]
        )

        assert [Committed(), Failed, Failed, Committed()] == [
            type(o) if isinstance(o, Failed) else o for o in outcomes
        ]
        assert (['"good"'], []) == (await payloads(store, A), await payloads(store, B))
        claims = [record(k).claim for k in ("k1", "k2", "k4")]
        assert {"k1", "k4"} == {c.key for c in (await store.load(A, claims=claims)).replies}

    @pytest.mark.parametrize("bad", ["\0", "\ud800"])
    async def test_text_that_not_every_database_keeps_is_refused(
        self, store: EventStore, bad: str
    ) -> None:
        """In any field: it would come back cut off, or make the stream unreadable."""
        good = new_event()
        units = [
            Unit((Append(A, EMPTY, (replace(good, event_id=good.event_id + bad),)),)),
            Unit((Append(A, EMPTY, (replace(good, payload=f'"{bad}"'),)),)),
            Unit((Append(A, EMPTY, (replace(good, metadata={bad: "x"}),)),)),
            Unit((Append(A, EMPTY, (replace(good, metadata={"x": bad}),)),)),
            Unit((Append(A, EMPTY, (good,), Snapshot(Version(1), 1, bad)),)),
            Unit((append(A, 0),), record(bad)),
        ]

        outcomes = await store.commit(units)

        assert [Failed] * 6 == [type(outcome) for outcome in outcomes]
        assert 0 == (await store.load(A)).version

    @pytest.mark.parametrize("payload", POISON, ids=range(len(POISON)))
    async def test_what_is_no_json_for_every_database_is_refused_by_each(
        self, store: EventStore, payload: str
    ) -> None:
        """Parsers differ in what they forgive; what one store has must fit into every other."""
        failed, committed = await store.commit(
            [Unit((append(A, 0, payload),), record("k")), Unit((append(B, 0, "1"),))]
        )

        assert isinstance(failed, Failed), failed
        assert ("rejected", "unstorable") == (failed.error.family, failed.error.code)
        assert Committed() == committed
        assert not (await store.load(A, claims=[record("k").claim])).replies

    @pytest.mark.parametrize("payload", ODD, ids=range(len(ODD)))
    async def test_odd_json_is_kept_to_the_byte(self, store: EventStore, payload: str) -> None:
        """Whatever the standard allows, nobody rewrites."""
        assert Committed() == await commit_one(store, append(A, 0, payload))
        assert [payload] == await payloads(store, A)

    @pytest.mark.parametrize(
        "unit",
        [
            Unit((append(StreamId(f"acme/thing/{'ü' * 520}"), 0, "1"),)),
            Unit((append(A, 0, "1"),), record("k" * 1025)),
            Unit((append(A, 0, "1"),), record("k", ttl_s=2**31)),
            Unit((append(A, 0, "1"),), record("k", ttl_s=-1)),
            Unit((append(A, 0, '"' + "x" * UNIT_BYTES_MAX + '"'),)),
            Unit((append(A, 0, "1"),), record("k", reply=b"x" * UNIT_BYTES_MAX)),
        ],
        ids=["stream", "key", "kept too long", "kept before", "events", "reply"],
    )
    async def test_what_is_too_large_fails_alone(self, store: EventStore, unit: Unit) -> None:
        """By the same limits everywhere."""
        failed, committed = await store.commit([unit, Unit((append(B, 0, "1"),))])

        assert isinstance(failed, Failed), failed
        assert ("rejected", Committed()) == (failed.error.family, committed)
        assert [] == await payloads(store, A)

    async def test_what_is_just_small_enough_is_stored(self, store: EventStore) -> None:
        """The limits are those that are told."""
        stream = StreamId("acme/bb/" + "ü" * 508)
        claim = record("k" * 1015, ttl_s=2**31 - 1)
        deep = "[" * 500 + "]" * 500

        assert Committed() == await commit_one(store, append(stream, 0, deep), by=claim)

        loaded = await store.load(stream, claims=[claim.claim])
        assert ([deep], 1) == ([e.payload for e in loaded.events], len(loaded.replies))

    # Callers that do not wait.

    async def test_a_full_queue_refuses_at_once_and_writes_nothing(self, store: EventStore) -> None:
        """What was accepted is committed, what was refused is not, and may come again."""
        committer = GroupCommitter(store, queue_units_max=3, flights_max=1)
        units = [
            Unit((append(stream_id("acme", "thing", f"s{n}"), 0, "1"),), record(f"k{n}"))
            for n in range(10)
        ]

        told = await asyncio.gather(
            *(committer.commit([unit]) for unit in units), return_exceptions=True
        )

        refused = [n for n, outcome in enumerate(told) if isinstance(outcome, Unavailable)]
        assert [3, 4, 5, 6, 7, 8, 9] == refused  # three wait for the flush that they will share
        for n, unit in enumerate(units):
            version = (await store.load(unit.appends[0].stream)).version
            assert (0 if n in refused else 1) == version
        assert [[Committed()]] * 7 == [list(await committer.commit([units[n]])) for n in refused]

    @pytest.mark.parametrize("patience_ms", [0, 0.3, 1, 2, 4, 8])
    async def test_a_caller_that_gives_up_leaves_a_whole_unit_or_nothing(
        self, store: EventStore, patience_ms: float
    ) -> None:
        """Cancelled, or out of time: asking again with the same key settles what became of it."""
        committer = GroupCommitter(store)
        units = [
            Unit(
                tuple(append(stream_id("acme", "thing", f"{n}{side}"), 0, "1") for side in "ab"),
                record(f"k{n}", reply=b"then"),
            )
            for n in range(8)
        ]
        callers = [asyncio.create_task(committer.commit([unit])) for unit in units[:4]]
        callers += [
            asyncio.create_task(asyncio.wait_for(committer.commit([unit]), patience_ms / 1000))
            for unit in units[4:]
        ]
        await asyncio.sleep(patience_ms / 1000)
        for caller in callers[:4]:
            caller.cancel()
        told = await asyncio.gather(*callers, return_exceptions=True)
        await committer.drain()

        for unit, heard in zip(units, told, strict=True):
            versions = [(await store.load(a.stream)).version for a in unit.appends]
            assert versions in ([0, 0], [1, 1])
            assert heard != [Committed()] or versions == [1, 1]
            [settled] = await store.commit([unit])
            assert settled == (Replayed(b"then") if versions == [1, 1] else Committed())

    # Idempotency.

    async def test_a_key_used_for_other_content_is_refused_and_writes_nothing(
        self, store: EventStore
    ) -> None:
        """Also when the version would fit; and the reply from then stays."""
        await commit_one(store, append(A, 0, '"1"'), by=record("k", reply=b"then"))

        assert Reused() == await commit_one(store, append(A, 1, '"2"'), by=record("k", b"other"))

        loaded = await store.load(A, claims=[record("k").claim])
        assert (1, [b"then"]) == (loaded.version, [r.reply for r in loaded.replies.values()])

    async def test_the_stored_reply_comes_back_to_the_byte(self, store: EventStore) -> None:
        """Whatever bytes it has; by commit and by load."""
        reply = bytes(range(256))
        await commit_one(store, append(A, 0, '"one"'), by=record("k", reply=reply))

        again = await commit_one(store, append(A, 1, '"two"'), by=record("k", reply=b"other"))
        loaded = await store.load(B, claims=[record("k").claim, record("unknown").claim])

        assert Replayed(reply) == again
        assert {record("k").claim: (b"f", reply)} == {
            claim: (found.fingerprint, found.reply) for claim, found in loaded.replies.items()
        }
        assert ['"one"'] == await payloads(store, A)

    async def test_a_key_belongs_to_its_tenant_and_scope(self, store: EventStore) -> None:
        """The same key elsewhere is another key."""
        mine = record("k")
        for claim in (
            ClaimKey("acme", "thing", "k"),
            ClaimKey("rival", "thing", "k"),
            ClaimKey("acme", "x", "k"),
        ):
            other = IdempotencyRecord(claim, mine.fingerprint, claim.tenant.encode(), HOUR_S)
            stream = stream_id(claim.tenant, claim.scope, "a")
            assert Committed() == await commit_one(store, append(stream, 0, "1"), by=other)

    async def test_concurrent_twins_execute_once(self, store: EventStore) -> None:
        """Twenty at once, on streams of their own: one effect, one reply for all."""
        streams = [stream_id("acme", "thing", f"s{n}") for n in range(20)]
        outcomes = await asyncio.gather(
            *(
                commit_one(store, append(s, 0, "1"), by=record("k", reply=s.encode()))
                for s in streams
            )
        )

        [winner] = [s for s, o in zip(streams, outcomes, strict=True) if o == Committed()]
        assert 19 == outcomes.count(Replayed(winner.encode()))
        assert 1 == sum([len(await payloads(store, s)) for s in streams])

    async def test_twins_in_one_batch_execute_once(self, store: EventStore) -> None:
        """The second finds the first."""
        outcomes = await store.commit(
            [
                Unit((append(A, 0, "1"),), record("k", reply=b"first")),
                Unit((append(B, 0, "1"),), record("k", reply=b"second")),
                Unit((append(B, 0, "2"),), record("k", fingerprint=b"other")),
            ]
        )

        assert [Committed(), Replayed(b"first"), Reused()] == list(outcomes)
        assert [] == await payloads(store, B)

    async def test_an_expired_key_is_as_good_as_new(self, store: EventStore) -> None:
        """After its time a key may be used again, and it is cleaned up."""
        await commit_one(store, append(A, 0, '"1"'), by=record("k", reply=b"old", ttl_s=0))
        await commit_one(store, append(A, 1, '"2"'), by=record("other", ttl_s=HOUR_S))

        assert not (await store.load(A, claims=[record("k").claim])).replies
        again = await commit_one(store, append(A, 2, '"3"'), by=record("k", b"g", b"new"))
        assert Committed() == again
        found = (await store.load(A, claims=[record("k").claim])).replies
        assert [b"new"] == [reply.reply for reply in found.values()]

    async def test_expired_keys_are_forgotten_and_others_kept(self, store: EventStore) -> None:
        """`forget_expired` is bounded and says how many it deleted."""
        for n in range(5):
            await commit_one(store, by=record(f"old{n}", ttl_s=0))
        await commit_one(store, by=record("young"))

        async def three_are_gone() -> bool:
            return 3 == await store.forget_expired(limit=3)

        await eventually(three_are_gone)
        assert [2, 0] == [await store.forget_expired(limit=3) for _ in range(2)]
        assert (await store.load(A, claims=[record("young").claim])).replies

    # Snapshots.

    async def test_a_snapshot_shortens_the_tail(self, store: EventStore) -> None:
        """One load: the snapshot and the events after it."""
        snapshot = Snapshot(Version(2), 1, '{"total":2}')
        first = append(A, 0, '"1"', '"2"')
        await commit_one(store, Append(A, EMPTY, first.events, snapshot))
        await commit_one(store, append(A, 2, '"3"'))

        loaded = await store.load(A, snapshot_schema=1)

        assert (3, snapshot) == (loaded.version, loaded.snapshot)
        assert ['"3"'] == [event.payload for event in loaded.events]

    @pytest.mark.parametrize("schema", [None, 2])
    async def test_a_snapshot_of_another_schema_is_ignored(
        self, store: EventStore, schema: int | None
    ) -> None:
        """Then the whole stream is the tail."""
        first = append(A, 0, '"1"', '"2"')
        await commit_one(store, Append(A, EMPTY, first.events, Snapshot(Version(2), 1, "{}")))

        loaded = await store.load(A, snapshot_schema=schema)

        assert (2, None, 2) == (loaded.version, loaded.snapshot, len(loaded.events))

    # What could not be published.

    @pytest.mark.parametrize("what", ["payload", "metadata", "stream", "type"])
    async def test_what_the_broker_would_not_take_is_refused_and_changes_nothing(
        self, store: EventStore, what: str
    ) -> None:
        """Found out by whoever asks for it, and not by the relay; its neighbours are committed."""
        long = "x" * 600_000
        event = replace(
            new_event(f'"{long}"' if what == "payload" else "1"),
            metadata={"correlation": long if what == "metadata" else "c"},
            type=f"thing.{long if what == 'type' else 'happened'}.v1",
        )
        stream = stream_id("acme", "thing", long) if what == "stream" else A
        good = Unit((append(B, 0, "1"),))

        refused, committed = await store.commit([Unit((Append(stream, EMPTY, (event,)),)), good])

        assert isinstance(refused, Failed)
        assert isinstance(refused.error, EventTooLarge | Unstorable)  # no stream has such a name
        assert Committed() == committed
        assert [] == await payloads(store, A)

    async def test_the_greatest_payload_that_is_allowed_is_stored(self, store: EventStore) -> None:
        """To the byte."""
        text = '"' + "x" * (EVENT_BYTES_MAX - 2) + '"'

        assert Committed() == await commit_one(store, append(A, 0, text))

        assert [text] == await payloads(store, A)

    # Under load.

    async def test_many_writers_leave_contiguous_streams(self, store: EventStore) -> None:
        """What was acknowledged is stored, once, in order; nothing else is."""
        streams = [stream_id("acme", "thing", f"s{n}") for n in range(3)]
        acknowledged: set[str] = set()

        async def write(writer: int) -> None:
            for n in range(12):
                name = f'"{writer}-{n}"'
                stream = streams[(writer + n) % 3]
                while True:
                    version = (await store.load(stream)).version
                    outcome = await commit_one(store, append(stream, version, name))
                    if outcome == Committed():
                        acknowledged.add(name)
                        break
                    assert outcome == Conflicted()

        await asyncio.gather(*(write(n) for n in range(8)))

        stored: list[str] = []
        for stream in streams:
            events: Sequence[str] = await payloads(store, stream)
            loaded = await store.load(stream)
            assert list(range(1, len(events) + 1)) == [e.version for e in loaded.events]
            stored += events
        assert sorted(acknowledged) == sorted(stored)
