from collections.abc import AsyncIterator

import httpx
import pytest

from flotilla.errors import Rejected
from svc_web_bff.settings import Settings
from svc_web_bff.testing import InMemoryFleet
from svc_web_bff.testing.tenants import InMemoryTenant

ANN = {"X-User-Id": "ann"}
EVE = {"X-User-Id": "eve"}
ACME = "/v1/tenants/acme"


def key(name: str, who: dict[str, str] | None = None) -> dict[str, str]:
    return {**(who or ANN), "Idempotency-Key": name}


class TestBeginning:
    async def test_whoever_begins_a_tenant_is_told_where_it_is(
        self, client: httpx.AsyncClient, fleet: InMemoryFleet
    ) -> None:
        response = await client.post("/v1/tenants", json={"name": "Acme"}, headers=key("k1"))
        assert response.status_code == 201
        (request,) = fleet.requests
        tenant = request.context.tenant
        assert response.headers["location"] == f"/v1/tenants/{tenant}"
        assert response.headers["x-consistency-token"].startswith(f"{tenant}/tenant/{tenant}@")
        assert b'"owner_id":"ann"' in request.body

    async def test_the_same_wish_is_the_same_tenant(self, client: httpx.AsyncClient) -> None:
        first = await client.post("/v1/tenants", json={"name": "Acme"}, headers=key("k1"))
        again = await client.post("/v1/tenants", json={"name": "Acme"}, headers=key("k1"))
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["idempotency-replayed"] == "true"

    async def test_another_key_or_another_user_is_another_tenant(
        self, client: httpx.AsyncClient
    ) -> None:
        wishes = [key("k1"), key("k2"), key("k1", EVE)]
        where = {
            (await client.post("/v1/tenants", json={"name": "A"}, headers=wish)).headers["location"]
            for wish in wishes
        }
        assert len(where) == 3

    async def test_nobody_says_the_id_or_the_owner(
        self, client: httpx.AsyncClient, fleet: InMemoryFleet
    ) -> None:
        for field in ("tenant_id", "owner_id", "actor_id"):
            response = await client.post(
                "/v1/tenants", json={"name": "A", field: "bob"}, headers=key(field)
            )
            assert (response.status_code, response.json()["code"]) == (422, "invalid-request")
            assert response.json()["errors"][0]["pointer"] == f"#/{field}"
        assert not fleet.requests


class TestUsers:
    @pytest.mark.parametrize(
        ("headers", "status", "code"),
        [
            ([], 401, "user-missing"),
            ([("X-User-Id", "")], 401, "user-missing"),
            ([("X-User-Id", "system")], 400, "user-invalid"),
            ([("X-User-Id", "a b")], 400, "user-invalid"),
            ([("X-User-Id", "ann"), ("X-User-Id", "bob")], 400, "user-invalid"),
        ],
    )
    async def test_nobody_and_impostors_are_refused(
        self,
        *,
        client: httpx.AsyncClient,
        fleet: InMemoryFleet,
        headers: list[tuple[str, str]],
        status: int,
        code: str,
    ) -> None:
        for path in ("/v1/tenants", ACME, f"{ACME}/audit"):
            response = await client.get(path, headers=headers)
            assert (response.status_code, response.json()["code"]) == (status, code)
        assert not fleet.requests

    async def test_keys_are_the_users_own(
        self, client: httpx.AsyncClient, fleet: InMemoryFleet
    ) -> None:
        for user in ("ann", "bob"):
            response = await client.post(
                f"{ACME}/rename", json={"name": user}, headers=key("k1", {"X-User-Id": user})
            )
            assert response.status_code == 200
        keys = {request.context.idempotency_key for request in fleet.requests} - {None}
        assert len(keys) == 2

    async def test_who_left_may_say_so_again(self, client: httpx.AsyncClient) -> None:
        mia = {"X-User-Id": "mia"}
        first = await client.post(f"{ACME}/leave", headers=key("k1", mia))
        again = await client.post(f"{ACME}/leave", headers=key("k1", mia))
        assert (again.status_code, again.content) == (200, first.content)
        other = await client.post(f"{ACME}/leave", headers=key("k2", mia))
        assert other.json()["code"] == "tenant-not-found"


class TestReading:
    async def test_a_tenant_has_an_etag(self, client: httpx.AsyncClient) -> None:
        response = await client.get(ACME, headers=ANN)
        assert (response.headers["etag"], response.headers["vary"]) == ('"7"', "X-User-Id")
        known = await client.get(ACME, headers={**ANN, "If-None-Match": '"7"'})
        assert (known.status_code, known.content) == (304, b"")

    async def test_if_match_makes_a_change_depend_on_it(self, client: httpx.AsyncClient) -> None:
        for version, status in ((7, 200), (7, 412), (8, 200)):
            headers = key(f"{version}-{status}") | {"If-Match": f'"{version}"'}
            response = await client.post(f"{ACME}/rename", json={"name": "B"}, headers=headers)
            assert response.status_code == status

    async def test_the_audit_is_for_owners_and_admins(self, client: httpx.AsyncClient) -> None:
        for user, status in (("ann", 200), ("bob", 200), ("mia", 403), ("eve", 404)):
            response = await client.get(f"{ACME}/audit", headers={"X-User-Id": user})
            assert response.status_code == status

    async def test_a_list_of_mine_waits_for_tokens_of_mine_only(
        self, client: httpx.AsyncClient, fleet: InMemoryFleet
    ) -> None:
        mine = {**ANN, "X-Consistency-Token": "acme/tenant/acme@7"}
        assert (await client.get("/v1/tenants", headers=mine)).status_code == 200
        assert fleet.requests[-1].context.consistency_token == "acme/tenant/acme@7"
        refused = set()
        for token in ("acme/tenant/acme@1", "none/tenant/none@1", "acme/counter/a@1", "", "/@"):
            response = await client.get(
                "/v1/tenants", headers={**EVE, "X-Consistency-Token": token}
            )
            assert response.json()["code"] == "consistency-token-invalid"
            refused.add(response.content)
        assert len(refused) == 1


class TestOutsiders:
    @pytest.mark.parametrize("who", [EVE, {"X-User-Id": "zoe"}])
    async def test_a_tenant_of_others_is_none(
        self, client: httpx.AsyncClient, who: dict[str, str]
    ) -> None:
        answers = [
            (await client.get(f"/v1/tenants/{tenant}{path}", headers=who)).content
            for tenant in ("acme", "none", "-", "a%20b", "..a b")
            for path in ("", "/members", "/invitations", "/quotas", "/audit")
        ]
        assert set(answers) == {answers[0]}
        assert b"tenant-not-found" in answers[0]

    async def test_a_key_that_a_member_used_says_nothing(self, client: httpx.AsyncClient) -> None:
        await client.post(f"{ACME}/rename", json={"name": "B"}, headers=key("k1"))
        response = await client.post(f"{ACME}/rename", json={"name": "C"}, headers=key("k1", EVE))
        assert response.json()["code"] == "tenant-not-found"

    @pytest.mark.parametrize(
        "token",
        ["acme:i:nonsense-nonsense", "none:i:nonsense-nonsense", "x" * 20, "-:i:" + "s" * 20],
    )
    async def test_a_token_that_opens_nothing_is_no_invitation(
        self, client: httpx.AsyncClient, fleet: InMemoryFleet, token: str
    ) -> None:
        fleet.tenants.refusal = Rejected("there is no such invitation", code="invitation-not-found")
        response = await client.post(
            "/v1/invitations/accept", json={"token": token}, headers=key("k1", EVE)
        )
        assert (response.status_code, response.json()["code"]) == (404, "invitation-not-found")
        assert response.json()["detail"] == "there is no such invitation"


class TestMembersOnly:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(members_only=True)

    @pytest.fixture(params=["/v1/counters", "/v1/totals", "/v1/activity", "/v1/counters/a/history"])
    async def path(self, request: pytest.FixtureRequest) -> AsyncIterator[str]:
        yield request.param

    async def test_every_route_needs_a_user(self, client: httpx.AsyncClient, path: str) -> None:
        response = await client.get(path)
        assert (response.status_code, response.json()["code"]) == (401, "user-missing")

    async def test_others_are_told_that_there_is_no_tenant(
        self, client: httpx.AsyncClient, fleet: InMemoryFleet, path: str
    ) -> None:
        fleet.tenants.known["over"] = InMemoryTenant({"eve": "owner"}, "closed")
        answers = {
            (await client.get(path, headers={**EVE, "X-Tenant-Id": tenant})).content
            for tenant in ("acme", "none", "over")
        }
        assert len(answers) == 1
        assert b'"status":404' in answers.pop()
        asked = {request.subject for request in fleet.requests}
        assert asked == {"qry.tenant.get-membership"}, "nobody else hears of it"

    async def test_members_of_a_suspended_tenant_are_told_so(
        self, client: httpx.AsyncClient, fleet: InMemoryFleet, path: str
    ) -> None:
        fleet.tenants.known["acme"].status = "suspended"
        members = await client.get(path, headers=ANN)
        assert (members.status_code, members.json()["code"]) == (403, "tenant-suspended")
        assert (await client.get(path, headers=EVE)).json()["code"] == "tenant-not-found"

    async def test_switching_tenants_is_another_header_and_nothing_is_remembered(
        self, client: httpx.AsyncClient, fleet: InMemoryFleet
    ) -> None:
        fleet.tenants.known["other"] = InMemoryTenant({"ann": "member"})
        for tenant, by in (("acme", 1), ("other", 2)):
            counted = await client.post(
                "/v1/counters/a/increment",
                json={"by": by},
                headers=key(tenant) | {"X-Tenant-Id": tenant},
            )
            assert counted.json()["value"] == by
        del fleet.tenants.known["other"].members["ann"]
        gone = await client.get("/v1/totals", headers={**ANN, "X-Tenant-Id": "other"})
        assert gone.status_code == 404
        assert (await client.get("/v1/totals", headers=ANN)).json()["value_sum"] == 1
