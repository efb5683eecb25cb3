"""From bytes that anybody may send to a claim that only the same command has."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from flotilla.aggregate import Claim
from flotilla.bus import Context, Request
from flotilla.commands import IDEMPOTENCY_KEY_LENGTH_MAX, claim_for, event_metadata, parse
from flotilla.errors import Rejected
from flotilla.store import ClaimKey


class Address(BaseModel):
    model_config = ConfigDict(extra="forbid")

    city: str


class Move(BaseModel):
    model_config = ConfigDict(extra="forbid")

    by: int = Field(gt=0)
    to: list[Address] = []


CONTEXT = Context(tenant="acme", correlation_id="c", idempotency_key="k")


def asked(body: bytes, context: Context = CONTEXT, subject: str = "cmd.thing.move") -> Request:
    return Request(subject, body, context)


def claim(body: bytes, context: Context = CONTEXT, **subject: str) -> Claim:
    request = asked(body, context, **subject)
    return claim_for(request, parse(Move, request), scope="thing", ttl_s=60)


def test_a_body_is_parsed() -> None:
    assert Move(by=5) == parse(Move, asked(b'{"by": 5}'))


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "the body: "),
        (b"{", "the body: "),
        (b"\xff", "the body: "),
        (b"[]", "the body: "),
        (b"[" * 100_000, "the body: "),
        (b"{}", "by: "),
        (b'{"by": 0}', "by: "),
        (b'{"by": "much"}', "by: "),
        (b'{"by": 1, "x": 1}', "x: "),
        (b'{"by": 1, "to": [{"city": "a"}, {"city": 7}]}', "to/1/city: "),
    ],
)
def test_what_is_no_command_is_rejected_and_says_which_field(body: bytes, where: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse(Move, asked(body))

    assert "invalid-request" == caught.value.code
    assert str(caught.value).startswith(where)


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: f'{{"by": {text}'.encode()))
def test_no_body_is_anything_but_a_command_or_a_refusal(body: bytes) -> None:
    try:
        assert isinstance(parse(Move, asked(body)), Move)
    except Rejected as refusal:
        assert str(refusal)


def test_what_was_sent_is_not_sent_back() -> None:
    """It may be a secret in the wrong field; refusals are logged."""
    with pytest.raises(Rejected) as caught:
        parse(Move, asked(b'{"by": "hunter2"}'))

    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_claim_belongs_to_a_tenant_and_a_scope() -> None:
    found = claim(b'{"by": 5}')

    assert (ClaimKey("acme", "thing", "k"), 60) == (found.key, found.ttl_s)
    assert "rival" == claim(b'{"by": 5}', replace(CONTEXT, tenant="rival")).key.tenant


@pytest.mark.parametrize(
    "same", [b'{"by":5}', b' { "by" : 5.0, "to": [] }\n', b'{"by": "5"}', b'{"to": [], "by": 5}']
)
def test_what_means_the_same_has_the_same_fingerprint(same: bytes) -> None:
    assert claim(b'{"by": 5}') == claim(same)


def test_what_means_something_else_has_another_fingerprint() -> None:
    others = [
        claim(b'{"by": 6}'),
        claim(b'{"by": 5, "to": [{"city": "a"}]}'),
        claim(b'{"by": 5}', subject="cmd.thing.remove"),
    ]

    assert 4 == len({c.fingerprint for c in (claim(b'{"by": 5}'), *others)})


def test_who_asks_does_not_change_what_is_asked() -> None:
    """A retry comes from elsewhere, later, in another trace."""
    retried = replace(CONTEXT, correlation_id="d", traceparent="00-1", timeout_s=1.0)

    assert claim(b'{"by": 5}') == claim(b'{"by": 5}', retried)


@pytest.mark.parametrize("key", [None, ""])
def test_a_command_without_a_key_is_rejected(key: str | None) -> None:
    with pytest.raises(Rejected) as caught:
        claim(b'{"by": 5}', replace(CONTEXT, idempotency_key=key))

    assert "idempotency-key-missing" == caught.value.code


def test_a_key_has_a_limit() -> None:
    longest = "k" * IDEMPOTENCY_KEY_LENGTH_MAX
    assert longest == claim(b'{"by": 5}', replace(CONTEXT, idempotency_key=longest)).key.key

    with pytest.raises(Rejected) as caught:
        claim(b'{"by": 5}', replace(CONTEXT, idempotency_key=longest + "k"))

    assert "idempotency-key-invalid" == caught.value.code


def test_events_carry_what_is_known_of_their_request_and_no_more() -> None:
    whole = replace(CONTEXT, causation_id="cause", traceparent="00-1")

    assert {"correlation": "c"} == event_metadata(CONTEXT)
    assert {} == event_metadata(Context(tenant="acme", correlation_id=""))
    assert {"correlation": "c", "causation": "cause", "traceparent": "00-1"} == event_metadata(
        whole
    )
