"""Nobody learns anything of a tenant that they are not in, by any route, on any store.

The routes are those of the OpenAPI document: one that is not in `ROUTES` fails.
`ISOLATION_REQUESTS=10000` sends as many interleaved requests (the default is what tests can afford).
"""

import asyncio
import hashlib
import os
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import pytest_asyncio
from inside import Inside, run_inside

from flotilla.embedded import PostgresServer
from flotilla.testing.servers import open_folder, postgres_server
from flotilla_contracts.tenant import (
    ActivateTenant,
)
from flotilla_contracts.tenant_events import (
    SYSTEM,
)
from svc_web_bff.openapi import document
from svc_web_bff.settings import Settings

__all__ = ["postgres_server"]

REQUESTS = int(os.environ.get("ISOLATION_REQUESTS", "800"))
CONNECTIONS = 4
NOWHERE = "0a9d3f5e-0000-5000-8000-000000000000"
CANARY = re.compile(r"canary-(\w+)")
Fate = Literal["refused", "own", "no invitation", "public"]
ONE, TENANT = "/v1/counters/{counter_id}", "/v1/tenants/{tenant_id}"
ROUTES: dict[tuple[str, str], tuple[Fate, dict[str, Any]]] = {
    ("post", f"{ONE}/increment"): ("refused", {"by": 1}),
    ("post", f"{ONE}/decrement"): ("refused", {"by": 1}),
    ("post", f"{ONE}/reset"): ("refused", {}),
    ("get", ONE): ("refused", {}),
    ("get", f"{ONE}/history"): ("refused", {}),
    ("get", "/v1/counters"): ("refused", {}),
    ("get", "/v1/totals"): ("refused", {}),
    ("get", "/v1/activity"): ("refused", {}),
    ("get", "/v1/tenants"): ("own", {}),
    ("post", "/v1/tenants"): ("own", {"name": "Mine"}),
    ("get", TENANT): ("refused", {}),
    ("get", f"{TENANT}/members"): ("refused", {}),
    ("get", f"{TENANT}/quotas"): ("refused", {}),
    ("get", f"{TENANT}/audit"): ("refused", {}),
    ("get", f"{TENANT}/invitations"): ("refused", {}),
    ("post", f"{TENANT}/invitations"): ("refused", {"email": "eve@example.org"}),
    ("post", f"{TENANT}/invitations/{{invitation_id}}/revoke"): ("refused", {}),
    ("post", f"{TENANT}/rename"): ("refused", {"name": "Taken over"}),
    ("post", f"{TENANT}/suspend"): ("refused", {"reason": "spite"}),
    ("post", f"{TENANT}/resume"): ("refused", {}),
    ("post", f"{TENANT}/close"): ("refused", {}),
    ("post", f"{TENANT}/plan"): ("refused", {"plan": "free"}),
    ("post", f"{TENANT}/members/{{user_id}}/role"): ("refused", {"role": "member"}),
    ("post", f"{TENANT}/members/{{user_id}}/remove"): ("refused", {}),
    ("post", f"{TENANT}/leave"): ("refused", {}),
    ("post", "/v1/invitations/accept"): (
        "no invitation",
        {"token": "{tenant_id}:{invitation_id}:s"},
    ),
    **{
        ("get", path): ("public", {})
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")
    },
}
"""By method and path: what becomes of strangers there, and a body that would be right."""


@dataclass(slots=True)
class Settled:
    """A tenant with an owner, an admin, a member, a counter and an invitation that waits."""

    name: str
    id: str = ""
    invitation: str = ""
    users: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> dict[str, str]:
        """Return the headers of its owner."""
        return {"X-User-Id": self.users["owner"], "X-Tenant-Id": self.id}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["libsql", "postgres"])
async def inside(
    request: pytest.FixtureRequest, postgres_server: PostgresServer
) -> AsyncIterator[Inside]:
    store = postgres_server.dsn if request.param == "postgres" else None
    with open_folder() as folder:
        async with run_inside(Path(folder), store, Settings(members_only=True)) as fleet:
            yield fleet


async def settle(fleet: Inside, client: httpx.AsyncClient, name: str) -> Settled:
    """Return a new tenant; everything in it that people name has its canary."""
    canary, found = f"canary-{name}", Settled(name)
    found.users = {role: f"{role}-{name}" for role in ("owner", "admin", "member")}
    who = {"X-User-Id": found.users["owner"]}

    async def post(path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        key = {"Idempotency-Key": hashlib.sha256(f"{path}{body}".encode()).hexdigest()}
        answer = await client.post(path, json=body, headers={**who, **key, **headers})
        assert answer.is_success, answer.text
        return answer

    begun = {"name": canary, "plan": "team", "owner_email": f"{canary}@example.org"}
    found.id = (await post("/v1/tenants", begun)).json()["tenant_id"]
    await fleet.tell(found.id, ActivateTenant(actor_id=SYSTEM), "activate")
    for role in ("admin", "member", ""):
        invited = {"email": f"{canary}{role}@example.org", "role": role or "member"}
        one = (await post(f"/v1/tenants/{found.id}/invitations", invited)).json()
        found.invitation = one["invitation_id"]
        if role:
            shown = {"token": one["token"], "display_name": canary}
            await post("/v1/invitations/accept", shown, **{"X-User-Id": found.users[role]})
    await post(f"/v1/counters/{canary}/increment", {"by": 1}, **{"X-Tenant-Id": found.id})
    return found


async def state(client: httpx.AsyncClient, tenant: Settled) -> list[Any]:
    """Return all that a stranger could have changed: every event, and what is folded from them."""
    one = f"/v1/tenants/{tenant.id}"
    history = f"/v1/counters/canary-{tenant.name}/history"
    paths = (one, f"{one}/members", f"{one}/invitations", f"{one}/quotas", history)
    return [(await client.get(path, headers=tenant.owner)).json() for path in paths]


async def knock(
    client: httpx.AsyncClient, route: tuple[str, str], user: str | None, at: str, victim: Settled
) -> httpx.Response:
    """Ask a route for the tenant `at`, with what really is in the victim."""
    method, path = route
    names = {
        "tenant_id": at,
        "user_id": victim.users["member"],
        "invitation_id": victim.invitation,
        "counter_id": f"canary-{victim.name}",
    }
    body = {
        key: value.format(**names).ljust(20, "s") if key == "token" else value
        for key, value in ROUTES[route][1].items()
    }
    headers = {"X-Tenant-Id": at, "Idempotency-Key": f"{method}{path}"}
    if user is not None:
        headers["X-User-Id"] = user
    return await client.request(
        method, path.format(**names), headers=headers, json=body if method == "post" else None
    )


def visible(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Return all of an answer but what differs between any two."""
    headers = [
        (name, value)
        for name, value in answer.headers.items()
        if name not in ("date", "x-correlation-id")
    ]
    return answer.status_code, answer.content, headers


def test_no_route_is_forgotten() -> None:
    served = {(method, path) for path, found in document()["paths"].items() for method in found}
    assert served == set(ROUTES), "say in ROUTES what becomes of strangers there"


@pytest.mark.asyncio(loop_scope="module")
async def test_no_route_tells_a_stranger_anything(inside: Inside) -> None:
    async with inside.client(CONNECTIONS) as client:
        victim = await settle(inside, client, "victim")
        other = await settle(inside, client, "other")
        before = await state(client, victim)
        assert "canary-victim" in str(before), "the canary sings where it may"
        for route, (fate, _) in ROUTES.items():
            for user in (*other.users.values(), "nobody", None):
                there = await knock(client, route, user, victim.id, victim)
                nowhere = await knock(client, route, user, NOWHERE, victim)
                what = f"{user} at {route}: {there.status_code} {there.text[:300]}"
                if fate in ("own", "public"):
                    assert there.status_code in (
                        (401,) if not user and fate == "own" else (200, 201)
                    ), what
                else:
                    assert visible(there) == visible(nowhere), what
                    gone = "invitation-not-found" if fate == "no invitation" else "tenant-not-found"
                    assert there.json()["code"] == (gone if user else "user-missing"), what
                for secret in ("canary-victim", victim.users["owner"], victim.invitation):
                    assert secret not in there.text, what
        assert await state(client, victim) == before


@pytest.mark.asyncio(loop_scope="module")
async def test_no_token_tells_a_stranger_how_much_happened(inside: Inside) -> None:
    async with inside.client(CONNECTIONS) as client:
        victim = await settle(inside, client, "silent")
        for path in ("/v1/tenants", f"/v1/tenants/{victim.id}/audit", "/v1/counters"):
            answers = set()
            for tenant in (victim.id, NOWHERE):
                token = f"{tenant}/tenant/{tenant}@1"
                headers = {"X-User-Id": "eve", "X-Tenant-Id": NOWHERE, "X-Consistency-Token": token}
                found = await client.get(path.replace(victim.id, tenant), headers=headers)
                assert found.status_code in (400, 404)
                answers.add(found.content)
            assert len(answers) == 1


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(300)
async def test_interleaved_requests_of_many_tenants_never_mix(inside: Inside) -> None:
    chance = random.Random(REQUESTS)
    async with inside.client(CONNECTIONS) as client:
        tenants = [await settle(inside, client, f"t{number}") for number in range(8)]

        async def ask(number: int) -> None:
            tenant = chance.choice(tenants)
            one, counter = f"/v1/tenants/{tenant.id}", f"/v1/counters/canary-{tenant.name}"
            method, path, body = chance.choice(
                [
                    ("GET", one, None),
                    ("GET", f"{one}/members", None),
                    ("GET", "/v1/tenants", None),
                    ("GET", "/v1/counters", None),
                    ("GET", "/v1/activity", None),
                    ("GET", f"{counter}/history", None),
                    ("POST", f"{counter}/increment", {"by": 1}),
                    ("GET", one.replace(tenant.id, chance.choice(tenants).id), None),
                ]
            )
            user = tenant.users[chance.choice(("owner", "admin", "member"))]
            headers = {
                "X-User-Id": user,
                "X-Tenant-Id": tenant.id,
                "Idempotency-Key": f"n{number}",
            }
            answer = await client.request(method, path, json=body, headers=headers)
            assert answer.status_code in (200, 404), answer.text
            assert answer.is_success or tenant.id not in path, answer.text
            leaked = set(CANARY.findall(answer.text)) - _own(tenant)
            assert not leaked, f"request {number}: {user} at {path} saw {leaked}: {answer.text}"

        for begin in range(0, REQUESTS, 64):
            numbers = range(begin, min(begin + 64, REQUESTS))
            await asyncio.gather(*(ask(number) for number in numbers))


def _own(tenant: Settled) -> set[str]:
    return {f"{tenant.name}{role}" for role in ("", "admin", "member")}
