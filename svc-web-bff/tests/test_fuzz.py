import json
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svc_web_bff.testing import InMemoryFleet

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
HEADER = st.binary(max_size=40).map(lambda raw: raw.translate(None, b"\r\n\x00"))
NAMES = ("x-tenant-id", "idempotency-key", "if-match", "content-type", "x-consistency-token")
HEADERS = st.lists(st.tuples(st.sampled_from([n.encode() for n in NAMES]), HEADER), max_size=3)
VERBS = st.sampled_from(["", "/increment", "/decrement", "/reset", "/history"])
BODIES = (
    st.binary(max_size=60)
    | ANYTHING.map(lambda value: json.dumps(value).encode())
    | ANYTHING.map(lambda value: json.dumps({"by": value}).encode())
)
PATH_TEXT = st.sampled_from(["a", "visits"]) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=BODIES, extra=HEADERS, name=PATH_TEXT, verb=VERBS, sane=st.booleans())
async def test_nothing_that_is_sent_is_our_fault_and_what_is_invalid_reaches_nobody(
    *,
    client: httpx.AsyncClient,
    fleet: InMemoryFleet,
    body: bytes,
    extra: list[tuple[bytes, bytes]],
    name: str,
    verb: str,
    sane: bool,
) -> None:
    fleet.requests.clear()
    client.headers.pop("X-Tenant-Id", None)
    usual = [(b"x-tenant-id", b"acme"), (b"idempotency-key", body.hex()[:200].encode() or b"k")]
    headers = [*usual, (b"content-type", b"application/json")] if sane else extra
    method = "POST" if verb not in ("", "/history") else "GET"
    path = f"/v1/counters/{quote(name, safe='')}{verb}"
    url = httpx.URL("http://flotilla.test").copy_with(raw_path=path.encode())
    response = await client.request(method, url, content=body, headers=headers)
    assert response.status_code < 500
    understood = response.status_code in (200, 304, 409, 412) or response.json()["code"] in (
        "counter-not-found",
        "idempotency-key-reused",
    )
    assert bool(fleet.requests) == understood
