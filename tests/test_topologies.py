"""One behaviour, every topology: what a user of the REST API can rely on."""

import asyncio
import json
from collections import Counter

import day
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from fleet import Fleet, count, read, settled
from jsonschema import validate

from flotilla_contracts.generate import ROOT


async def test_a_counter_is_opened_by_its_first_use_and_counts(fleet: Fleet, tenant: str) -> None:
    async with fleet.client(tenant) as client:
        up = await count(client, "visits", 5, key="k1")
        down = await count(client, "visits", 2, key="k2", verb="decrement")
        zero = await count(client, "visits", key="k3", verb="reset")

        assert [(200, 5), (200, 3), (200, 0)] == [
            (r.status_code, r.json()["value"]) for r in (up, down, zero)
        ]
        assert f'"{up.json()["version"]}"' == up.headers["etag"]
        found = await read(client, "visits", zero.headers["x-consistency-token"])
        assert zero.json() == found.json()
        assert (
            304
            == (
                await client.get(
                    "/v1/counters/visits", headers={"If-None-Match": found.headers["etag"]}
                )
            ).status_code
        )

        history = (await client.get("/v1/counters/visits/history")).json()
        assert ["opened", "incremented", "decremented", "reset"] == [
            item["type"].split(".")[1] for item in history["items"]
        ]
        assert [1, 2, 3, 4] == [item["version"] for item in history["items"]]


async def test_a_list_has_all_counters_of_the_tenant_and_of_nobody_else(
    fleet: Fleet, tenant: str
) -> None:
    async with fleet.client(tenant) as acme, fleet.client(f"{tenant}-rival") as rival:
        for n in range(5):
            last = await count(acme, f"c{n}", n + 1, key=f"k{n}")
        other = await count(rival, "c0", 99, key="k0")
        await read(acme, "c4", last.headers["x-consistency-token"])
        await read(rival, "c0", other.headers["x-consistency-token"])

        seen, cursor = [], ""
        while cursor is not None:
            page = (
                await acme.get(
                    "/v1/counters", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
                )
            ).json()
            seen += page["items"]
            cursor = page["next_cursor"]

        assert [(f"c{n}", n + 1) for n in range(5)] == [(c["counter_id"], c["value"]) for c in seen]
        assert [99] == [c["value"] for c in (await rival.get("/v1/counters")).json()["items"]]
        assert 404 == (await rival.get("/v1/counters/c1")).status_code


async def test_the_same_key_fifty_times_at_once_has_one_effect_and_one_answer(
    fleet: Fleet, tenant: str
) -> None:
    async with fleet.client(tenant) as client:
        answers = await asyncio.gather(*(count(client, "c", 7, key="same") for _ in range(50)))

        assert {200} == {a.status_code for a in answers}
        assert 1 == len({a.content for a in answers})
        assert 49 == sum(a.headers.get("idempotency-replayed") == "true" for a in answers)
        assert 1 == len({a.headers["etag"] for a in answers})
        found = await read(client, "c", answers[0].headers["x-consistency-token"])
        assert 7 == found.json()["value"]


async def test_the_same_key_for_something_else_is_refused(fleet: Fleet, tenant: str) -> None:
    async with fleet.client(tenant) as client:
        await count(client, "c", 1, key="k")

        for refused in (
            await count(client, "c", 2, key="k"),
            await count(client, "other", 1, key="k"),
            await count(client, "c", 1, key="k", verb="decrement"),
        ):
            assert (422, "idempotency-key-reused") == (refused.status_code, refused.json()["code"])

    async with fleet.client(f"{tenant}-rival") as rival:
        assert 200 == (await count(rival, "c", 2, key="k")).status_code


async def test_two_hundred_increments_at_once_are_exactly_two_hundred(
    fleet: Fleet, tenant: str
) -> None:
    async with fleet.client(tenant) as client:
        answers = await asyncio.gather(*(count(client, "hot", key=f"k{n}") for n in range(200)))

        assert {200} == {a.status_code for a in answers}
        assert set(range(1, 201)) == {a.json()["value"] for a in answers}
        last = max(answers, key=lambda a: a.json()["version"])
        assert (
            200 == (await read(client, "hot", last.headers["x-consistency-token"])).json()["value"]
        )


async def test_an_if_match_race_has_one_winner(fleet: Fleet, tenant: str) -> None:
    async with fleet.client(tenant) as client:
        etag = (await count(client, "c", key="first")).headers["etag"]

        answers = await asyncio.gather(
            *(count(client, "c", key=f"k{n}", If_Match=etag) for n in range(20))
        )

        assert {200: 1, 412: 19} == Counter(a.status_code for a in answers)
        assert {"version-mismatch"} == {a.json()["code"] for a in answers if a.status_code == 412}
        winner = next(a for a in answers if a.status_code == 200)
        assert 2 == winner.json()["value"]
        again = await count(client, "c", key="late", If_Match=winner.headers["etag"])
        assert 200 == again.status_code


HOSTILE_IDS = [
    "..",
    ".",
    "*",
    ">",
    "a b",
    " ",
    "a/b",
    "x" * 65,
    "x" * 10_000,
    "ü",
    "😀",
    "a\x00b",
    "%",
    "a\nb",
]
BAD_BODIES = [
    "",
    "{",
    "nope",
    "[]",
    "null",
    "5",
    '"x"',
    "{}",
    '{"by": "5"}',
    '{"by": 5.0}',
    '{"by": 1e3}',
    '{"by": true}',
    '{"by": null}',
    '{"by": 0}',
    '{"by": -1}',
    '{"by": 1000000001}',
    '{"by": 99999999999999999999999999}',
    '{"by": NaN}',
    '{"by": 1, "bye": 2}',
    '{"by": 1, "by": 2}',
    '{"by": {"by": {"by": 1}}}',
    '{"by": 1, "tenant": "rival"}',
    "[" * 20_000,
    '{"by": 1, "x": "' + "y" * 70_000 + '"}',
]


async def test_bad_input_is_a_clear_problem_and_changes_nothing(fleet: Fleet, tenant: str) -> None:
    async with fleet.client(tenant) as client:
        before = (await fleet.status())["logs"][0]["committed"]
        answers = []
        for name in HOSTILE_IDS:
            path = "/v1/counters/" + "".join(f"%{byte:02X}" for byte in name.encode())
            answers.append(
                await client.post(
                    f"{path}/increment", json={"by": 1}, headers={"Idempotency-Key": "k"}
                )
            )
            answers.append(await client.get(path))
        for body in BAD_BODIES:
            answers.append(
                await client.post(
                    "/v1/counters/c/increment",
                    content=body,
                    headers={"Idempotency-Key": "k", "Content-Type": "application/json"},
                )
            )
        answers.append(await client.post("/v1/counters/c/increment", json={"by": 1}))
        answers.append(await count(client, "c", key="k", If_Match="seven"))
        answers.append(await count(client, "c", key="k" * 256))
        answers.append(
            await client.post("/v1/counters/c/explode", json={}, headers={"Idempotency-Key": "k"})
        )
        answers.append(await client.delete("/v1/counters/c"))
        answers.append(await client.get("/v1/counters", params={"limit": "0"}))
        answers.append(await client.get("/v1/counters", params={"cursor": "§"}))
        answers.append(await client.get("/v1/counters/c", headers={"X-Consistency-Token": "x"}))
        for bad in ("", "..", "a b", "*", "x" * 65, "a/b"):
            answers.append(await count(client, "c", key="k", X_Tenant_Id=bad))

        for answer in answers:
            where = f"{answer.request.method} {str(answer.request.url)[:200]}: {answer.text[:200]}"
            assert 400 <= answer.status_code < 500, where
            assert answer.headers["content-type"].startswith("application/problem+json"), where
            problem = answer.json()
            assert {"type", "title", "status", "code", "detail"} <= problem.keys(), where
            assert answer.status_code == problem["status"], where

        assert [] == (await client.get("/v1/counters")).json()["items"]
    assert before == (await fleet.status())["logs"][0]["committed"]


async def test_a_message_on_the_stream_is_a_valid_cloud_event_for_anybody(
    fleet: Fleet, tenant: str
) -> None:
    async with fleet.client(tenant) as client:
        answer = await count(
            client, "visits", 5, key="k", traceparent=f"00-{'a' * 32}-{'b' * 16}-01"
        )
        await read(client, "visits", answer.headers["x-consistency-token"])

    async with fleet.broker("operator") as connection:
        js = connection.jetstream()
        subscription = await js.subscribe(
            f"evt.counter.{tenant}.>", stream="EVT_COUNTER", ordered_consumer=True
        )
        messages = [await subscription.next_msg(timeout=5) for _ in range(2)]
        assert (await js.stream_info("EVT_COUNTER")).config.allow_atomic

    opened, incremented = messages
    assert f"evt.counter.{tenant}.counter.incremented" == incremented.subject
    offsets = [m.metadata.sequence.stream for m in messages]
    assert [offsets[0], offsets[0] + 1] == offsets
    headers = dict(incremented.headers or {})
    event = from_http_event(HTTPMessage(headers, incremented.data), JSONFormat())
    assert (
        "counter.incremented.v1",
        "urn:flotilla:service:counter",
        f"{tenant}/counter/visits",
    ) == (
        event.get_type(),
        event.get_source(),
        event.get_extension("stream"),
    )
    assert {"counter_id": "visits", "by": 5, "value": 5} == event.get_data()
    assert "a" * 32 in headers["traceparent"]
    for message in (opened, incremented):
        kind = (message.headers or {})["ce-type"]
        schema = json.loads((ROOT / f"schemas/events/{kind}.json").read_text())
        validate(json.loads(message.data), schema)


async def test_commands_and_queries_are_answered_over_nats_as_well(
    fleet: Fleet, tenant: str
) -> None:
    async with fleet.broker("web-bff") as connection:
        headers = {"flotilla-tenant": tenant, "flotilla-idempotency-key": "k"}
        body = b'{"counter_id": "visits", "by": 3}'
        first = await connection.request("cmd.counter.increment", body, timeout=5, headers=headers)
        again = await connection.request("cmd.counter.increment", body, timeout=5, headers=headers)
        bad = await connection.request(
            "cmd.counter.increment", b'{"by": 3}', timeout=5, headers=headers
        )

    assert {"counter_id": "visits", "value": 3, "version": 2} == json.loads(first.data)
    assert first.data == again.data
    assert "invalid-request" in str(bad.headers)


async def test_nothing_lags_after_a_burst(fleet: Fleet, tenant: str) -> None:
    async with fleet.client(tenant) as client:
        await asyncio.gather(
            *(
                count(client, f"c{n % 37}", key=f"k{n}", verb=verb)
                for n, verb in zip(
                    range(600), ["increment", "decrement", "reset"] * 200, strict=True
                )
            )
        )

    status = await settled(fleet)

    [log] = [log for log in status["logs"] if log["log"] == "counter"]
    views = [view for view in status["projections"] if view["log"] == "counter"]
    names = ["activity", "counters", "tenant-totals", "workflow-arrivals"]
    assert names == sorted(view["projection"] for view in views)
    assert log["committed"] == log["offset"] == log["stream_last_sequence"]
    assert {log["committed"]} == {view["checkpoint"] for view in views}
    async with fleet.client(tenant) as client:
        ready = (await client.get("/readyz")).json()
    metrics = await fleet.metrics()
    assert (True, []) == (ready["ready"], ready["missing"])
    for name in (
        "flotilla_commands_total",
        "flotilla_commit_units_total",
        "flotilla_log_last_offset",
        "flotilla_projection_lag",
    ):
        assert name in metrics


async def test_a_day_looks_the_same_to_the_byte_wherever_it_is_spent(
    fleet: Fleet, tenant: str
) -> None:
    """What is answered, shown and on the stream: tests/day.py, which also records it."""
    spent = await day.spend(fleet, tenant)

    assert day.RECORDING.read_text().splitlines() == spent.splitlines()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
async def test_the_pages_for_operators_and_newcomers_are_there(fleet: Fleet, path: str) -> None:
    async with fleet.client("anybody") as client:
        answer = await client.get(path)

    assert 200 == answer.status_code
    if path == "/openapi.json":
        assert json.loads((ROOT / "openapi.json").read_text()) == answer.json()
