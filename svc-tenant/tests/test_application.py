"""What tenants answer over a bus, as the service is deployed: on libSQL, with a real vault."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flotilla import (
    Answer,
    Bindings,
    Context,
    KernelError,
    Rejected,
    Request,
    StreamId,
    SystemClock,
    Version,
    uuid7,
)
from flotilla.buses.local import LocalBus
from flotilla.embedded import NatsServer
from flotilla.keys import KeyStore
from flotilla.master_key import MasterKeys, new_master_key
from flotilla.service import KeysBinding
from flotilla.stores import ServiceStore, open_keys, open_store
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.health import HealthReply, health_subject
from flotilla_contracts.tenant import (
    tenant_of_token,
)
from flotilla_contracts.tenant_events import (
    SYSTEM,
)
from svc_tenant.domain.plans import LIMITS
from svc_tenant.main import compose
from svc_tenant.streams import ERASURES

EMAIL = "canary-address@example.org"
MASTER = new_master_key(bytes(range(32)))
NAME = "Canary Display Name"
ACME = StreamId("acme/tenant/acme")


@dataclass
class World:
    """The service on a bus, its store and its keys. Every command has a key of its own."""

    bus: LocalBus
    store: ServiceStore
    keys: KeyStore

    async def tell(
        self, verb: str, actor: str = "olga", *, key: str | None = None, **body: Any
    ) -> Answer:
        context = {"idempotency_key": key or str(uuid7())}
        return await self.send(f"cmd.tenant.{verb}", {"actor_id": actor} | body, **context)

    async def send(self, subject: str, body: dict[str, Any], **context: Any) -> Answer:
        """`tenant` and `expected_version` of the body's place are those of the context."""
        where = {"tenant": "acme", "correlation_id": "conversation"} | context
        for name in ("tenant", "expected_version"):
            if name in body:
                where[name] = body.pop(name)
        encoded = json.dumps(body).encode()
        return await self.bus.request(Request(subject, encoded, Context(**where)))

    async def ask(self, question: str, actor: str = "olga", **body: Any) -> dict[str, Any]:
        who = "user_id" if question == "get-membership" else "actor_id"
        return said(await self.send(f"qry.tenant.{question}", {who: actor} | body))

    async def begin(self, plan: str = "team") -> None:
        await self.tell("create", SYSTEM, name="Acme", owner_id="olga", plan=plan)
        await self.tell("activate", SYSTEM)

    async def alive(self) -> int:
        return (await self.keys.status()).alive


def said(answer: Answer) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(answer.body)
    return told


def bindings(folder: Path, nats_url: str, bus: LocalBus) -> Bindings:
    return Bindings(
        stores={"tenant": f"libsql://{folder}/tenant.db"},
        nats_url=nats_url,
        bus=bus,
        clock=SystemClock(),
        ids=uuid7,
        chance=random.Random(1),
        services=("tenant",),
        logs=("tenant",),
        keys=KeysBinding(f"libsql://{folder}/keys.db", MasterKeys.parse(MASTER)),
    )


@asynccontextmanager
async def deployed(folder: Path, nats_url: str) -> AsyncIterator[World]:
    """Compose the service as a fleet does."""
    bound = bindings(folder, nats_url, bus := LocalBus())
    assert bound.keys is not None
    async with (
        compose(bound),
        open_store(bound.stores["tenant"], service="tenant") as store,
        open_keys(bound.keys.url) as keys,
    ):
        yield World(bus, store, keys)


@pytest.fixture(autouse=True)
def snapshots_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_TENANT_SNAPSHOT_EVERY_EVENTS", "3")


@pytest.fixture
async def world(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[World]:
    async with deployed(tmp_path, nats_server.url) as world:
        yield world


async def refused(asking: Any, code: str, family: type[KernelError] = Rejected) -> str:
    with pytest.raises(family) as refusal:
        await asking
    assert code == refusal.value.code
    return str(refusal.value)


# A day of a tenant.


async def test_a_tenant_is_begun_staffed_and_asked_about(world: World) -> None:
    begun = said(
        await world.tell("create", SYSTEM, name="Acme", owner_id="olga", owner_email=EMAIL)
    )
    assert ("acme", "onboarding", 1, 2) == tuple(
        begun[name] for name in ("tenant_id", "status", "members", "version")
    )
    await world.tell("activate", SYSTEM)
    invited = said(await world.tell("invite-member", email="new@example.org", role="admin"))
    waiting = await world.ask("list-invitations")
    joined = await world.tell(
        "accept-invitation", "ada", token=invited["token"], email=EMAIL, display_name=NAME
    )

    assert "acme" == tenant_of_token(invited["token"])
    assert [("new@example.org", None)] == [(i["email"], i["token"]) for i in waiting["items"]]
    assert ("ada", "admin", EMAIL, NAME) == tuple(
        said(joined)[name] for name in ("user_id", "role", "email", "display_name")
    )
    members = await world.ask("list-members", "ada")
    assert [("ada", NAME), ("olga", None)] == [
        (member["user_id"], member["display_name"]) for member in members["items"]
    ]
    assert EMAIL == members["items"][1]["email"]
    assert {"role": "admin", "status": "active"}.items() <= (
        await world.ask("get-membership", "ada")
    ).items()
    quotas = {item["quota"]: item["used"] for item in (await world.ask("get-quotas"))["items"]}
    assert {"members": 2, "invitations": 1, "counters": 0} == quotas


async def test_members_come_in_pages(world: World) -> None:
    await world.begin()
    for user in ("a", "b", "c"):
        await world.tell("add-member", SYSTEM, user_id=user, role="member")

    first = await world.ask("list-members", limit=2)
    second = await world.ask("list-members", after=first["next_cursor"], limit=2)

    assert [["a", "b"], ["c", "olga"]] == [
        [item["user_id"] for item in page["items"]] for page in (first, second)
    ]
    assert ("b", None) == (first["next_cursor"], second["next_cursor"])


async def test_health_is_answered(world: World) -> None:
    answer = await world.send(health_subject("tenant"), {})
    assert HealthReply.model_validate_json(answer.body).ready


# Personal data.


async def test_personal_text_and_tokens_are_nowhere_in_the_clear(
    world: World, tmp_path: Path
) -> None:
    await world.begin()
    token = said(await world.tell("invite-member", email=EMAIL))["token"]
    await world.tell("accept-invitation", "new", token=token, email=EMAIL, display_name=NAME)
    await world.tell(
        "add-member", SYSTEM, user_id="u", role="member", email=EMAIL, display_name=NAME
    )

    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    kept = b"".join(file.read_bytes() for file in files)
    assert b"tenant.member-invited.v1" in kept, "nothing was looked at"
    for secret in (EMAIL, NAME, token, token.rsplit(":", 1)[1]):
        assert secret.encode() not in kept


async def test_an_erased_member_cannot_be_read_any_more_also_by_a_retry(world: World) -> None:
    await world.begin()
    adding: dict[str, Any] = {"user_id": "u", "role": "member", "email": EMAIL}
    first = said(await world.tell("add-member", SYSTEM, key="k", **adding))
    await world.tell("remove-member", user_id="u")
    erased = said(await world.tell("erase-member", user_id="u"))

    assert (EMAIL, 1) == (first["email"], erased["keys"])
    again = await world.tell("add-member", SYSTEM, key="k", **adding)
    assert (True, None) == (again.replayed, said(again)["email"])
    assert 1 == len(await world.store.read(ERASURES))


async def test_what_is_refused_leaves_no_key_behind(world: World) -> None:
    await world.begin(plan="free")
    before = await world.alive()
    tokens = ["acme:x:" + "y" * 40, "z" * 40]
    for n, token in enumerate(tokens):
        joining = world.tell("accept-invitation", f"u{n}", token=token, email=EMAIL)
        await refused(joining, ErrorCode.INVITATION_NOT_FOUND)
    await refused(world.tell("invite-member", "mallory", email=EMAIL), ErrorCode.TENANT_NOT_FOUND)
    await refused(
        world.tell("create", "olga", name="Acme", owner_id="olga", owner_email=EMAIL),
        ErrorCode.TENANT_EXISTS,
    )

    assert before == await world.alive()


# Once and only once.


async def test_a_retried_invitation_is_answered_with_the_same_token(world: World) -> None:
    await world.begin()
    first = await world.tell("invite-member", key="k", email=EMAIL)
    again = await world.tell("invite-member", key="k", email=EMAIL)
    other = await world.tell("invite-member", email=EMAIL)

    assert (said(first), True) == (said(again), again.replayed)
    assert said(first)["token"] != said(other)["token"]
    assert 2 == len((await world.ask("list-invitations"))["items"])
    await refused(
        world.tell("invite-member", key="k", email="other@example.org"),
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        KernelError,
    )


async def test_a_retried_acceptance_is_answered_though_its_token_is_used(world: World) -> None:
    await world.begin()
    token = said(await world.tell("invite-member", email=EMAIL))["token"]
    first = await world.tell("accept-invitation", "new", key="k", token=token, email=EMAIL)
    again = await world.tell("accept-invitation", "new", key="k", token=token, email=EMAIL)

    assert (said(first), True) == (said(again), again.replayed)


async def test_fifty_twins_consume_once_and_fifty_others_never_more_than_there_is(
    world: World,
) -> None:
    await world.begin(plan="free")
    most = LIMITS["free"]["counters"]

    async def consume(key: str) -> Answer | BaseException:
        (outcome,) = await asyncio.gather(
            world.tell("consume-quota", SYSTEM, key=key, quota="counters"), return_exceptions=True
        )
        return outcome

    twins = await asyncio.gather(*(consume("k") for _ in range(50)))
    assert 1 == len({answer.body for answer in twins if isinstance(answer, Answer)})
    others = await asyncio.gather(*(consume(f"k{n}") for n in range(50)))

    assert most - 1 == sum(isinstance(outcome, Answer) for outcome in others)
    assert {ErrorCode.QUOTA_EXCEEDED} == {o.code for o in others if isinstance(o, KernelError)}
    used = {item["quota"]: item["used"] for item in (await world.ask("get-quotas"))["items"]}
    assert most == used["counters"]


async def test_of_many_who_accept_one_token_one_becomes_a_member(world: World) -> None:
    await world.begin()
    token = said(await world.tell("invite-member", email=EMAIL))["token"]

    outcomes = await asyncio.gather(
        *(world.tell("accept-invitation", f"u{n}", token=token) for n in range(10)),
        return_exceptions=True,
    )

    assert 1 == sum(isinstance(outcome, Answer) for outcome in outcomes)
    assert 2 == (await world.ask("get"))["members"]


async def test_two_owners_who_leave_at_once_leave_one(world: World) -> None:
    await world.begin()
    await world.tell("add-member", SYSTEM, user_id="otto", role="owner")

    outcomes = await asyncio.gather(
        *(world.tell("remove-member", user, user_id=user) for user in ("olga", "otto")),
        return_exceptions=True,
    )

    (lost,) = [outcome for outcome in outcomes if isinstance(outcome, KernelError)]
    assert ErrorCode.LAST_OWNER == lost.code


async def test_a_command_may_depend_on_the_version_that_its_sender_saw(world: World) -> None:
    await world.begin()
    seen = Version((await world.ask("get"))["version"])
    await world.tell("rename", name="Ajax", expected_version=seen)
    await refused(
        world.tell("rename", name="Axis", expected_version=seen),
        ErrorCode.VERSION_MISMATCH,
        KernelError,
    )


# What is refused.


@pytest.mark.parametrize(
    "question", ["get", "get-membership", "list-members", "list-invitations", "get-quotas"]
)
async def test_strangers_are_told_what_they_are_told_of_nothing(
    world: World, question: str
) -> None:
    nothing = await refused(world.ask(question, "mallory"), ErrorCode.TENANT_NOT_FOUND)
    await world.begin()

    assert nothing == await refused(world.ask(question, "mallory"), ErrorCode.TENANT_NOT_FOUND)
    assert nothing == await refused(
        world.tell("rename", "mallory", name="Mine"), ErrorCode.TENANT_NOT_FOUND
    )


async def test_members_do_not_see_who_is_invited(world: World) -> None:
    await world.begin()
    await world.tell("add-member", SYSTEM, user_id="max", role="member")
    await refused(world.ask("list-invitations", "max"), ErrorCode.ROLE_NOT_ALLOWED)


@pytest.mark.parametrize("tenant", ["", "-", "a/b", "a:b", "größe", "a b", "..", "x" * 65, "a\n"])
async def test_a_tenant_that_cannot_be_one_is_refused(world: World, tenant: str) -> None:
    creating = world.tell("create", SYSTEM, name="Acme", owner_id="olga", tenant=tenant)
    await refused(creating, ErrorCode.TENANT_INVALID)
    assert 0 == (await world.store.status()).committed


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("create", {"name": "Acme", "owner_id": "olga", "plan": "gold"}),
        ("create", {"name": " Acme", "owner_id": "olga"}),
        ("create", {"name": "Acme", "owner_id": "o/l"}),
        ("invite-member", {"email": "nobody"}),
        ("invite-member", {"email": EMAIL, "role": "king"}),
        ("consume-quota", {"quota": "members"}),
        ("consume-quota", {"quota": "counters", "amount": 0}),
        ("consume-quota", {"quota": "counters", "amount": "1"}),
        ("reset-quotas", {"period": "tomorrow"}),
        ("accept-invitation", {"token": "short"}),
        ("rename", {"name": "Ajax", "more": 1}),
        ("rename", {"name": "two\nlines"}),
    ],
)
async def test_a_body_that_is_no_command_is_refused(
    world: World, verb: str, body: dict[str, Any]
) -> None:
    await refused(world.tell(verb, SYSTEM, **body), ErrorCode.INVALID_REQUEST)
    assert 0 == (await world.store.status()).committed


# Living on.


async def test_what_was_decided_is_there_after_a_restart(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    async with deployed(tmp_path, nats_server.url) as before:
        await before.begin()
        await before.tell("add-member", SYSTEM, user_id="u", role="member", email=EMAIL)
        token = said(await before.tell("invite-member", email=EMAIL))["token"]
        waiting = await before.ask("list-invitations")
        members = await before.ask("list-members")

    async with deployed(tmp_path, nats_server.url) as after:
        assert waiting == await after.ask("list-invitations")
        assert members == await after.ask("list-members")
        assert "new" == said(await after.tell("accept-invitation", "new", token=token))["user_id"]


async def test_keys_that_come_back_from_a_backup_are_destroyed_again(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    async with deployed(tmp_path, nats_server.url) as before:
        await before.begin()
        await before.tell("add-member", SYSTEM, user_id="u", role="member", email=EMAIL)
        await before.tell("remove-member", user_id="u")
    backup = {file: file.read_bytes() for file in tmp_path.glob("keys.db*")}
    async with deployed(tmp_path, nats_server.url) as erasing:
        await erasing.tell("erase-member", user_id="u")
        assert 0 == await erasing.alive()
    for file in tmp_path.glob("keys.db*"):
        file.unlink()
    for file, content in backup.items():
        file.write_bytes(content)

    async with deployed(tmp_path, nats_server.url) as after:
        assert 0 == await after.alive()


async def test_without_keys_it_does_not_start(tmp_path: Path, nats_server: NatsServer) -> None:
    bound = bindings(tmp_path, nats_server.url, LocalBus())
    with pytest.raises(LookupError, match="needs: "):
        async with compose(replace(bound, keys=None)):
            pass
