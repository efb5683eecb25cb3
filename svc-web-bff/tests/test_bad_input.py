import json
from collections.abc import AsyncIterator

import httpx
import pytest

from svc_web_bff.testing import InMemoryFleet

INCREMENT = "/v1/counters/visits/increment"
JSON = {"Idempotency-Key": "k1", "Content-Type": "application/json"}


async def refused(
    client: httpx.AsyncClient, fleet: InMemoryFleet, body: bytes, path: str = INCREMENT
) -> tuple[int, str, list[str]]:
    response = await client.post(path, content=body, headers=JSON)
    assert not fleet.requests, "what is not valid must reach nobody"
    problem = response.json()
    return response.status_code, problem["code"], [e["pointer"] for e in problem["errors"]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"by":}',
        b'{"by":5}{',
        b'{"by":NaN}',
        b'{"by":Infinity}',
        b'{"by":-Infinity}',
        b'{"by":05}',
        b"{'by':5}",
        b'\xef\xbb\xbf{"by":5}',
        b'{"by":\xff}',
        '{"by":5}'.encode("utf-16"),
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"by":5,}',
        b"\x00",
        b"nul",
    ],
)
async def test_what_is_not_json_is_malformed(
    client: httpx.AsyncClient, fleet: InMemoryFleet, body: bytes
) -> None:
    assert await refused(client, fleet, body) == (400, "malformed-json", [])


@pytest.mark.parametrize(
    "by",
    [
        "0",
        "-1",
        "-0",
        "1000000001",
        "1.0",
        "1e3",
        "1e400",
        "-1e400",
        '"5"',
        "true",
        "null",
        "[5]",
        "{}",
        "9" * 10_000,
        "-" + "9" * 10_000,
        "0.5",
    ],
)
async def test_by_must_be_a_positive_integer_up_to_a_billion(
    client: httpx.AsyncClient, fleet: InMemoryFleet, by: str
) -> None:
    body = b'{"by":' + by.encode() + b"}"
    assert await refused(client, fleet, body) == (422, "invalid-request", ["#/by"])


@pytest.mark.parametrize("body", [b"[]", b"5", b'"by"', b"null", b"true", b"1.5", b'[{"by":5}]'])
async def test_the_body_must_be_an_object(
    client: httpx.AsyncClient, fleet: InMemoryFleet, body: bytes
) -> None:
    assert await refused(client, fleet, body) == (422, "invalid-request", ["#"])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"by":5,"colour":"red"}', "#/colour"),
        (b'{"by":5,"counter_id":"other"}', "#/counter_id"),
        (b'{"by":5,"a/b~c":1}', "#/a~1b~0c"),
        (b'{"by":5,"by":5}', "#/by"),
        (b'{"by":5,"\\u0062y":5}', "#/by"),
        (b'{"by":5,"\\ud800":1}', "#/"),
        (b'{"by":5,"":1}', "#/"),
        (b"{}", "#/by"),
    ],
)
async def test_a_field_that_is_wrong_is_named(
    client: httpx.AsyncClient, fleet: InMemoryFleet, body: bytes, pointer: str
) -> None:
    assert await refused(client, fleet, body) == (422, "invalid-request", [pointer])


async def test_reset_takes_no_fields(client: httpx.AsyncClient, fleet: InMemoryFleet) -> None:
    found = await refused(client, fleet, b'{"by":5}', "/v1/counters/visits/reset")
    assert found == (422, "invalid-request", ["#/by"])


async def test_everything_that_is_wrong_is_said_at_once_but_not_endlessly(
    client: httpx.AsyncClient, fleet: InMemoryFleet
) -> None:
    status, _, pointers = await refused(client, fleet, b'{"x":1}', "/v1/counters/a*b/increment")
    assert (status, set(pointers)) == (422, {"path:counter_id", "#/by", "#/x"})
    many = json.dumps({f"x{n}": 1 for n in range(1000)}).encode()
    _, _, pointers = await refused(client, fleet, many)
    assert len(pointers) == 10


@pytest.mark.parametrize(
    "counter_id",
    [
        "...",
        "*",
        ">",
        "a b",
        "%20",
        "%00",
        "%0d%0aX-Evil:1",
        "%ff",
        "é",
        "💥",
        "a:b",
        "x" * 65,
        "%c0%ae",
        *("a%20", "%2E%2E", "a@1", "a;b", "$", "<script>"),
    ],
)
async def test_an_id_that_cannot_be_one_is_refused(
    client: httpx.AsyncClient, fleet: InMemoryFleet, counter_id: str
) -> None:
    found = await refused(client, fleet, b'{"by":5}', f"/v1/counters/{counter_id}/increment")
    assert found == (422, "invalid-request", ["path:counter_id"])
    response = await client.get(f"/v1/counters/{counter_id}")
    assert response.status_code == 422


@pytest.mark.parametrize("counter_id", ["a%2Fb", "a%2fincrement", "x" * 10_000, "..%2f..", "a%2F"])
async def test_a_path_that_is_a_trick_is_not_found(
    client: httpx.AsyncClient, fleet: InMemoryFleet, counter_id: str
) -> None:
    for path in (f"/v1/counters/{counter_id}", f"/v1/counters/{counter_id}/increment"):
        status, code, _ = await refused(client, fleet, b'{"by":5}', path)
        assert (status, code) == (404, "route-not-found")


@pytest.mark.parametrize("counter_id", ["a", "..a", "A.b_c-9", "x" * 64, "%61", "increment", "-"])
async def test_an_id_that_can_be_one_is_taken(client: httpx.AsyncClient, counter_id: str) -> None:
    path = f"/v1/counters/{counter_id}/increment"
    assert (await client.post(path, content=b'{"by":5}', headers=JSON)).status_code == 200


@pytest.mark.parametrize("tenant", ["a/b", "a b", "..", "*", "é", "x" * 65, "a,b", ">"])
async def test_what_cannot_be_a_tenant_is_refused(
    client: httpx.AsyncClient, fleet: InMemoryFleet, tenant: str
) -> None:
    response = await client.get(
        "/v1/counters", headers=[(b"x-tenant-id", tenant.encode("latin-1"))]
    )
    assert (response.status_code, response.json()["code"]) == (400, "tenant-invalid")
    assert not fleet.requests


async def test_a_request_without_a_tenant_is_refused(client: httpx.AsyncClient) -> None:
    del client.headers["X-Tenant-Id"]
    for path in ("/v1/counters", "/v1/counters/a", "/v1/counters/a/history"):
        response = await client.get(path)
        assert (response.status_code, response.json()["code"]) == (400, "tenant-missing")


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "",
        "application/json; charset=latin-1",
        "application/jsonx",
        "application/x-www-form-urlencoded",
        "json",
        "application/json;;x",
        "multipart/form-data",
    ],
)
async def test_other_media_types_are_refused(client: httpx.AsyncClient, content_type: str) -> None:
    headers = {**JSON, "Content-Type": content_type}
    response = await client.post(INCREMENT, content=b'{"by":5}', headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    "value", ['application/json; charset="utf-8"', "Application/JSON;charset=UTF-8"]
)
async def test_json_may_say_that_it_is_utf_8(client: httpx.AsyncClient, value: str) -> None:
    headers = {**JSON, "Content-Type": value}
    response = await client.post(INCREMENT, content=b'{"by":5}', headers=headers)
    assert response.status_code == 200


async def test_a_body_above_the_limit_is_refused(
    client: httpx.AsyncClient, fleet: InMemoryFleet
) -> None:
    just = b'{"by":5}' + b" " * (65_536 - 8)
    assert await refused(client, fleet, just + b" ") == (413, "body-too-large", [])
    assert (await client.post(INCREMENT, content=just, headers=JSON)).status_code == 200


async def test_an_endless_body_is_not_read_to_its_end(
    client: httpx.AsyncClient, fleet: InMemoryFleet
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 8192

    response = await client.post(INCREMENT, content=endless(), headers=JSON)
    assert (response.status_code, response.json()["code"]) == (413, "body-too-large")
    assert sent < 100, "we let it finish its sentence, but not for ever"
    assert not fleet.requests


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/v1", "/v1/counters/a/b", "/v2/counters", "/..", "//"]
)
async def test_an_unknown_route_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "route-not-found")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "BREW"])
async def test_another_method_is_a_problem_that_names_the_right_ones(
    client: httpx.AsyncClient, method: str
) -> None:
    response = await client.request(method, INCREMENT)
    assert (response.status_code, response.json()["code"]) == (405, "method-not-allowed")
    assert "POST" in response.headers["allow"]


async def test_options_names_the_methods(client: httpx.AsyncClient) -> None:
    response = await client.options("/v1/counters/a")
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS"
