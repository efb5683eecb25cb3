"""Directory, memberships and quota use, on both stores; and what is answered of them over a bus."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from flotilla import (
    Context,
    LogEvent,
    Offset,
    Projection,
    Rejected,
    Request,
    StreamId,
    Unavailable,
    Version,
    ViewSession,
    ViewStore,
)
from flotilla.buses.local import LocalBus
from flotilla.embedded import PostgresServer
from flotilla.stores.libsql import LibsqlViews
from flotilla.stores.memory import MemoryStore
from flotilla.stores.postgres import PostgresViews
from flotilla_contracts.message import Event, Query, Reply
from flotilla_contracts.tenant_events import (
    ErasureRecorded,
    InvitationAccepted,
    MemberAdded,
    MemberInvited,
    MemberRemoved,
    MemberRoleChanged,
    PlanAssigned,
    QuotaConsumed,
    QuotaReleased,
    QuotasReset,
    TenantAbandoned,
    TenantActivated,
    TenantClosed,
    TenantCreated,
    TenantErased,
    TenantRenamed,
    TenantResumed,
    TenantSuspended,
)
from flotilla_contracts.tenant_views import (
    PLAN_LIMITS,
    AuditHead,
    AuditPage,
    GetAuditHead,
    ListAudit,
    ListMemberships,
    ListQuotaUse,
    ListTenants,
    MembershipPage,
    QuotaUsePage,
    TenantPage,
)
from svc_projector.audit import AuditView
from svc_projector.memberships import Memberships, list_memberships
from svc_projector.projector import Projector
from svc_projector.quotas import QuotaUseView, list_quota_use
from svc_projector.tenant_queries import TenantQueries
from svc_projector.tenants import TenantDirectory, list_tenants

AT = datetime(2026, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)
ALL = Offset(10**9)
SEALED = "sealed:1:0123456789abcdef0123456789abcdef:" + "A" * 60
PROJECTIONS: tuple[Projection, ...] = (
    TenantDirectory(),
    Memberships(),
    QuotaUseView(),
    AuditView(),
)


class AllRecorded(MemoryStore):
    """A ledger that has whatever is delivered: what is done when it has not is tested elsewhere."""

    async def last_offset(self) -> Offset:
        return ALL


def log_of(*events: tuple[str, Event]) -> list[LogEvent]:
    """Return a log of (tenant, event) pairs, a second apart."""
    versions: dict[str, int] = {}
    log = []
    for n, (tenant, event) in enumerate(events, start=1):
        versions[tenant] = versions.get(tenant, 0) + 1
        log.append(
            LogEvent(
                Offset(n),
                tenant,
                StreamId(f"{tenant}/tenant/{tenant}"),
                Version(versions[tenant]),
                event.type,
                event.model_dump_json().encode(),
                AT + timedelta(seconds=n),
                None,
                str(uuid4()),
                f"c{n}",
            )
        )
    return log


def created(name: str, plan: str = "free") -> TenantCreated:
    return TenantCreated.model_validate(
        {"tenant_id": name, "name": name.title(), "plan": plan, "actor_id": "ann"}
    )


def added(user: str, role: str = "member") -> MemberAdded:
    return MemberAdded.model_validate(
        {"user_id": user, "role": role, "email": SEALED, "actor_id": "ann"}
    )


INVITED = MemberInvited(
    invitation_id="i1",
    role="admin",
    email=SEALED,
    token_sha256="0" * 64,
    expires_at=AT,
    actor_id="ann",
)
STORY = log_of(
    ("acme", created("acme", "team")),
    ("acme", added("ann", "owner")),
    ("rival", created("rival")),
    ("acme", TenantActivated(actor_id="system")),
    ("rival", added("ann")),
    ("acme", INVITED),
    ("acme", InvitationAccepted(invitation_id="i1", user_id="bob")),
    ("acme", added("bob", "admin")),
    ("acme", TenantRenamed(name="Acme Inc", previous_name="Acme", actor_id="ann")),
    ("acme", QuotaConsumed(quota="counters", amount=5, used=5, limit=1000, actor_id="system")),
    ("acme", QuotaReleased(quota="counters", amount=2, used=3, actor_id="system")),
    (
        "acme",
        MemberRoleChanged(user_id="bob", role="owner", previous_role="admin", actor_id="ann"),
    ),
    ("rival", TenantAbandoned(actor_id="system")),
    ("acme", PlanAssigned(plan="business", previous_plan="team", actor_id="ann")),
    ("acme", TenantSuspended(reason="unpaid", actor_id="system")),
)
LATER = log_of(
    *((e.tenant, TenantResumed(actor_id="x")) for e in STORY),
    ("acme", TenantResumed(actor_id="system")),
    ("acme", MemberRemoved(user_id="ann", role="owner", actor_id="ann")),
    ("acme", QuotasReset(period="2026-05-18", actor_id="system")),
    ("acme", TenantClosed(actor_id="bob")),
    ("acme", TenantErased(actor_id="bob")),
)[len(STORY) :]


@pytest.fixture(params=["libsql", "postgres"])
async def views(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer
) -> AsyncIterator[ViewStore]:
    if request.param == "libsql":
        async with LibsqlViews.open(f"libsql://{tmp_path}/views.db", service="projector") as libsql:
            yield libsql
    else:
        service = f"p{uuid4().hex[:12]}"
        async with PostgresViews.open(postgres_server.dsn, service=service) as postgres:
            yield postgres


async def project(views: ViewStore, *batches: list[LogEvent]) -> dict[str, Projector]:
    """Deliver batches to all read models of a process that has just started."""
    projectors = {}
    for projection in PROJECTIONS:
        await views.migrate(projection.name, projection.tables)
        projector = Projector(projection, views, AllRecorded())
        await projector.begin()
        await projector.start()
        projector.recorded = ALL
        for batch in batches:
            await projector.project(batch)
        projectors[projection.name] = projector
    return projectors


async def directory(views: ViewStore) -> dict[str, tuple[str, str, str, int, int]]:
    page = await list_tenants(views, after="", limit=100)
    return {t.tenant_id: (t.name, t.status, t.plan, t.members, t.version) for t in page.items}


async def tenants_of(views: ViewStore, user: str) -> dict[str, tuple[str, str, str]]:
    page = await list_memberships(views, user, after="", limit=100)
    return {m.tenant_id: (m.tenant_name, m.role, m.status) for m in page.items}


async def used(views: ViewStore, tenant: str) -> dict[str, tuple[int, int]]:
    page = await list_quota_use(views, tenant, after="", limit=100)
    assert page is not None
    return {q.quota: (q.used, q.limit) for q in page.items}


async def test_the_directory_says_what_a_tenant_is(views: ViewStore) -> None:
    await project(views, STORY)

    assert {
        "acme": ("Acme Inc", "suspended", "business", 2, 12),
        "rival": ("Rival", "abandoned", "free", 1, 3),
    } == await directory(views)
    [acme, _] = (await list_tenants(views, after="", limit=2)).items
    assert STORY[0].recorded_at == acme.since


async def test_a_user_has_tenants_and_in_each_a_role(views: ViewStore) -> None:
    await project(views, STORY)

    assert {
        "acme": ("Acme Inc", "owner", "suspended"),
        "rival": ("Rival", "member", "abandoned"),
    } == await tenants_of(views, "ann")
    assert {"acme": ("Acme Inc", "owner", "suspended")} == await tenants_of(views, "bob")
    assert {} == await tenants_of(views, "%")


async def test_quotas_are_used_within_the_limits_of_the_plan(views: ViewStore) -> None:
    await project(views, STORY)
    limits = PLAN_LIMITS["business"]

    assert {
        "counters": (3, limits["counters"]),
        "invitations": (1, limits["invitations"]),
        "members": (2, limits["members"]),
    } == await used(views, "acme")
    assert (1, PLAN_LIMITS["free"]["members"]) == (await used(views, "rival"))["members"]
    assert await list_quota_use(views, "nobody", after="", limit=9) is None


async def test_what_ends_is_over(views: ViewStore) -> None:
    await project(views, STORY, [replace(e, offset=Offset(e.offset)) for e in LATER])

    assert ("erased", 1) == (await directory(views))["acme"][1::2]
    assert {"rival": ("Rival", "member", "abandoned")} == await tenants_of(views, "ann")
    assert {"acme": ("Acme Inc", "owner", "erased")} == await tenants_of(views, "bob")
    assert (0, 1) == (
        (await used(views, "acme"))["invitations"][0],
        (await used(views, "acme"))["members"][0],
    )
    page = await list_quota_use(views, "acme", after="", limit=9)
    assert page is not None
    assert "2026-05-18" == page.period


@pytest.mark.parametrize("seed", range(3))
async def test_views_are_the_same_however_the_log_is_cut_and_redelivered(
    views: ViewStore, seed: int
) -> None:
    chance, at = random.Random(seed), 0
    while at < len(STORY):
        end = at + chance.randint(1, 5)
        batch = STORY[max(0, at - chance.randint(0, 4)) : end]
        await project(views, batch, batch)
        at = end

    assert ("Acme Inc", "suspended", "business", 2, 12) == (await directory(views))["acme"], seed
    assert (2, 1) == (
        (await used(views, "acme"))["members"][0],
        (await used(views, "rival"))["members"][0],
    )
    assert {"acme", "rival"} == set(await tenants_of(views, "ann"))


async def test_events_of_others_and_of_other_streams_change_nothing(views: ViewStore) -> None:
    foreign = replace(
        STORY[-1], offset=Offset(16), version=Version(13), type="new.v1", payload=b"?"
    )
    erasure = ErasureRecorded(tenant_id="acme", subject=None, key_id=None)
    recorded = replace(
        foreign,
        offset=Offset(17),
        stream=StreamId("acme/erasures/all"),
        version=Version(99),
        type=erasure.type,
        payload=erasure.model_dump_json().encode(),
    )
    await project(views, [*STORY, foreign, recorded])

    assert ("Acme Inc", "suspended", "business", 2, 13) == (await directory(views))["acme"]


async def test_no_view_has_a_personal_field(views: ViewStore) -> None:
    await project(views, STORY)

    for table in (
        "tenant_directory",
        "membership",
        "membership_tenant",
        "quota_use",
        "audit_entry",
    ):
        rows = await views.fetch_across(f"select * from {table}")
        assert rows, table
        assert "sealed:" not in str([tuple(row) for row in rows]), table


async def test_a_tenant_is_forgotten_and_folded_again(views: ViewStore) -> None:
    """What `flotilla replay --tenant` does, for each view."""
    await project(views, STORY)
    before = (await directory(views), await tenants_of(views, "ann"), await used(views, "acme"))
    own = [event for event in STORY if event.tenant == "acme"]

    for view in (TenantDirectory(), Memberships(), QuotaUseView()):

        async def again(session: ViewSession, view: Memberships = view) -> None:  # type: ignore[assignment] # one of three
            await view.forget(session, "acme", None)
            await view.apply(session, own)

        await views.transact(again)

    after = (await directory(views), await tenants_of(views, "ann"), await used(views, "acme"))
    assert before == after


# What is answered.


class Asking:
    """A bus with the queries on it, asked for a tenant."""

    def __init__(self, views: ViewStore, projectors: dict[str, Projector]) -> None:
        self.bus = LocalBus()
        self.queries = TenantQueries(views, projectors, 0.3)

    async def serve(self) -> None:
        await self.queries.serve(self.bus)

    async def ask[R: Reply](
        self, query: Query, reply: type[R], tenant: str = "acme", token: str | None = None
    ) -> R:
        context = Context(tenant, "c", consistency_token=token)
        body = query.model_dump_json().encode()
        answer = await self.bus.request(Request(query.subject, body, context))
        return reply.model_validate_json(answer.body)


@pytest.fixture
async def asking(views: ViewStore) -> Asking:
    asking = Asking(views, await project(views, STORY))
    await asking.serve()
    return asking


async def test_pages_have_everything_once(asking: Asking) -> None:
    first = await asking.ask(ListTenants(limit=1), TenantPage)
    rest = await asking.ask(ListTenants(limit=5, after=first.next_cursor), TenantPage)
    assert ["acme", "rival"] == [t.tenant_id for t in (*first.items, *rest.items)]
    assert rest.next_cursor is None

    mine = await asking.ask(ListMemberships(user_id="ann", limit=1), MembershipPage)
    more = await asking.ask(
        ListMemberships(user_id="ann", limit=1, after=mine.next_cursor), MembershipPage
    )
    assert ["acme", "rival"] == [m.tenant_id for m in (*mine.items, *more.items)]
    assert more.next_cursor is None

    quota = await asking.ask(ListQuotaUse(limit=2), QuotaUsePage)
    last = await asking.ask(ListQuotaUse(limit=2, after=quota.next_cursor), QuotaUsePage)
    assert ["counters", "invitations", "members"] == [q.quota for q in (*quota.items, *last.items)]
    assert last.next_cursor is None


async def test_an_audit_is_newest_first_and_of_one_tenant(asking: Asking) -> None:
    pages = [await asking.ask(ListAudit(limit=5), AuditPage)]
    while before := pages[-1].next_before:
        pages.append(await asking.ask(ListAudit(limit=5, before=before), AuditPage))
    entries = [entry for page in pages for entry in page.items]

    assert list(range(12, 0, -1)) == [entry.number for entry in entries]
    assert ("tenant.suspended.v1", "system", 15) == (
        entries[0].type,
        entries[0].actor_id,
        entries[0].offset,
    )
    assert "bob" == next(e.about for e in entries if e.type == "tenant.member-role-changed.v1")
    head = await asking.ask(GetAuditHead(), AuditHead)
    assert (12, entries[0].hash) == (head.entries, head.hash)
    assert 3 == (await asking.ask(GetAuditHead(), AuditHead, "rival")).entries


@pytest.mark.parametrize("query", [ListQuotaUse(), GetAuditHead()])
async def test_a_tenant_that_is_not_there_is_not_found(asking: Asking, query: Query) -> None:
    with pytest.raises(Rejected) as refused:
        await asking.ask(query, Reply, "nobody")

    assert "tenant-not-found" == refused.value.code


@pytest.mark.parametrize(
    "query",
    [ListTenants(), ListMemberships(user_id="ann"), ListQuotaUse(), ListAudit(), GetAuditHead()],
)
async def test_a_token_is_waited_for_until_it_is_seen(asking: Asking, query: Query) -> None:
    await asking.ask(query, query.reply, token="acme/tenant/acme@12")

    with pytest.raises(Unavailable) as late:
        await asking.ask(query, query.reply, token="acme/tenant/acme@13")
    assert "view-behind" == late.value.code
    for token in ("rival/tenant/rival@1", "acme/tenant/acme@x", "acme/counter/acme@1", ""):
        with pytest.raises(Rejected) as refused:
            await asking.ask(query, query.reply, token=token)
        assert "consistency-token-invalid" == refused.value.code
