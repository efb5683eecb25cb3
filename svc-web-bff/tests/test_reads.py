import asyncio
import base64

import httpx
import pytest

from flotilla.bus import Answer, Request
from flotilla.buses.local import LocalBus
from svc_web_bff.settings import Settings
from svc_web_bff.testing import InMemoryFleet


async def count(client: httpx.AsyncClient, counter_id: str, by: int = 1) -> httpx.Response:
    return await client.post(
        f"/v1/counters/{counter_id}/increment",
        json={"by": by},
        headers={"Idempotency-Key": f"{counter_id}-{by}"},
    )


async def test_a_counter_is_read_with_its_etag(client: httpx.AsyncClient) -> None:
    await count(client, "visits", 5)
    response = await client.get("/v1/counters/visits")
    assert response.json() == {"counter_id": "visits", "value": 5, "version": 2}
    assert response.headers["etag"] == '"2"'
    assert response.headers["cache-control"] == "private, no-cache"
    assert response.headers["vary"] == "X-Tenant-Id"


async def test_an_unknown_counter_is_not_found(client: httpx.AsyncClient) -> None:
    for path in ("/v1/counters/nobody", "/v1/counters/nobody/history"):
        response = await client.get(path)
        assert (response.status_code, response.json()["code"]) == (404, "counter-not-found")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ('"2"', 304),
        ('W/"2"', 304),
        ('"1", W/"2"', 304),
        ("*", 304),
        ('"1"', 200),
        ("2", 200),
        ("nonsense", 200),
    ],
)
async def test_who_has_it_already_is_told_so(
    client: httpx.AsyncClient, value: str, status: int
) -> None:
    await count(client, "visits")
    response = await client.get("/v1/counters/visits", headers={"If-None-Match": value})
    assert response.status_code == status
    assert response.headers["etag"] == '"2"'
    assert bool(response.content) == (status == 200)


async def test_if_none_match_may_come_in_several_lines(client: httpx.AsyncClient) -> None:
    await count(client, "visits")
    headers = [("If-None-Match", '"2"'), ("If-None-Match", '"9"')]
    assert (await client.get("/v1/counters/visits", headers=headers)).status_code == 304


async def test_head_says_what_get_would_say(client: httpx.AsyncClient) -> None:
    await count(client, "visits")
    for path in ("/v1/counters/visits", "/v1/counters", "/healthz", "/docs", "/v1/counters/no"):
        got, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-length"] == got.headers["content-length"]


async def test_a_token_travels_with_the_query(
    client: httpx.AsyncClient, fleet: InMemoryFleet
) -> None:
    token = (await count(client, "visits")).headers["x-consistency-token"]
    for path in ("/v1/counters/visits", "/v1/counters"):
        response = await client.get(path, headers={"X-Consistency-Token": token})
        assert response.status_code == 200
        assert fleet.requests[-1].context.consistency_token == token


async def test_a_view_that_does_not_catch_up_says_retry(client: httpx.AsyncClient) -> None:
    headers = {"X-Consistency-Token": "acme/counter/visits@9"}
    response = await client.get("/v1/counters/visits", headers=headers)
    assert (response.status_code, response.json()["code"]) == (503, "view-behind")
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "other/counter/visits@1",
        "acme/tenant/visits@1",
        "acme/counter/visits",
        "acme/counter/visits@",
        "acme/counter/visits@-1",
        "acme/counter/visits@1e3",
        "acme/counter/visits@" + "9" * 17,
        "acme/counter/..@1",
        "acme/counter/a/b@1",
        "acme/counter@1",
        "acme/counter/a@1@2",
    ],
)
async def test_a_token_that_is_not_the_tenants_own_is_refused(
    client: httpx.AsyncClient, fleet: InMemoryFleet, token: str
) -> None:
    for path in ("/v1/counters/visits", "/v1/counters"):
        response = await client.get(path, headers={"X-Consistency-Token": token})
        assert (response.status_code, response.json()["code"]) == (400, "consistency-token-invalid")
    assert not fleet.requests


async def test_the_list_is_read_page_by_page(client: httpx.AsyncClient) -> None:
    for counter_id in ("a", "b", "c", "d", "e"):
        await count(client, counter_id)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/v1/counters", params={"limit": 2, **cursor})).json()
        seen += [item["counter_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ["a", "b", "c", "d", "e"]


async def test_tenants_do_not_see_each_other(client: httpx.AsyncClient) -> None:
    await count(client, "a")
    response = await client.get("/v1/counters", headers={"X-Tenant-Id": "other"})
    assert response.json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "a",
        "!!",
        "YQ==",
        "YR",
        "Li4",
        "Kg",
        "x" * 1000,
        base64.urlsafe_b64encode(b"\xff\xff").decode(),
    ],
)
async def test_a_cursor_that_we_never_handed_out_is_refused(
    client: httpx.AsyncClient, fleet: InMemoryFleet, cursor: str
) -> None:
    response = await client.get("/v1/counters", params={"cursor": cursor})
    assert (response.status_code, response.json()["code"]) == (400, "cursor-invalid")
    assert not fleet.requests


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/v1/counters?limit=0", "query:limit"),
        ("/v1/counters?limit=201", "query:limit"),
        ("/v1/counters?limit=", "query:limit"),
        ("/v1/counters?limit=1.0", "query:limit"),
        ("/v1/counters?limit=٣", "query:limit"),
        ("/v1/counters?limit=" + "9" * 5000, "query:limit"),
        ("/v1/counters?limit=1&limit=1", "query:limit"),
        ("/v1/counters?offset=1", "query:offset"),
        ("/v1/counters?%ff%00=1", "query:\\ufffd\\x00"),
        ("/v1/counters/a?verbose", "query:verbose"),
        ("/v1/counters/a/history?after=-1", "query:after"),
        ("/v1/counters/a/history?after=" + str(2**53), "query:after"),
        ("/v1/counters/a/history?limit=x", "query:limit"),
        ("/v1/counters/a/history?cursor=YQ", "query:cursor"),
        ("/v1/totals?limit=1", "query:limit"),
        ("/v1/activity?limit=201", "query:limit"),
        ("/v1/activity?before=0", "query:before"),
        ("/v1/activity?before=" + str(2**53), "query:before"),
        ("/v1/activity?after=1", "query:after"),
    ],
)
async def test_a_query_parameter_that_is_wrong_is_named(
    client: httpx.AsyncClient, fleet: InMemoryFleet, path: str, pointer: str
) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()["code"]) == (422, "invalid-request")
    assert response.json()["errors"][0]["pointer"] == pointer
    assert not fleet.requests


async def test_history_is_read_page_by_page(client: httpx.AsyncClient) -> None:
    for by in (1, 2, 3):
        await count(client, "visits", by)
    first = (await client.get("/v1/counters/visits/history", params={"limit": 3})).json()
    assert [item["version"] for item in first["items"]] == [1, 2, 3]
    assert first["items"][0]["type"] == "counter.opened.v1"
    rest = await client.get("/v1/counters/visits/history", params={"after": first["next_after"]})
    assert [item["version"] for item in rest.json()["items"]] == [4]
    assert rest.json()["next_after"] is None


async def test_the_totals_are_those_of_the_tenant(client: httpx.AsyncClient) -> None:
    nothing = {"counters": 0, "value_sum": 0, "events": 0}
    assert (await client.get("/v1/totals")).json() == nothing
    await count(client, "a", 5)
    await count(client, "b", 2)
    response = await client.get("/v1/totals")
    assert response.json() == {"counters": 2, "value_sum": 7, "events": 4}
    assert response.headers["cache-control"] == "no-store"
    assert (await client.get("/v1/totals", headers={"X-Tenant-Id": "other"})).json() == nothing


async def test_activity_is_read_page_by_page_newest_first(client: httpx.AsyncClient) -> None:
    for by in (1, 2, 3, 4):
        await count(client, "visits", by)
    seen: list[int] = []
    before: dict[str, int] = {}
    while True:
        page = (await client.get("/v1/activity", params={"limit": 2, **before})).json()
        seen += [item["offset"] for item in page["items"]]
        if page["next_before"] is None:
            break
        before = {"before": page["next_before"]}
    assert seen == [5, 4, 3, 2, 1]
    assert page["items"][0]["type"] == "counter.opened.v1"
    other = await client.get("/v1/activity", headers={"X-Tenant-Id": "other"})
    assert other.json() == {"items": [], "next_before": None}


class TestOperations:
    async def test_alive_is_whoever_answers(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz")).json() == {"status": "ok"}

    async def test_ready_reports_lag(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/readyz")
        assert response.status_code == 200
        assert response.json() == {
            "ready": True,
            "missing": [],
            "lag": {"counter": {"outbox": {"events": 3, "seconds": 0.5}}},
        }

    async def test_readiness_names_what_is_missing(
        self, client: httpx.AsyncClient, bus: LocalBus
    ) -> None:
        async def unready(_request: Request) -> Answer:
            return Answer(b'{"service":"svc-counter","ready":false,"missing":["the store"]}')

        await bus.serve("qry.counter.get-health", unready)
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["missing"] == ["counter: the store"]
        assert response.headers["cache-control"] == "no-store"

    @pytest.mark.parametrize("answer", [b"what?", b"{}"])
    async def test_a_service_that_talks_nonsense_is_missing(
        self, client: httpx.AsyncClient, bus: LocalBus, answer: bytes
    ) -> None:
        async def nonsense(_request: Request) -> Answer:
            return Answer(answer)

        await bus.serve("qry.counter.get-health", nonsense)
        response = await client.get("/readyz")
        assert response.json()["missing"] == ["counter: it answered what nobody understands"]

    class TestSlow:
        @pytest.fixture
        def settings(self) -> Settings:
            return Settings(ready_timeout_s=0.05)

        async def test_a_service_that_does_not_answer_in_time_is_missing(
            self, client: httpx.AsyncClient, bus: LocalBus
        ) -> None:
            async def asleep(_request: Request) -> Answer:
                await asyncio.sleep(60)
                raise AssertionError

            await bus.serve("qry.counter.get-health", asleep)
            response = await client.get("/readyz")
            assert response.status_code == 503
            assert "within 0.05 s" in response.json()["missing"][0]

    async def test_whoever_reads_the_metrics_has_services_look_at_what_they_show(
        self, client: httpx.AsyncClient, bus: LocalBus
    ) -> None:
        looked = 0

        async def look(_: Request) -> Answer:
            nonlocal looked
            looked += 1
            return Answer(b'{"service":"counter","ready":true}')

        await bus.serve("qry.counter.get-health", look)
        assert (await client.get("/metrics")).status_code == 200
        assert looked == 1

    async def test_metrics_count_requests_by_route_and_not_by_path(
        self, client: httpx.AsyncClient
    ) -> None:
        for path in ("/v1/counters/one", "/v1/counters/two", "/who/knows"):
            await client.get(path)
        await client.request("BREW", "/healthz")
        text = (await client.get("/metrics")).text
        assert (
            'flotilla_http_requests_total{method="GET",route="/v1/counters/{counter_id}",'
            'status="404"}'
        ) in text
        assert 'route="(none)",status="404"' in text
        assert 'method="OTHER",route="(none)",status="405"' in text
        assert "flotilla_http_request_duration_seconds_bucket" in text
        assert "/who/knows" not in text
        accept = {"Accept": "application/openmetrics-text"}
        assert (await client.get("/metrics", headers=accept)).text.endswith("# EOF\n")
