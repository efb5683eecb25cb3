import httpx
import pytest

from flotilla.bus import Answer, Request
from flotilla.buses.local import LocalBus
from flotilla.errors import Conflict, Corrupt, Rejected, Unavailable
from svc_web_bff.testing import InMemoryFleet

INCREMENT = "/v1/counters/visits/increment"
KEY = {"Idempotency-Key": "k1"}


async def test_a_command_answers_with_the_reply_its_version_and_a_consistency_token(
    client: httpx.AsyncClient,
) -> None:
    response = await client.post(INCREMENT, json={"by": 5}, headers=KEY)
    assert response.status_code == 200
    assert response.json() == {"counter_id": "visits", "value": 5, "version": 2}
    assert response.headers["etag"] == '"2"'
    assert response.headers["x-consistency-token"] == "acme/counter/visits@2"
    assert response.headers["cache-control"] == "no-store"
    assert "idempotency-replayed" not in response.headers


async def test_a_repeated_command_gets_the_same_bytes_and_is_done_once(
    client: httpx.AsyncClient,
) -> None:
    first = await client.post(INCREMENT, json={"by": 5}, headers=KEY)
    await client.post(INCREMENT, json={"by": 1}, headers={"Idempotency-Key": "k2"})
    again = await client.post(INCREMENT, json={"by": 5}, headers=KEY)
    assert again.content == first.content
    assert b": " in again.content, "the bytes of the service, not ours"
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["etag"] == first.headers["etag"] == '"2"'
    assert again.headers["x-consistency-token"] == first.headers["x-consistency-token"]
    assert (await client.get("/v1/counters/visits")).json()["value"] == 6


async def test_a_key_that_was_used_for_something_else_is_refused(client: httpx.AsyncClient) -> None:
    await client.post(INCREMENT, json={"by": 5}, headers=KEY)
    response = await client.post(INCREMENT, json={"by": 6}, headers=KEY)
    assert (response.status_code, response.json()["code"]) == (422, "idempotency-key-reused")


@pytest.mark.parametrize("quoted", ['"k1"', "k1"])
async def test_the_quoted_form_of_a_key_is_the_same_key(
    client: httpx.AsyncClient, fleet: InMemoryFleet, quoted: str
) -> None:
    await client.post(INCREMENT, json={"by": 5}, headers={"Idempotency-Key": quoted})
    assert fleet.requests[0].context.idempotency_key == "k1"


@pytest.mark.parametrize(
    "key", ["a b", '"a', '"a";x', "é", "x" * 256, '""', '"a b"', "a\tb", '"a"b"']
)
async def test_what_cannot_be_a_key_is_refused(
    client: httpx.AsyncClient, fleet: InMemoryFleet, key: str
) -> None:
    response = await client.post(
        INCREMENT, json={"by": 5}, headers=[(b"Idempotency-Key", key.encode("latin-1"))]
    )
    assert (response.status_code, response.json()["code"]) == (400, "idempotency-key-invalid")
    assert not fleet.requests


@pytest.mark.parametrize("key", ["k", "x" * 255, "!~", r'"a\"b"', "a,b"])
async def test_what_can_be_a_key_is_taken(client: httpx.AsyncClient, key: str) -> None:
    response = await client.post(INCREMENT, json={"by": 5}, headers={"Idempotency-Key": key})
    assert response.status_code == 200


async def test_a_command_without_a_key_is_refused(client: httpx.AsyncClient) -> None:
    for headers in ({}, {"Idempotency-Key": ""}):
        response = await client.post(INCREMENT, json={"by": 5}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "idempotency-key-missing")


async def test_if_match_makes_a_command_depend_on_a_version(client: httpx.AsyncClient) -> None:
    only_new = {"Idempotency-Key": "a", "If-Match": '"0"'}
    assert (await client.post(INCREMENT, json={"by": 5}, headers=only_new)).status_code == 200
    stale = {"Idempotency-Key": "b", "If-Match": '"1"'}
    response = await client.post(INCREMENT, json={"by": 5}, headers=stale)
    assert (response.status_code, response.json()["code"]) == (412, "version-mismatch")
    current = {"Idempotency-Key": "c", "If-Match": '"2"'}
    assert (await client.post(INCREMENT, json={"by": 5}, headers=current)).status_code == 200
    any_version = {"Idempotency-Key": "d", "If-Match": "*"}
    assert (await client.post(INCREMENT, json={"by": 5}, headers=any_version)).status_code == 200


@pytest.mark.parametrize(
    "value", ["7", 'W/"7"', '"7", "8"', '"x"', '""', '"-1"', '"07"', f'"{10**15}9"', '"7" ', "**"]
)
async def test_an_if_match_that_is_no_etag_of_ours_is_refused(
    client: httpx.AsyncClient, value: str
) -> None:
    if value.endswith(" "):
        value += '"'
    response = await client.post(INCREMENT, json={"by": 5}, headers=KEY | {"If-Match": value})
    assert (response.status_code, response.json()["code"]) == (400, "if-match-invalid")
    assert response.json()["errors"][0]["pointer"] == "header:if-match"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("X-Tenant-Id", "acme", "tenant-invalid"),
        ("Idempotency-Key", "k1", "idempotency-key-invalid"),
        ("If-Match", '"1"', "if-match-invalid"),
    ],
)
async def test_a_header_that_may_come_once_is_refused_twice(
    client: httpx.AsyncClient, fleet: InMemoryFleet, name: str, value: str, code: str
) -> None:
    once = {"X-Tenant-Id": "acme", "Idempotency-Key": "k1", "Content-Type": "application/json"}
    del client.headers["X-Tenant-Id"]
    headers = [*once.items(), (name, value)] + ([(name, value)] if name not in once else [])
    response = await client.post(INCREMENT, content=b'{"by":5}', headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, code)
    assert not fleet.requests


@pytest.mark.parametrize("body", [b"", b"{}", b" {} "])
async def test_reset_needs_no_body(client: httpx.AsyncClient, body: bytes) -> None:
    await client.post(INCREMENT, json={"by": 5}, headers=KEY)
    headers = {"Idempotency-Key": "k2"}
    if body:
        headers["Content-Type"] = "application/json; charset=UTF-8"
    response = await client.post("/v1/counters/visits/reset", content=body, headers=headers)
    assert (response.status_code, response.json()["value"]) == (200, 0)


async def test_decrement_counts_down(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/counters/a/decrement", json={"by": 3}, headers=KEY)
    assert response.json()["value"] == -3


async def test_the_services_are_told_everything_they_need(
    client: httpx.AsyncClient, fleet: InMemoryFleet
) -> None:
    headers = KEY | {"If-Match": '"0"', "X-Correlation-Id": "shop-42"}
    response = await client.post(INCREMENT, json={"by": 5}, headers=headers)
    assert response.headers["x-correlation-id"] == "shop-42"
    (request,) = fleet.requests
    assert request.subject == "cmd.counter.increment"
    assert request.body == b'{"counter_id":"visits","by":5}'
    context = request.context
    assert (context.tenant, context.correlation_id) == ("acme", "shop-42")
    assert (context.idempotency_key, context.expected_version) == ("k1", 0)
    assert context.timeout_s == 5


async def test_a_correlation_id_that_looks_like_none_is_replaced(client: httpx.AsyncClient) -> None:
    for bad in ("a b", "x" * 129, "<script>"):
        response = await client.get("/healthz", headers={"X-Correlation-Id": bad})
        assert len(response.headers["x-correlation-id"]) == 36


@pytest.mark.parametrize(
    ("failure", "status", "code", "retry_after"),
    [
        (Conflict(), 409, "conflict", "1"),
        (Unavailable("postgresql://user:secret@db"), 503, "unavailable", "1"),
        (Corrupt("stream secret is damaged"), 500, "corrupt", None),
        (RuntimeError("secret"), 500, "internal", None),
        (Unavailable("the handler of secret failed", code="internal"), 500, "internal", None),
        (
            Rejected("no", code="counter-upper-bound-passed"),
            409,
            "counter-upper-bound-passed",
            None,
        ),
        (Rejected("too big", code="event-too-large"), 413, "event-too-large", None),
        (Rejected("tomorrow's rule", code="rule-of-tomorrow"), 409, "conflict", None),
    ],
)
async def test_every_family_of_failure_has_its_status(
    *,
    client: httpx.AsyncClient,
    fleet: InMemoryFleet,
    failure: Exception,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    fleet.failure = failure
    response = await client.post(INCREMENT, json={"by": 5}, headers=KEY)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers.get("retry-after") == retry_after
    assert "secret" not in response.text


async def test_a_reply_that_is_not_one_is_our_fault(
    client: httpx.AsyncClient, bus: LocalBus
) -> None:
    async def broken(_request: Request) -> Answer:
        return Answer(b"[]")

    await bus.serve("cmd.counter.increment", broken)
    response = await client.post(INCREMENT, json={"by": 5}, headers=KEY)
    assert (response.status_code, response.json()["code"]) == (500, "internal")
