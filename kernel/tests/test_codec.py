"""The stored event is the contract event, for as long as there are events of that shape."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict

from flotilla import ContractCodec, Corrupt
from flotilla.codec import Json, UnknownEventType
from flotilla.store import RecordedEvent, StreamId, Version

STREAM = StreamId("acme/account/7")


class Opened(BaseModel):
    """The third shape: money has a currency by now, and an owner is required."""

    type: ClassVar[str] = "account.opened.v3"
    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: str
    limit: Decimal
    currency: str
    opened_at: datetime


class Closed(BaseModel):
    type: ClassVar[str] = "account.closed.v1"

    reason: str


def add_owner(data: Json) -> Json:
    return data | {"owner": "unknown"}


def add_currency(data: Json) -> Json:
    return {**data, "currency": "EUR", "limit": data["limit"]}


UPCASTERS = {
    "account.opened.v1": ("account.opened.v2", add_owner),
    "account.opened.v2": ("account.opened.v3", add_currency),
}
CODEC: ContractCodec[Opened | Closed] = ContractCodec([Opened, Closed], UPCASTERS)


def stored(kind: str, payload: str, metadata: Mapping[str, str] | None = None) -> RecordedEvent:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return RecordedEvent(STREAM, Version(12), "id", kind, payload, metadata or {}, at)


def test_what_is_written_is_read() -> None:
    event = Opened(
        owner="ü\u0000'\"",
        limit=Decimal("12345678901234567890.10"),
        currency="EUR",
        opened_at=datetime(2026, 1, 1, 12, tzinfo=UTC),
    )

    kind, payload = CODEC.encode(event)

    assert "account.opened.v3" == kind
    assert event == CODEC.decode(stored(kind, payload))


@pytest.mark.parametrize(
    ("kind", "payload", "owner"),
    [
        ("account.opened.v1", '{"limit": "5", "opened_at": "2020-01-01T00:00:00Z"}', "unknown"),
        (
            "account.opened.v2",
            '{"limit": "5", "opened_at": "2020-01-01T00:00:00Z", "owner": "ada"}',
            "ada",
        ),
    ],
)
def test_every_historic_shape_is_read_as_the_current_one(
    kind: str, payload: str, owner: str
) -> None:
    since = datetime(2020, 1, 1, tzinfo=UTC)

    assert Opened(owner=owner, limit=Decimal(5), currency="EUR", opened_at=since) == CODEC.decode(
        stored(kind, payload)
    )


def test_an_upcaster_that_leads_nowhere_is_refused_at_once() -> None:
    with pytest.raises(
        ValueError, match=r"account\.opened\.v1 leads to account\.opened\.v2, which"
    ):
        ContractCodec([Opened], {"account.opened.v1": ("account.opened.v2", add_owner)})


@pytest.mark.parametrize("ring", [["a.v1"], ["a.v1", "a.v2"], ["a.v1", "a.v2", "a.v3"]])
def test_upcasters_that_go_round_in_circles_are_refused_at_once(ring: list[str]) -> None:
    """Reading would never end."""
    steps = {old: (new, add_owner) for old, new in zip(ring, ring[1:] + ring[:1], strict=True)}

    with pytest.raises(ValueError, match=r"round in circles: a\.v1 → "):
        ContractCodec([Opened], steps)


@pytest.mark.parametrize(
    ("kind", "payload", "why"),
    [
        ("account.closed.v1", "{}", "reason"),
        ("account.closed.v1", '{"reason": 7}', "reason"),
        ("account.closed.v1", "not json", "Invalid JSON"),
        ("account.closed.v1", "[]", "Input should be an object"),
        ("account.opened.v1", "not json", "Invalid JSON"),
        ("account.opened.v1", "[]", "Input should be an object"),
        ("account.opened.v1", "{}", "limit"),
        ("account.opened.v2", '{"limit": "a lot", "opened_at": 0, "owner": "a"}', "limit"),
    ],
)
def test_what_cannot_be_read_is_corrupt_and_says_where_it_is(
    kind: str, payload: str, why: str
) -> None:
    with pytest.raises(Corrupt) as caught:
        CODEC.decode(stored(kind, payload))

    assert f"acme/account/7@12: cannot read {kind}: " in str(caught.value)
    assert why in str(caught.value)


def test_whatever_an_upcaster_trips_over_is_corrupt_too() -> None:
    """It was written for what was stored then; this was stored as well."""

    def split_name(data: Json) -> Json:
        return data | {"reason": str(data["name"]).split(" ")[1]}

    codec = ContractCodec([Closed], {"account.ended.v1": ("account.closed.v1", split_name)})

    assert Closed(reason="b") == codec.decode(stored("account.ended.v1", '{"name": "a b"}'))
    with pytest.raises(Corrupt, match=r"acme/account/7@12: cannot read account\.ended\.v1"):
        codec.decode(stored("account.ended.v1", '{"name": "a"}'))


def test_a_model_without_a_type_is_refused() -> None:
    class Nameless(BaseModel):
        n: int

    with pytest.raises(TypeError, match="Nameless needs a ClassVar `type`"):
        ContractCodec([Nameless])


@pytest.mark.parametrize("kind", ["account.renamed.v1", "account.opened.v4"])
@pytest.mark.parametrize("payload", ["{}", "not even json"])
def test_a_type_of_a_newer_version_is_told_with_its_cure(kind: str, payload: str) -> None:
    """Nothing is damaged, so it is not `Corrupt`: a replica that knows the type can answer."""
    with pytest.raises(UnknownEventType) as caught:
        CODEC.decode(stored(kind, payload))

    assert ("unavailable", "event-type-unknown") == (caught.value.family, caught.value.code)
    assert (
        f"acme/account/7@12: {kind} was written by a newer version, which this one cannot decide on:"
        " deploy the version that knows it, or, if it matters to no decision, name it in the codec's"
        " `ignored`"
    ) == str(caught.value)


def test_what_is_ignored_is_neither_read_nor_upcast() -> None:
    codec = ContractCodec([Closed], ignored=("account.annotated.v1",))

    assert codec.ignores("account.annotated.v1")
    assert not codec.ignores("account.closed.v1")
    assert not codec.ignores("account.annotated.v2")


def test_a_type_is_read_or_ignored_and_never_both() -> None:
    for both in (Opened.type, "account.opened.v1"):
        with pytest.raises(ValueError, match=f"read or ignored, not both: {both}"):
            ContractCodec([Opened], UPCASTERS, ignored=(both,))


def test_every_link_of_a_chain_is_checked_at_start() -> None:
    """A gap anywhere, also far from its beginning, stops the service before it reads anything."""
    chain = {
        "account.opened.v0": ("account.opened.v1", add_owner),
        "account.opened.v1": ("account.opened.v2", add_owner),
    }
    with pytest.raises(
        ValueError, match=r"account\.opened\.v1 leads to account\.opened\.v2, which"
    ):
        ContractCodec([Opened], chain)
    ContractCodec([Opened], chain | {"account.opened.v2": (Opened.type, add_owner)})


@pytest.mark.parametrize(
    "kind", ["opened", "counter.opened", "counter.opened.one", "a.b.c.v1", "a.b.v0"]
)
def test_a_type_that_could_not_be_published_is_refused_at_the_start(kind: str) -> None:
    """Aggregate and event name the subject, and the version is read from the end."""

    class Odd(BaseModel):
        type: ClassVar[str] = kind

    with pytest.raises(ValueError, match="is not <aggregate>"):
        ContractCodec([Odd])
